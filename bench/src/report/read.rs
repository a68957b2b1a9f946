//! Reports from files.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Report;
use crate::sweep::Sweep;

/// Why a file is not a report that this version reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is JSON of another kind, or of another version.
    #[error("{} is {found}, and this duet reads {wanted}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What its `schema` says.
        found: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// It is broken.
    #[error("{} is not a report", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, and how.
        #[source]
        source: serde_json::Error,
    },
}

impl Report {
    /// The report in a file that [`Report::to_json`] wrote.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        of_schema(path, Self::SCHEMA)
    }
}

impl Sweep {
    /// The sweep in a file that [`Sweep::to_json`] wrote.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        of_schema(path, Self::SCHEMA)
    }
}

/// What the file holds, if its `schema` is this one.
fn of_schema<T: DeserializeOwned>(path: &Path, wanted: &'static str) -> Result<T, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<String>,
    }
    let text =
        std::fs::read_to_string(path).map_err(|source| ReadError::File { path: path.to_owned(), source })?;
    let broken = |source| ReadError::Json { path: path.to_owned(), source };
    let head: Head = serde_json::from_str(&text).map_err(broken)?;
    let found = match head.schema.as_deref() {
        Some(schema) if schema == wanted => return serde_json::from_str(&text).map_err(broken),
        Some(other) => format!("`{other}`"),
        None => "JSON without a schema".to_owned(),
    };
    Err(ReadError::Schema { path: path.to_owned(), found, wanted })
}
