//! Whether a request is addressed to this server, and comes from a page that may call it.
//!
//! A page on the web can make a browser send requests to 127.0.0.1, under a name of its own that resolves to it (DNS
//! rebinding). Such a request carries a foreign `Host` or `Origin`; programs send no `Origin` at all.

use std::net::{IpAddr, SocketAddr};

use axum::http::Uri;
use axum::http::header::{HOST, HeaderMap, ORIGIN};

use crate::config::HttpConfig;
use crate::error::{ApiError, ErrorCode};

/// The checks, as configured.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Names besides loopback ones; `None`: any name, since a server on the network has more names than it knows.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl Guard {
    pub(crate) fn new(http: &HttpConfig, bound: Option<SocketAddr>) -> Self {
        let on_loopback = bound.is_none_or(|bound| bound.ip().is_loopback());
        let hosts = (on_loopback || !http.allowed_hosts.is_empty()).then(|| http.allowed_hosts.clone());
        Self { hosts, origins: http.allowed_origins.clone() }
    }

    /// # Errors
    /// 403 `host_not_allowed` or `origin_not_allowed`.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        // Absolute request lines name the host themselves.
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => match headers.get(HOST) {
                Some(value) => Some(value.to_str().map_err(|_| host_refused())?),
                None => None, // HTTP/1.0: no browser
            },
        };
        if let (Some(host), Some(allowed)) = (host, &self.hosts)
            && !is_loopback_name(host_name(host))
            && !listed(allowed, host)
        {
            return Err(host_refused());
        }
        match headers.get(ORIGIN) {
            None => Ok(()),
            Some(origin) => match origin.to_str() {
                Ok(origin) if self.origin_may(origin, host) => Ok(()),
                _ => Err(ApiError::new(
                    ErrorCode::OriginNotAllowed,
                    "pages of this origin may not call the server; `server.allowed_origins` lists those that may",
                )),
            },
        }
    }

    /// The server's own pages, pages of this machine if the server is only for this machine, and those listed.
    fn origin_may(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_lowercase();
        if self.origins.contains(&origin) {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        if !matches!(scheme, "http" | "https") {
            return false;
        }
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || (self.hosts.is_some() && is_loopback_name(host_name(authority)))
    }
}

fn host_refused() -> ApiError {
    let message = "the server does not answer to this `Host`; `server.allowed_hosts` lists further names";
    ApiError::new(ErrorCode::HostNotAllowed, message)
}

/// Whether the list has the host, with its port or without.
fn listed(allowed: &[String], host: &str) -> bool {
    let host = host.to_lowercase();
    allowed.iter().any(|name| *name == host || *name == host_name(&host))
}

/// Without the port: `localhost:80` → `localhost`, `[::1]:80` → `::1`.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RawConfig, ServerConfig};

    fn guard(bound: &str, hosts: &[&str], origins: &[&str]) -> Guard {
        let mut raw = RawConfig::default();
        raw.server.allowed_hosts = Some(hosts.iter().map(|&host| host.to_owned()).collect());
        raw.server.allowed_origins = Some(origins.iter().map(|&origin| origin.to_owned()).collect());
        Guard::new(&ServerConfig::from_raw(&raw).unwrap().http, Some(bound.parse().unwrap()))
    }

    #[track_caller]
    fn check(guard: &Guard, host: Option<&str>, origin: Option<&str>, expected: Option<ErrorCode>) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let code = guard.check(&Uri::from_static("/v1/models"), &headers).err().map(|error| error.code);
        assert_eq!(code, expected, "{host:?} {origin:?}");
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        let guard = guard("127.0.0.1:8080", &["duet.lan"], &[]);
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST.",
            "127.0.0.1:8080",
            "127.8.1.2",
            "[::1]:8080",
            "a.localhost",
            "duet.lan",
            "DUET.lan:1",
        ] {
            check(&guard, Some(host), None, None);
        }
        check(&guard, None, None, None);
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "",
            "@localhost.evil",
            "xduet.lan",
        ] {
            check(&guard, Some(host), None, Some(ErrorCode::HostNotAllowed));
        }
    }

    #[test]
    fn pages_from_elsewhere_may_not_call() {
        let guard = guard("127.0.0.1:8080", &[], &["https://chat.example", "app://obsidian.md"]);
        for origin in
            ["http://localhost:3000", "http://127.0.0.1", "https://chat.example", "APP://obsidian.md"]
        {
            check(&guard, Some("localhost"), Some(origin), None);
        }
        for origin in [
            "null",
            "",
            "https://evil.example",
            "https://chat.example.evil",
            "http://localhost.evil.example",
            "file://",
            "ftp://localhost",
        ] {
            check(&guard, Some("localhost"), Some(origin), Some(ErrorCode::OriginNotAllowed));
        }
    }

    #[test]
    fn on_the_network_any_name_is_answered_unless_names_are_listed() {
        let open = guard("0.0.0.0:80", &[], &[]);
        check(&open, Some("any.example"), None, None);
        check(&open, Some("any.example"), Some("http://any.example"), None);
        check(&open, Some("any.example"), Some("http://localhost"), Some(ErrorCode::OriginNotAllowed));
        check(&open, Some("any.example"), Some("http://other.example"), Some(ErrorCode::OriginNotAllowed));
        let named = guard("0.0.0.0:80", &["any.example"], &[]);
        check(&named, Some("any.example"), None, None);
        check(&named, Some("other.example"), None, Some(ErrorCode::HostNotAllowed));
    }

    #[test]
    fn an_absolute_request_line_names_the_host() {
        let guard = guard("127.0.0.1:8080", &[], &[]);
        let uri = Uri::from_static("http://evil.example/v1/models");
        assert_eq!(guard.check(&uri, &HeaderMap::new()).unwrap_err().code, ErrorCode::HostNotAllowed);
    }
}
