//! Every parameter that is accepted has an effect that can be seen.

use duet_core::testing::{FakeConfig, Reply};
use serde_json::{Value, json};

use crate::support::gguf::Header;
use crate::support::{Running, World};

/// Logits that are noise, so that sampling parameters matter.
async fn noisy() -> Running {
    World::new().model("m", Reply::Hash).start().await
}

/// A completion's token ids and finish reason.
async fn ids(server: &Running, fields: Value) -> (Vec<u64>, String) {
    let mut body =
        json!({"model": "m", "prompt": "abcabcab", "max_tokens": 24, "seed": 1, "return_token_ids": true});
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    let answer = server.post("/v1/completions", &body.to_string()).await;
    let choice = answer.json()["choices"][0].clone();
    assert!(choice.is_object(), "{fields}: {}", answer.text());
    let ids =
        choice["token_ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id")).collect();
    (ids, choice["finish_reason"].as_str().expect("a reason").to_owned())
}

#[tokio::test]
async fn filters_of_the_sampler() {
    let server = noisy().await;
    let plain = ids(&server, json!({})).await;
    let greedy = ids(&server, json!({"temperature": 0})).await;
    assert_ne!(plain, greedy);
    assert_eq!(plain.0.len(), 24);
    // Each of these leaves only the best token, whatever the seed.
    for only_best in [
        json!({"top_k": 1}),
        json!({"top_p": 0.0}),
        json!({"min_p": 1.0}),
        json!({"top_n_sigma": 0.0001}),
        json!({"temperature": 0, "top_k": 50, "seed": 7}),
    ] {
        assert_eq!(ids(&server, only_best.clone()).await, greedy, "{only_best}");
    }
    for different in [
        json!({"temperature": 0.3}),
        json!({"typical_p": 0.05}),
        json!({"xtc_probability": 1.0, "xtc_threshold": 0.001}),
        json!({"seed": 2}),
        json!({"seed": -5}),
        json!({"seed": 18_446_744_073_709_551_615u64}),
    ] {
        assert_ne!(ids(&server, different.clone()).await, plain, "{different}");
    }
    for off in [
        json!({"top_k": 0}),
        json!({"top_k": -1}),
        json!({"top_p": 1, "min_p": 0, "typical_p": 1, "top_n_sigma": -1}),
        json!({"temperature": null, "seed": 1}),
        json!({"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1}),
        json!({"xtc_probability": 0, "dry_multiplier": 0}),
    ] {
        assert_eq!(ids(&server, off.clone()).await, plain, "{off}");
    }
    // Without a seed every request has its own.
    let (a, b) = (ids(&server, json!({"seed": null})).await, ids(&server, json!({"seed": -1})).await);
    assert_ne!(a, b);
}

#[tokio::test]
async fn biases_and_penalties() {
    let server = noisy().await;
    let biased = json!({"temperature": 0, "logit_bias": {"99": 100}});
    assert_eq!(ids(&server, biased).await.0, [99; 24]);
    let banned = ids(&server, json!({"temperature": 0})).await.0[0];
    let without = ids(&server, json!({"temperature": 0, "logit_bias": {banned.to_string(): -100}})).await.0;
    assert_ne!(without[0], banned);
    // A bias that a penalty outweighs: token 99 is in the prompt.
    let with = |fields: Value| {
        let mut all = json!({"temperature": 0, "logit_bias": {"99": 8.5}});
        all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        all
    };
    let base = ids(&server, with(json!({}))).await;
    assert_eq!(base.0, [99; 24]);
    for penalty in [
        json!({"presence_penalty": 2}),
        json!({"frequency_penalty": 2}),
        json!({"repetition_penalty": 3}),
        json!({"repeat_penalty": 3}),
        json!({"dry_multiplier": 10}),
    ] {
        assert_ne!(ids(&server, with(penalty.clone())).await, base, "{penalty}");
    }
    for moot in [
        json!({"repetition_penalty": 3, "repeat_last_n": 0}),
        json!({"dry_multiplier": 10, "dry_penalty_last_n": 0}),
        json!({"dry_multiplier": 10, "dry_allowed_length": 100}),
        json!({"dry_multiplier": 10, "dry_sequence_breakers": ["b", "c"]}),
    ] {
        assert_eq!(ids(&server, with(moot.clone())).await, base, "{moot}");
    }
}

#[tokio::test]
async fn lengths_and_stops() {
    let server = noisy().await;
    for field in ["max_tokens", "max_completion_tokens"] {
        let (got, reason) = ids(&server, json!({"max_tokens": null, field: 3})).await;
        assert_eq!((got.len(), reason.as_str()), (3, "length"), "{field}");
    }
    assert_eq!(ids(&server, json!({"max_tokens": 3, "max_completion_tokens": 3})).await.0.len(), 3);
    assert_eq!(ids(&server, json!({"max_tokens": null})).await.0.len(), 16, "OpenAI's default of this route");
    let stopped = json!({"logit_bias": {"99": 100}, "stop_token_ids": [98, 99]});
    assert_eq!(ids(&server, stopped).await, (vec![], "stop".into()));
    let server = World::replying("ab").start().await;
    assert_eq!(ids(&server, json!({})).await, (vec![97, 98], "stop".into()));
    assert_eq!(ids(&server, json!({"stop": "b"})).await, (vec![97, 98], "stop".into()));
    let (got, reason) = ids(&server, json!({"min_tokens": 5, "max_tokens": 5})).await;
    assert_eq!((got.len(), reason.as_str()), (5, "length"));
    let (got, reason) = ids(&server, json!({"ignore_eos": true})).await;
    assert_eq!((got.len(), reason.as_str()), (24, "length"));
    assert!(got.contains(&257), "the end-of-sequence token is an ordinary one then");
}

#[tokio::test]
async fn choices_have_seeds_of_their_own() {
    let server = noisy().await;
    let body = json!({"model": "m", "prompt": "abcabcab", "max_tokens": 24, "seed": 1, "n": 2, "return_token_ids": true});
    let answer = server.post("/v1/completions", &body.to_string()).await.json();
    for (index, seed) in [(0, 1), (1, 2)] {
        let choice: Vec<u64> = answer["choices"][index]["token_ids"]
            .as_array()
            .expect("ids")
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        assert_eq!(choice, ids(&server, json!({"seed": seed})).await.0);
    }
    assert_eq!(answer["usage"]["prompt_tokens"], 9, "the prompt counts once");
    assert_eq!(answer["usage"]["completion_tokens"], 48);
    assert_eq!(ids(&server, json!({"n": 1, "best_of": 1})).await.0.len(), 24);
}

/// The mean of a choice's logprobs.
fn mean(choice: &Value) -> f64 {
    let all: Vec<f64> = choice["logprobs"]["token_logprobs"]
        .as_array()
        .unwrap_or_else(|| panic!("{choice}"))
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    all.iter().sum::<f64>() / all.len() as f64
}

#[tokio::test]
async fn the_best_of_several_is_the_most_probable_one() {
    let server = noisy().await;
    for seed in 1..6 {
        let mut body = json!({
            "model": "m", "prompt": ["abcabcab", "xyz"], "max_tokens": 24, "seed": seed, "n": 2, "logprobs": 0
        });
        let both = server.post("/v1/completions", &body.to_string()).await.json();
        body["n"] = 1.into();
        body["best_of"] = 2.into();
        let best = server.post("/v1/completions", &body.to_string()).await.json();
        assert_eq!(best["choices"].as_array().map(Vec::len), Some(2), "one for each prompt");
        for prompt in 0..2 {
            let choices = &both["choices"].as_array().expect("choices")[2 * prompt..2 * prompt + 2];
            let wanted = choices.iter().max_by(|a, b| mean(a).total_cmp(&mean(b))).expect("two");
            let got = &best["choices"][prompt];
            assert_eq!((&got["text"], &got["index"]), (&wanted["text"], &json!(prompt)), "seed {seed}");
        }
        assert_eq!(best["usage"], both["usage"], "what is thrown away was generated too");
        // The same choice where nobody asks for logprobs, and none of them.
        body.as_object_mut().expect("an object").remove("logprobs");
        let plain = server.post("/v1/completions", &body.to_string()).await.json();
        assert_eq!(plain["choices"][0]["text"], best["choices"][0]["text"]);
        assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
    }
}

#[tokio::test]
async fn a_gap_is_shown_to_the_model_by_its_own_marks() {
    let server = World::new().model("gap", Reply::text("x")).start().await;
    let ask = async |fields: Value| {
        let mut body = json!({"model": "gap", "max_tokens": 1, "return_token_ids": true});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        server.post("/v1/completions", &body.to_string()).await.json()
    };
    let marked = json!([256, 1, 97, 98, 2, 99, 3]);
    for prompt in [json!("ab"), json!([97, 98]), json!(["ab"])] {
        let answer = ask(json!({"prompt": prompt, "suffix": "c"})).await;
        assert_eq!(answer["choices"][0]["prompt_token_ids"], marked, "{answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], 7);
    }
    let nothing_before = ask(json!({"prompt": "", "suffix": "c"})).await;
    assert_eq!(nothing_before["choices"][0]["prompt_token_ids"], json!([256, 1, 2, 99, 3]));
    let echoed = ask(json!({"prompt": "ab", "suffix": "c", "echo": true})).await;
    assert_eq!(echoed["choices"][0]["text"], "abx", "the text before the gap and what fills it");
    for no_gap in [json!(""), Value::Null] {
        let answer = ask(json!({"prompt": "ab", "suffix": no_gap})).await;
        assert_eq!(answer["choices"][0]["prompt_token_ids"], json!([256, 97, 98]));
    }
}

#[tokio::test]
async fn mirostat_takes_the_place_of_filters_that_the_request_has_not() {
    let cut = World::new()
        .model("m", Reply::Hash)
        .change("m", |model| (model.top_k, model.temperature) = (Some(1), Some(1.0)))
        .start()
        .await;
    let greedy = ids(&cut, json!({})).await;
    let free = ids(&cut, json!({"mirostat": 2, "mirostat_tau": 9})).await;
    assert_ne!(greedy, free, "the settings' `top_k` is not the request's");
    assert_eq!(ids(&cut, json!({"mirostat": 2, "mirostat_tau": 9, "top_k": 1})).await, greedy);
    for version in [1, 2] {
        assert_eq!(ids(&cut, json!({"mirostat": version, "temperature": 0})).await, greedy);
        let seeded = json!({"mirostat": version, "mirostat_tau": 6, "seed": 3});
        assert_eq!(ids(&cut, seeded.clone()).await, ids(&cut, seeded).await, "a state for each request");
    }
}

#[tokio::test]
async fn request_over_config_over_the_models_own_over_openais() {
    let header = || Header { sampling_temperature: Some(0.0), ..Header::default() };
    let world = || World::new().fake("m", header(), FakeConfig::default());
    let two = async |server: &Running, fields: Value| {
        let mut other = fields.clone();
        other["seed"] = 2.into();
        (ids(server, fields).await, ids(server, other).await)
    };
    let (a, b) = two(&world().start().await, json!({})).await;
    assert_eq!(a, b, "the model's own temperature is 0");
    let warm = world().change("m", |model| model.temperature = Some(1.5)).start().await;
    let (a, b) = two(&warm, json!({})).await;
    assert_ne!(a, b, "the config says 1.5");
    let (a, b) = two(&warm, json!({"temperature": 0})).await;
    assert_eq!(a, b, "the request says 0");
    let short = world().change("m", |model| model.max_tokens = Some(5)).start().await;
    assert_eq!(ids(&short, json!({"max_tokens": null})).await.0.len(), 5);
    assert_eq!(ids(&short, json!({"max_tokens": 6})).await.0.len(), 6);
    let plain = noisy().await;
    assert_eq!(ids(&plain, json!({})).await, ids(&plain, json!({"temperature": 1, "top_p": 1})).await);
}

/// The text that the model is given.
async fn prompt_text(server: &Running, body: Value) -> String {
    let mut body = body;
    body["model"] = "m".into();
    body["return_token_ids"] = true.into();
    body["max_tokens"] = 1.into();
    let answer = server.chat(&body.to_string()).await.json();
    let special = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>"];
    let ids = answer["prompt_token_ids"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let texts = ids.iter().map(|id| match id.as_u64().expect("an id") as usize {
        byte @ 0..256 => char::from(byte as u8).to_string(),
        id => special[id - 256].to_owned(),
    });
    texts.collect()
}

#[tokio::test]
async fn what_the_template_gets() {
    let server = World::replying("x").start().await;
    let user = json!([{"role": "user", "content": "Hi"}]);
    let plain = "<bos><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt_text(&server, json!({"messages": user})).await, plain, "one <bos>: the template's");
    assert_eq!(prompt_text(&server, json!({"messages": user, "enable_thinking": false})).await, plain);
    let thinking = format!("{plain}<think>");
    assert_eq!(prompt_text(&server, json!({"messages": user, "enable_thinking": true})).await, thinking);
    let kwargs = json!({"messages": user, "chat_template_kwargs": {"enable_thinking": true}});
    assert_eq!(prompt_text(&server, kwargs).await, thinking);
    let open = json!({"messages": user, "add_generation_prompt": false});
    assert_eq!(prompt_text(&server, open).await, "<bos><|im_start|>user\nHi<|im_end|>\n");
    let continued =
        json!({"messages": [{"role": "assistant", "content": "The answer"}], "continue_final_message": true});
    assert_eq!(prompt_text(&server, continued).await, "<bos><|im_start|>assistant\nThe answer");
    let mixed = json!({"messages": [
        {"role": "developer", "content": "D"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "me"},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "T"},
    ]});
    assert_eq!(
        prompt_text(&server, mixed).await,
        "<bos><|im_start|>system\nD<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n\
         <tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call><|im_end|>\n<|im_start|>user\n\
         <tool_response>\nT\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    );
    // Special tokens in a text are those tokens, as everywhere.
    let special = json!({"messages": [{"role": "user", "content": "<eos>"}]});
    assert!(prompt_text(&server, special).await.contains("user\n<eos><|im_end|>"));
}

#[tokio::test]
async fn accepted_without_effect() {
    let server = World::replying("x").start().await;
    let body = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi", "name": null, "refusal": null}],
        "user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "service_tier": "auto", "store": false,
        "prompt_cache_key": "k", "cache_prompt": true, "parallel_tool_calls": true, "tools": [], "tool_choice": "none",
        "response_format": {"type": "text"}, "modalities": ["text"], "logit_bias": null, "stop": null, "n": null,
        "reasoning_effort": "none", "verbosity": "medium", "audio": null, "top_logprobs": 0,
    });
    let answer = server.chat(&body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.headers.contains_key("x-duet-ignored"), "{:?}", answer.headers);
}
