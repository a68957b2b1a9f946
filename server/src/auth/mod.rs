//! Who may call: keys with scopes, held as hashes.
//!
//! Keys are long random texts, so that a plain SHA-256 hides them; a slow hash would only slow requests down. Neither a
//! key nor its hash is ever written to the log.

mod keys;

pub use keys::Keys;

use std::fmt;

use sha2::{Digest, Sha256};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::api::Scope;
use crate::error::{ApiError, ErrorCode};

/// # Errors
/// 401 `invalid_api_key` without a key or with an unknown one, 403 `key_scope` for a known one that is not for this.
pub(crate) fn check(keys: &Keys, headers: &HeaderMap, scope: Scope) -> Result<(), ApiError> {
    let Some(given) = given(headers) else {
        let message = "an API key is needed: `Authorization: Bearer KEY` or `x-api-key: KEY`";
        return Err(ApiError::new(ErrorCode::InvalidApiKey, message));
    };
    match keys.scopes(given) {
        None => Err(ApiError::new(ErrorCode::InvalidApiKey, "this API key is not known")),
        Some(scopes) if scopes.contains(scope) => Ok(()),
        Some(_) => {
            let message = format!("this API key has not the scope `{}`", keys::name(scope));
            Err(ApiError::new(ErrorCode::KeyScope, message))
        }
    }
}

/// Whose request it is: of whoever has the same key. Without keys everybody is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(Option<[u8; 32]>);

impl Owner {
    /// Where there are no keys.
    #[cfg(test)]
    pub(crate) const EVERYBODY: Self = Self(None);

    /// Of a request that has passed [`check`].
    pub(crate) fn of(keys: Option<&Keys>, headers: &HeaderMap) -> Self {
        Self(keys.and_then(|_| given(headers)).map(|key| Sha256::digest(key).into()))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "the owner of a key" } else { "everybody" })
    }
}

/// The key of a request; `Authorization` goes first, as SDKs of both families may send both.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "correct-horse-battery";

    #[track_caller]
    fn check_headers(headers: &[(&'static str, &str)], scope: Scope, expected: Option<ErrorCode>) {
        let keys = Keys::parse(&format!("{KEY}\nother-key-of-somebody metrics,admin\n")).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let error = check(&keys, &map, scope).err();
        assert_eq!(error.as_ref().map(|error| error.code), expected, "{headers:?}");
        assert!(error.is_none_or(|error| !error.message.contains("horse")), "{headers:?}");
    }

    #[test]
    fn a_key_comes_in_either_header() {
        let bearer = format!("Bearer {KEY}");
        check_headers(&[("authorization", &bearer)], Scope::Infer, None);
        check_headers(&[("authorization", &bearer.to_lowercase())], Scope::Infer, None);
        check_headers(&[("authorization", &format!("BEARER  {KEY} "))], Scope::Infer, None);
        check_headers(&[("x-api-key", KEY)], Scope::Infer, None);
        check_headers(&[("x-api-key", "dummy"), ("authorization", &bearer)], Scope::Infer, None);
        check_headers(&[("x-api-key", KEY), ("authorization", "Basic YTpi")], Scope::Infer, None);
    }

    #[test]
    fn other_keys_are_refused() {
        let refused = Some(ErrorCode::InvalidApiKey);
        for headers in [
            &[][..],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", KEY)],
            &[("authorization", "Basic correct-horse-battery")],
            &[("authorization", "Bearer correct-horse-batter")],
            &[("authorization", "Bearer correct-horse-battery2")],
            &[("authorization", "Bearer Correct-horse-battery")],
            &[("x-api-key", "")],
            &[("x-api-key", "Bearer correct-horse-battery")],
            &[("authorization", "Bearer wrong"), ("x-api-key", KEY)],
            &[("cookie", "key=correct-horse-battery")],
        ] {
            check_headers(headers, Scope::Infer, refused);
        }
    }

    #[test]
    fn a_key_is_good_for_its_scopes_only() {
        check_headers(&[("x-api-key", KEY)], Scope::Metrics, Some(ErrorCode::KeyScope));
        check_headers(&[("x-api-key", KEY)], Scope::Admin, Some(ErrorCode::KeyScope));
        check_headers(&[("x-api-key", "other-key-of-somebody")], Scope::Admin, None);
        check_headers(&[("x-api-key", "other-key-of-somebody")], Scope::Metrics, None);
        check_headers(&[("x-api-key", "other-key-of-somebody")], Scope::Infer, Some(ErrorCode::KeyScope));
    }
}
