//! How far the way of evaluating a prompt moves the logits of the token after it.
//!
//! `cargo run --release -p duet-backend-gguf --features llama --example next_token -- MODEL.gguf IDS [threads=2]`
//! where IDS are the prompt's token ids with commas between them. Prints the three best tokens, how far the best one is
//! ahead of the second of the first line, and the largest difference of any logit from the first line: for the prompt as
//! a whole, in steps of so many tokens, with its last token alone, and with other kernels.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::path::PathBuf;

use duet_backend_gguf::measure::{runner, spec};
use duet_backend_gguf::{GgufRunner, GgufSettings};
use duet_core::model::KvType;
use duet_core::text::Tokenizer;
use duet_core::{LoadSpec, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};

fn evaluate(runner: &mut GgufRunner, tokens: &[u32], lengths: &[usize]) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut rest = tokens;
    for length in lengths {
        let (part, after) = rest.split_at((*length).min(rest.len()));
        let position = runner.sequence_len(SeqId(0));
        let row = PlanRow { seq: SeqId(0), position, tokens: RowTokens::Host(part), want: Want::LastLogits };
        runner.submit(StepPlan { rows: &[row] }).expect("a step");
        logits = runner.collect().expect("its result").row(0).to_vec();
        rest = after;
    }
    runner.release(SeqId(0));
    logits
}

/// The ids of the largest logits, largest first.
fn best(logits: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    ids.truncate(3);
    ids
}

struct Report {
    tokenizer: std::sync::Arc<dyn Tokenizer>,
    first: Option<(usize, usize, Vec<f32>)>,
}

impl Report {
    fn line(&mut self, what: &str, logits: Vec<f32>) {
        let ids = best(&logits);
        let text =
            |id: usize| self.tokenizer.token_bytes(id as u32).unwrap_or_default().escape_ascii().to_string();
        let shown: Vec<String> = ids.iter().map(|&id| format!("{} {:.3}", text(id), logits[id])).collect();
        let (a, b, first) = self.first.get_or_insert_with(|| (ids[0], ids[1], logits.clone()));
        let moved = first.iter().zip(&logits).fold(0f32, |max, (x, y)| max.max((x - y).abs()));
        println!(
            "{what:32} {:48} margin {:+.3}, moved {moved:.3}",
            shown.join(", "),
            logits[*a] - logits[*b]
        );
    }

    fn ways(&mut self, what: &str, spec: &LoadSpec, settings: &GgufSettings, tokens: &[u32]) {
        let mut runner = runner(spec, settings).expect("the model loads");
        let n = tokens.len();
        self.line(&format!("{what}, whole"), evaluate(&mut runner, tokens, &[n]));
        self.line(&format!("{what}, last alone"), evaluate(&mut runner, tokens, &[n - 1, 1]));
        for length in [1, 2, 4, 8, 16, 32] {
            let logits = evaluate(&mut runner, tokens, &vec![length; n.div_ceil(length)]);
            self.line(&format!("{what}, steps of {length}"), logits);
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = PathBuf::from(arguments.first().expect("the path of a model"));
    let ids = arguments.get(1).expect("token ids").split(',');
    let tokens: Vec<u32> = ids.map(|id| id.trim().parse().expect("a token id")).collect();
    let threads = arguments
        .get(2)
        .and_then(|text| text.strip_prefix("threads="))
        .map_or(2, |n| n.parse().expect("a number"));
    let spec = spec(&path, 1024, threads).expect("the model");
    let mut report = Report { tokenizer: spec.tokenizer.clone(), first: None };
    let default = GgufSettings::default();
    report.ways("default", &spec, &default, &tokens);
    report.ways(
        "attention not fused",
        &spec,
        &GgufSettings { flash_attention: Some(false), ..default.clone() },
        &tokens,
    );
    report.ways("not repacked", &spec, &GgufSettings { repack: false, ..default.clone() }, &tokens);
    let f32_cache = LoadSpec { kv_type: Some(KvType::F32), ..spec };
    report.ways("f32 KV cache", &f32_cache, &default, &tokens);
}
