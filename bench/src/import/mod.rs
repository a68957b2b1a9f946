//! Results of other benchmarks, with what they mean by their figures put right or said.
//!
//! An import enters no verdict: it was not interleaved with anything, its ids are others, and what was equal about the
//! work is not known. It is shown beside a report, in the report's own definitions where those can be computed from what
//! was kept, with every correction and every remaining bias in words.

mod guidellm;
mod llama_bench;
mod mlx_lm;

use std::fmt::Write;

use serde::Serialize;

use crate::stats::median;

/// Where results are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `llama-bench -o json` or `-o jsonl`.
    LlamaBench,
    /// What `mlx_lm.benchmark` prints.
    MlxLm,
    /// The JSON report of guidellm.
    Guidellm,
}

impl Source {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlamaBench => "llama-bench",
            Self::MlxLm => "mlx_lm.benchmark",
            Self::Guidellm => "guidellm",
        }
    }
}

/// One figure of one configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportedFigure {
    /// The figure, in this bench's definitions: "prefill_rate", "decode_rate", "effective_rate", "tpot", "ttft_http".
    pub figure: &'static str,
    /// "tok/s" or "ms".
    pub unit: &'static str,
    /// Prompt tokens; absent where the requests differ.
    pub n_prompt: Option<u64>,
    /// Decoded tokens; absent where the requests differ.
    pub n_decode: Option<u64>,
    /// Depths that it was measured at, in words.
    pub depth: String,
    /// The source's own figure, where it has one, in the same unit.
    pub as_reported: Option<f64>,
    /// The median over the samples, corrected.
    pub value: f64,
    /// The samples, corrected, in the same unit.
    pub samples: Vec<f64>,
    /// What was corrected, if anything.
    pub correction: Option<String>,
}

/// Results of another benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    /// Where they are from.
    pub source: Source,
    /// What was measured, as far as the source says: names and values.
    pub about: Vec<(String, String)>,
    /// The figures.
    pub figures: Vec<ImportedFigure>,
    /// What no correction takes away, one sentence each.
    pub biases: Vec<String>,
}

/// Why results cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Nothing here knows the format.
    #[error("neither llama-bench JSON, nor the output of mlx_lm.benchmark, nor a guidellm report")]
    Unknown,
    /// The format is known, and broken.
    #[error("the {} result is broken: {message}", source_name.name())]
    Broken {
        /// Which format.
        source_name: Source,
        /// How.
        message: String,
    },
    /// There is nothing in it to import.
    #[error("the {} result holds no figure", source_name.name())]
    Empty {
        /// Which format.
        source_name: Source,
    },
}

impl ImportError {
    fn broken(source_name: Source, message: impl std::fmt::Display) -> Self {
        Self::Broken { source_name, message: message.to_string() }
    }
}

/// Imports results, told apart by their form.
///
/// # Errors
/// [`ImportError`].
pub fn import(text: &str) -> Result<Imported, ImportError> {
    let start = text.trim_start();
    let imported = match start.as_bytes().first() {
        Some(b'[') => llama_bench::from_array(start)?,
        Some(b'{') if looks_like_lines(start) => llama_bench::from_lines(start)?,
        Some(b'{') => guidellm::from_report(start)?,
        _ if text.contains("Timing with prompt_tokens=") => mlx_lm::from_output(text)?,
        _ => return Err(ImportError::Unknown),
    };
    match imported.figures.is_empty() {
        true => Err(ImportError::Empty { source_name: imported.source }),
        false => Ok(imported),
    }
}

/// One object per line with llama-bench's samples.
fn looks_like_lines(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.trim_end().ends_with('}') && line.contains("\"samples_ns\""))
}

impl ImportedFigure {
    /// With the median of `samples` as value; `None` without samples, or if one is no positive number.
    fn of(figure: &'static str, unit: &'static str, samples: Vec<f64>) -> Option<Self> {
        if !samples.iter().all(|sample| *sample > 0.0 && sample.is_finite()) {
            return None;
        }
        let value = median(&samples)?;
        Some(Self {
            figure,
            unit,
            n_prompt: None,
            n_decode: None,
            depth: "not stated".to_owned(),
            as_reported: None,
            value,
            samples,
            correction: None,
        })
    }
}

impl Imported {
    /// The import for people. No colours, no trailing line break.
    pub fn to_text(&self) -> String {
        let mut text = format!("from {}; enters no verdict\n", self.source.name());
        for (name, value) in &self.about {
            let _ = writeln!(text, "{name}: {value}"); // writing to a String does not fail
        }
        for figure in &self.figures {
            let n = crate::report::words::digits(figure.value);
            let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let _ = write!(
                text,
                "{} {:.n$} {} (median of {}; {} prompt + {} decoded; depth {})",
                figure.figure,
                figure.value,
                figure.unit,
                figure.samples.len(),
                count(figure.n_prompt),
                count(figure.n_decode),
                figure.depth,
            );
            if let Some(reported) = figure.as_reported {
                let _ = write!(text, ", reported as {reported:.n$}");
            }
            let _ = match &figure.correction {
                Some(correction) => writeln!(text, "; corrected: {correction}"),
                None => writeln!(text),
            };
        }
        for bias in &self.biases {
            let _ = writeln!(text, "bias: {bias}");
        }
        text.truncate(text.trim_end().len());
        text
    }
}
