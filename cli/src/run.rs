//! `duet run`: one answer in the terminal.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use duet_core::sampling::SamplingParams;
use duet_core::text::{EncodeOptions, TemplateInput};
use duet_core::{Finished, GenerateRequest, GenerationEvent, TextAssets};

use crate::model::{LoadArguments, Ready, load};

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// A .gguf file or an MLX directory
    model: PathBuf,
    /// The prompt [default: standard input]
    prompt: Option<String>,
    #[command(flatten)]
    load: LoadArguments,
    /// System message
    #[arg(long)]
    system: Option<String>,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long, conflicts_with = "system")]
    raw: bool,
    /// Most tokens of the answer [default: what the context leaves]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 takes the most probable token each time [default: the model's, else 1]
    #[arg(long)]
    temperature: Option<f32>,
    /// Seed of the draws: the same one repeats the answer [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Print counts and speeds to standard error
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<u8> {
    let prompt = match &arguments.prompt {
        Some(prompt) => prompt.clone(),
        None => read_prompt()?,
    };
    let ready = load(&crate::compose::deciding_registry(), &arguments.model, &arguments.load).await?;
    let ids = tokenize(&ready.text, &prompt, &arguments)?;
    let mut request = GenerateRequest::new("run", ids, arguments.max_tokens.unwrap_or(u32::MAX));
    request.continues_prompt = arguments.raw;
    request.sampling = sampling(&ready, &arguments);
    let mut stream = ready.model.generate(request)?;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            _ = tokio::signal::ctrl_c() => return Ok(130),
        };
        match event.context("the answer broke off")?? {
            GenerationEvent::Token(token) => print(&token.text)?,
            GenerationEvent::Finished(finished) => {
                print(&format!("{}\n", finished.text))?;
                if arguments.verbose {
                    crate::say(&summary(&ready, &finished));
                }
                break;
            }
        }
    }
    ready.model.unload().await;
    Ok(0)
}

fn read_prompt() -> anyhow::Result<String> {
    anyhow::ensure!(
        !std::io::stdin().is_terminal(),
        "no prompt: give one as the second argument or on standard input"
    );
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input is not text")?;
    Ok(text)
}

fn tokenize(text: &TextAssets, prompt: &str, arguments: &RunArguments) -> anyhow::Result<Vec<u32>> {
    let tokenizer = &text.tokenizer;
    if arguments.raw {
        return Ok(tokenizer.encode(prompt, EncodeOptions { add_special: true, parse_special: false })?);
    }
    let template = text.template.as_ref().map_err(|why| anyhow::anyhow!("{why}; --raw does without"))?;
    let mut messages = Vec::new();
    if let Some(system) = &arguments.system {
        messages.push(serde_json::json!({"role": "system", "content": system}));
    }
    messages.push(serde_json::json!({"role": "user", "content": prompt}));
    let rendered = template.render(&TemplateInput {
        messages: &serde_json::Value::Array(messages),
        tools: None,
        add_generation_prompt: true,
        continue_final_message: false,
        kwargs: &serde_json::Map::new(),
    })?;
    Ok(tokenizer.encode(&rendered, EncodeOptions { add_special: false, parse_special: true })?)
}

/// Flags, then what the model's author recommends, then plain sampling.
fn sampling(ready: &Ready, arguments: &RunArguments) -> SamplingParams {
    let plain = SamplingParams::default();
    let own = &ready.info.generation_defaults;
    SamplingParams {
        temperature: arguments.temperature.or(own.temperature).unwrap_or(plain.temperature),
        top_p: own.top_p.unwrap_or(plain.top_p),
        top_k: own.top_k.unwrap_or(plain.top_k),
        min_p: own.min_p.unwrap_or(plain.min_p),
        repetition_penalty: own.repetition_penalty.unwrap_or(plain.repetition_penalty),
        seed: arguments.seed.unwrap_or_else(random_seed),
        ..plain
    }
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}

fn summary(ready: &Ready, finished: &Finished) -> String {
    let info = ready.model.info();
    let (usage, timings) = (finished.usage, finished.timings);
    let prefill = f64::from(usage.n_prompt_tokens) / timings.prefill.as_secs_f64().max(1e-9);
    let decode =
        f64::from(usage.n_completion_tokens.saturating_sub(1)) / timings.decode.as_secs_f64().max(1e-9);
    format!(
        "{} on {} ({}), weights {}; loaded in {:.2} s; prompt {} tokens, {prefill:.1} tok/s; answer {} tokens, {decode:.1} tok/s",
        info.backend,
        info.device,
        ready.reason,
        info.weights,
        info.load_time.as_secs_f64(),
        usage.n_prompt_tokens,
        usage.n_completion_tokens,
    )
}

/// Text to standard output, at once.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
