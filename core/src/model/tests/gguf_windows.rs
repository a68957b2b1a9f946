//! Windows in GGUF metadata, stated and by family.

use super::*;
use crate::testing::GgufValue;

#[test]
fn windows_by_family() {
    let windowed = |architecture: &str, n_layers| {
        let key = format!("{architecture}.attention.sliding_window");
        pattern(&family(architecture, n_layers, |file| {
            file.set(&key, 512u32);
        }))
    };
    assert_eq!(windowed("gpt-oss", 6), "w.w.w.");
    assert_eq!(windowed("gemma2", 4), "w.w.");
    assert_eq!(windowed("gemma3", 13), "wwwww.wwwww.w");
    assert_eq!(windowed("gemma3n", 10), "wwww.wwww.");
    assert_eq!(windowed("cohere2", 8), "www.www.");
    assert_eq!(windowed("olmo2", 4), "www.");
    assert_eq!(windowed("llama4", 8), "www.www.");
    assert_eq!(windowed("smallthinker", 8), ".www.www");
    assert_eq!(windowed("exaone4", 8), "........");
    assert_eq!(windowed("exaone4", 64), "www.".repeat(16));
    // Families that llama.cpp runs without one whatever the file says.
    for architecture in ["llama", "qwen2", "qwen3", "mistral3", "phi3"] {
        assert_eq!(windowed(architecture, 4), "....", "{architecture}");
    }
}

#[test]
fn stated_window_patterns_prevail() {
    let stated = |architecture: &str, value: GgufValue| {
        pattern(&family(architecture, 6, |file| {
            file.set(&format!("{architecture}.attention.sliding_window"), 512u32);
            file.set(&format!("{architecture}.attention.sliding_window_pattern"), value);
        }))
    };
    let flags = |text: &str| GgufValue::from(text.chars().map(|c| c == 'w').collect::<Vec<_>>());
    assert_eq!(stated("gemma3", flags("ww..w.")), "ww..w.");
    assert_eq!(stated("gemma4", flags("wwwww.")), "wwwww.");
    assert_eq!(stated("gemma3", 3u32.into()), "ww.ww.");
    assert_eq!(stated("gemma3", 1u32.into()), "......");
    assert_eq!(stated("gemma3", 0u32.into()), "wwwwww");
    assert_eq!(stated("smallthinker", 2u32.into()), ".w.w.w");
    assert_eq!(stated("gemma3", vec![1u32, 0, 1, 0, 1, 0, 1, 1].into()), "w.w.w.");
    assert_eq!(stated("phi3", flags("wwwwww")), "......");
    let off = family("gemma3", 6, |file| {
        file.set("gemma3.attention.sliding_window", 0u32);
    });
    assert_eq!(off.window, WindowPattern::Full);
}

#[test]
fn window_lengths() {
    let window = |architecture: &str, stated: u32| {
        let key = format!("{architecture}.attention.sliding_window");
        family(architecture, 4, |file| {
            file.set(&key, stated);
        })
        .layers[1]
            .window
    };
    assert_eq!(window("gemma3", 1024), Some(1024));
    // llama.cpp puts its own numbers in place of the file's.
    assert_eq!(window("llama4", 512), Some(8192));
    assert_eq!(window("smallthinker", 512), Some(4096));
    assert_eq!(window("llama4", 0), None);
    let info = family("gpt-oss", 4, |file| {
        file.set("gpt-oss.attention.sliding_window", 128u32);
    });
    assert_eq!(info.window, WindowPattern::Sliding { window: 128, n_windowed: 2, n_full: 2 });
}
