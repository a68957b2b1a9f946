//! Log-likelihoods in process, without the server: `score gguf|mlx MODEL.gguf` reads JSON lines with `context` and
//! `continuation`, and prints for each the sum of the continuation's log-probabilities and whether greedy decoding would
//! have written it. tests/conformance/lm_eval.sh compares lm-eval's over HTTP with these.
#![expect(clippy::print_stdout, reason = "an example that reports to the terminal")]

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use duet_core::model::inspect;
use duet_core::request::LogprobsRequest;
use duet_core::text::{EncodeOptions, TokenId, Tokenizer};
use duet_core::{GenerateRequest, GenerationEvent, InferenceBackend, LoadSpec, LoadedModel};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().context("usage: score gguf|mlx MODEL.gguf")?;
    let path = PathBuf::from(arguments.next().context("usage: score gguf|mlx MODEL.gguf")?);
    let backend: Arc<dyn InferenceBackend> = match engine.as_str() {
        "gguf" => Arc::new(duet_backend_gguf::GgufBackend::default()),
        "mlx" => Arc::new(duet_backend_mlx::MlxBackend::new()?),
        other => anyhow::bail!("no engine {other}"),
    };
    let tokenizer: Arc<dyn Tokenizer> = duet_backend_gguf::load_tokenizer(&path)?;
    let spec = LoadSpec::new(Arc::new(inspect(&path)?), tokenizer.clone());
    let model = backend.load(spec, Arc::new(|_| true)).await?;
    for line in std::io::stdin().lock().lines() {
        let item: serde_json::Value = serde_json::from_str(&line?)?;
        let text = |name: &str| item[name].as_str().with_context(|| format!("no {name} in {item}"));
        let (context, continuation) = (text("context")?, text("continuation")?);
        let (sum, is_greedy) = score(model.as_ref(), tokenizer.as_ref(), context, continuation).await?;
        println!("{}", serde_json::json!({"loglikelihood": sum, "is_greedy": is_greedy}));
    }
    model.unload().await;
    Ok(())
}

/// As lm-eval cuts it: the continuation is what the tokens of both have beyond those of the context.
async fn score(
    model: &dyn LoadedModel,
    tokenizer: &dyn Tokenizer,
    context: &str,
    continuation: &str,
) -> anyhow::Result<(f64, bool)> {
    let encode = |text: &str| -> anyhow::Result<Vec<TokenId>> {
        Ok(tokenizer.encode(text, EncodeOptions { add_special: false, parse_special: true })?)
    };
    let n_context = encode(context)?.len();
    let mut request = GenerateRequest::new("score", encode(&format!("{context}{continuation}"))?, 1);
    request.prompt_logprobs = Some(LogprobsRequest { n_top: 1 });
    let mut stream = model.generate(request)?;
    while let Some(event) = stream.next().await {
        let GenerationEvent::Finished(finished) = event? else { continue };
        // The prompt's first token has no score.
        let scored = finished.prompt_logprobs.iter().skip(n_context - 1);
        let is_greedy =
            scored.clone().all(|token| token.top.first().is_some_and(|best| best.1 <= token.logprob));
        return Ok((scored.map(|token| f64::from(token.logprob)).sum(), is_greedy));
    }
    anyhow::bail!("no end")
}
