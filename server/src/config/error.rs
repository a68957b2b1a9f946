//! What is wrong with a setting, in one line: where it was written, its key, the matter, a near match.

use figment::error::Kind;

use crate::near::nearest;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written: a file, "environment", "command line"; none if it is missing everywhere.
    pub origin: Option<String>,
    /// The key, dotted; empty for a file that cannot be read at all.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// A name that may have been meant.
    pub near: Option<String>,
}

impl std::error::Error for ConfigError {}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.near {
            Some(near) => write!(f, "; did you mean `{near}`?"),
            None => Ok(()),
        }
    }
}

impl ConfigError {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: None, key: key.into(), message: message.into(), near: None }
    }
}

impl From<figment::Error> for ConfigError {
    /// The first of figment's errors; the others come up when it is mended.
    fn from(error: figment::Error) -> Self {
        let origin = error.metadata.as_ref().map(origin_of);
        let mut key = error.path.join(".");
        let mut near = None;
        let message = match &error.kind {
            Kind::UnknownField(field, known) => {
                // figment's path ends in the table; with the field it is the key as the user wrote it.
                if error.path.last() != Some(field) {
                    key = if key.is_empty() { field.clone() } else { format!("{key}.{field}") };
                }
                near = nearest(field, known.iter().copied()).map(str::to_owned);
                format!("unknown key; known here: {}", known.join(", "))
            }
            Kind::InvalidType(actual, expected) => format!("expected {expected}, found {actual}"),
            Kind::InvalidValue(actual, expected) => format!("expected {expected}, found {actual}"),
            Kind::Message(text) => one_line(text),
            other => one_line(&other.to_string()),
        };
        Self { origin, key, message, near }
    }
}

/// Where figment found something, for people.
pub(super) fn origin_of(metadata: &figment::Metadata) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => path.display().to_string(),
        None => metadata.name.to_string(),
    }
}

/// A parser's picture of the place in one line: without the drawn lines (`  |`, `3 | text`).
fn one_line(text: &str) -> String {
    let drawn = |line: &str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|')
    };
    let kept: Vec<&str> =
        text.lines().filter(|line| !drawn(line)).map(str::trim).filter(|line| !line.is_empty()).collect();
    kept.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_error_becomes_one_line() {
        let drawn =
            "TOML parse error at line 3, column 4\n  |\n3 | a = \n  |    ^\nstring values must be quoted\n";
        assert_eq!(one_line(drawn), "TOML parse error at line 3, column 4: string values must be quoted");
    }
}
