//! A list of keys: one per line, each with its scopes.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::Scope;

/// Shorter ones could be found by trying.
const LEAST_KEY_BYTES: usize = 12;
const SCOPES: [(&str, Scope); 3] =
    [("infer", Scope::Infer), ("admin", Scope::Admin), ("metrics", Scope::Metrics)];

pub(super) fn name(scope: Scope) -> &'static str {
    SCOPES.iter().find(|entry| entry.1 == scope).map_or("", |entry| entry.0)
}

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

impl Scopes {
    pub(crate) fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Key {
    sha256: [u8; 32],
    scopes: Scopes,
}

/// The keys of a server, as hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// One key per line (or between semicolons), followed by its scopes where it is for more or other than `infer`:
    /// `KEY infer,metrics`. `sha256:HEX` stands for the key with that hash. Empty lines and those that begin with `#` count
    /// for nothing.
    ///
    /// # Errors
    /// What is wrong in which line; never the line itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            for entry in line.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
                keys.push(key(entry).map_err(|message| format!("line {}: {message}", index + 1))?);
            }
        }
        if keys.is_empty() { Err("there is no key".to_owned()) } else { Ok(Self(keys)) }
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// What a key is good for; `None` if it is not there. All are compared, each in constant time.
    pub(crate) fn scopes(&self, given: &[u8]) -> Option<Scopes> {
        let sha256: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.sha256.ct_eq(&sha256)) {
                let before = found.map_or(0, |Scopes(bits)| bits);
                found = Some(Scopes(before | key.scopes.0));
            }
        }
        found
    }
}

fn key(entry: &str) -> Result<Key, String> {
    let (text, scopes) = entry.split_once(char::is_whitespace).unwrap_or((entry, "infer"));
    let sha256 = match text.strip_prefix("sha256:") {
        Some(hex) => unhex(hex).ok_or("`sha256:` is to be followed by 64 hexadecimal digits")?,
        None if text.len() < LEAST_KEY_BYTES => {
            return Err(format!("a key must have at least {LEAST_KEY_BYTES} characters"));
        }
        None if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            return Err("a key must be of visible ASCII characters".to_owned());
        }
        None => Sha256::digest(text.as_bytes()).into(),
    };
    let mut bits = 0;
    for word in scopes.split(',').map(str::trim) {
        let scope = SCOPES.iter().find(|entry| entry.0 == word);
        let scope = scope.ok_or("a scope must be \"infer\", \"admin\" or \"metrics\"")?.1;
        bits |= 1 << scope as u8;
    }
    Ok(Key { sha256, scopes: Scopes(bits) })
}

fn unhex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_with_scopes() {
        // The hash of "hashed-elsewhere".
        let hash: String =
            Sha256::digest(b"hashed-elsewhere").iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            "# mine\n\nplain-key-of-mine\r\n  two-scopes-key\tinfer, metrics\nsha256:{hash} admin\none-more-key-12;and-another-12 metrics"
        );
        let keys = Keys::parse(&text).unwrap();
        let scopes = |key: &str| {
            let scopes = keys.scopes(key.as_bytes())?;
            Some([Scope::Infer, Scope::Admin, Scope::Metrics].map(|scope| scopes.contains(scope)))
        };
        assert_eq!(scopes("plain-key-of-mine"), Some([true, false, false]));
        assert_eq!(scopes("two-scopes-key"), Some([true, false, true]));
        assert_eq!(scopes("hashed-elsewhere"), Some([false, true, false]));
        assert_eq!(scopes("one-more-key-12"), Some([true, false, false]));
        assert_eq!(scopes("and-another-12"), Some([false, false, true]));
        assert_eq!(scopes(&hash), None);
        assert_eq!(scopes(""), None);
        assert_eq!(format!("{keys:?}"), "5 keys");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_key() {
        for (text, expected) in [
            ("", "there is no key"),
            ("# only a comment", "there is no key"),
            (" ; ;", "there is no key"),
            ("short-key", "line 1: a key must have"),
            ("secret-long-enough\nsecret-long-enough nothing", "line 2: a scope must be"),
            ("secret-long-enough ,", "line 1: a scope must be"),
            ("secret-löng-enough", "line 1: a key must be of visible"),
            ("sha256:secret", "line 1: `sha256:`"),
            (&format!("sha256:{}", "g".repeat(64)), "line 1: `sha256:`"),
            (&format!("sha256:{}", "ä".repeat(32)), "line 1: `sha256:`"),
        ] {
            let error = Keys::parse(text).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("secret"), "{text:?}: {error}");
        }
    }
}
