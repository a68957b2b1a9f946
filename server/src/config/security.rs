//! Who may connect and call, and for how long without doing anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::validate::{at_least, seconds};
use super::{ConfigError, RawServer};
use crate::auth::Keys;

/// Holds keys, one per line or between semicolons, besides those of the file.
pub(super) const KEYS_VARIABLE: &str = "DUET_API_KEYS";

const DEFAULT_MAX_CONNECTIONS: u64 = 4096;

/// Checked settings of the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct SecurityConfig {
    /// Who may call; `None`: everybody who reaches the port, which has to be on loopback then.
    pub keys: Option<Arc<Keys>>,
    /// Certificate chain and key, as PEM files; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How long a client may take for a request's head, waiting for the next request included.
    pub header_timeout: Duration,
    /// How long a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// Connections at once; more wait in the system's queue.
    pub max_connections: usize,
}

/// Files of a certificate. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl SecurityConfig {
    pub(super) fn check(raw: &RawServer) -> Result<Self, ConfigError> {
        let max_connections =
            at_least("server.max_connections", raw.max_connections, 1, DEFAULT_MAX_CONNECTIONS)?;
        Ok(Self {
            keys: keys(raw)?,
            tls: tls(raw)?,
            header_timeout: seconds("server.header_timeout_s", raw.header_timeout_s)?
                .unwrap_or(Duration::from_secs(30)),
            write_timeout: seconds("server.write_timeout_s", raw.write_timeout_s)?
                .unwrap_or(Duration::from_secs(60)),
            max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
        })
    }

    /// Adds the keys of a text in the format of a keys file.
    pub(super) fn add_keys(&mut self, text: &str) -> Result<(), ConfigError> {
        let more = Keys::parse(text).map_err(|message| ConfigError {
            origin: Some("environment".to_owned()),
            ..ConfigError::new(KEYS_VARIABLE, message)
        })?;
        self.keys = Some(Arc::new(match self.keys.take() {
            None => more,
            Some(keys) => Arc::unwrap_or_clone(keys).and(more),
        }));
        Ok(())
    }
}

fn keys(raw: &RawServer) -> Result<Option<Arc<Keys>>, ConfigError> {
    let Some(file) = &raw.api_keys_file else { return Ok(None) };
    let path = file.relative();
    let wrong =
        |message: String| ConfigError::new("server.api_keys_file", format!("{}: {message}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    Keys::parse(&text).map(|keys| Some(Arc::new(keys))).map_err(wrong)
}

fn tls(raw: &RawServer) -> Result<Option<TlsFiles>, ConfigError> {
    match (&raw.tls_cert, &raw.tls_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { certificate: certificate.relative(), key: key.relative() }))
        }
        (Some(_), None) => {
            Err(ConfigError::new("server.tls_cert", "has no effect without a key in server.tls_key"))
        }
        (None, Some(_)) => {
            Err(ConfigError::new("server.tls_key", "has no effect without a certificate in server.tls_cert"))
        }
    }
}
