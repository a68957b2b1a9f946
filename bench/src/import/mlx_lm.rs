//! What `mlx_lm.benchmark` prints: a line of settings and a line per trial.
//!
//! Its `generation_tps` divides N tokens by the time from the first to the last, in which N − 1 were made: 3.2 % too high
//! at 32 tokens, 0.8 % at 128, 0.2 % at 512.

use super::{ImportError, Imported, ImportedFigure, Source};

const BROKEN: Source = Source::MlxLm;

pub(super) fn from_output(text: &str) -> Result<Imported, ImportError> {
    let settings = text.lines().find_map(|line| line.trim().strip_prefix("Timing with "));
    let settings = settings.ok_or_else(|| ImportError::broken(BROKEN, "no line `Timing with …`"))?;
    let settings = settings.trim_end_matches('.');
    let count = |name: &str| {
        let value = value_of(settings, name)
            .ok_or_else(|| ImportError::broken(BROKEN, format!("`Timing with` has no {name}")))?;
        value.parse::<u64>().map_err(|_| ImportError::broken(BROKEN, format!("{name} is `{value}`")))
    };
    let (n_prompt, n_decode) = (count("prompt_tokens")?, count("generation_tokens")?);
    let n_batch = if settings.contains("batch_size") { count("batch_size")? } else { 1 };
    let (mut prompt, mut generation, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((head, values)) = line.trim().split_once(':') else { continue };
        if head.starts_with("Trial ") {
            prompt.push(number(values, "prompt_tps")?);
            generation.push(number(values, "generation_tps")?);
            peak.push(number(values, "peak_memory")?);
        }
    }
    let figures = figures(n_prompt, n_decode, n_batch, &prompt, &generation)?;
    let mut about = vec![("batch".to_owned(), n_batch.to_string())];
    if let Some(most) = peak.into_iter().reduce(f64::max) {
        about.push(("peak memory since the process began, GB".to_owned(), format!("{most:.3}")));
    }
    let biases = vec![
        "prompt_tps holds the first sample and the second step, which is queued by then".to_owned(),
        "ids are random, which experts of a mixture do not route like text".to_owned(),
    ];
    Ok(Imported { source: Source::MlxLm, about, figures, biases })
}

fn figures(
    n_prompt: u64,
    n_decode: u64,
    n_batch: u64,
    prompt: &[f64],
    generation: &[f64],
) -> Result<Vec<ImportedFigure>, ImportError> {
    if prompt.is_empty() {
        return Err(ImportError::Empty { source_name: BROKEN });
    }
    let of = |name, samples| {
        ImportedFigure::of(name, "tok/s", samples)
            .ok_or_else(|| ImportError::broken(BROKEN, format!("{name}: a rate that is not positive")))
    };
    let reported = |rates: &[f64]| crate::stats::mean(rates);
    let prefill = ImportedFigure {
        n_prompt: Some(n_prompt),
        n_decode: Some(n_decode),
        depth: format!("0 to {}", n_prompt.saturating_sub(1)),
        as_reported: reported(prompt),
        ..of("prefill_rate", prompt.to_vec())?
    };
    let (factor, correction) = match (n_batch, n_decode) {
        (_, 0 | 1) => return Ok(vec![prefill]),
        (1, n) => {
            let factor = (n - 1) as f64 / n as f64;
            (factor, Some(format!("times {}/{n}: {n} tokens were divided by the time of {}", n - 1, n - 1)))
        }
        // The batched statistics divide otherwise; nothing is known that would put them right.
        _ => (1.0, None),
    };
    let decode = ImportedFigure {
        n_prompt: Some(n_prompt),
        n_decode: Some(n_decode),
        depth: format!("{n_prompt} to {}, with sampling", n_prompt.saturating_add(n_decode)),
        as_reported: reported(generation),
        correction,
        ..of("decode_rate", generation.iter().map(|rate| rate * factor).collect())?
    };
    Ok(vec![prefill, decode])
}

/// `name=value` in a list separated by commas.
fn value_of<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(',').find_map(|item| item.trim().strip_prefix(name)?.strip_prefix('='))
}

fn number(list: &str, name: &str) -> Result<f64, ImportError> {
    let value =
        value_of(list, name).ok_or_else(|| ImportError::broken(BROKEN, format!("a trial without {name}")))?;
    value.trim().parse().map_err(|_| ImportError::broken(BROKEN, format!("{name} is `{value}`")))
}
