//! Every parameter of every endpoint, declared once.
//!
//! From [`all`] come the check of types and ranges before a body is read, the OpenAPI document, `docs/API.md` and the
//! test that sends each parameter to both engines. A new parameter is a row here and a `take` where it is read; reading
//! one that has no row panics in debug builds.

mod check;
mod docs;
mod endpoints;
mod foreign;
mod kind;
pub mod probe;
mod refused;
mod structure;
mod table;
mod tools;

use serde_json::Value;

pub(crate) use check::check;
pub use docs::markdown;
pub use endpoints::{Endpoint, Endpoints};
pub use kind::Kind;
pub use probe::Probe;

/// What a parameter is about; the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// What is asked: model, messages, prompt, input.
    Input,
    /// How long the answer may be and what ends it.
    Length,
    /// How tokens are drawn.
    Sampling,
    /// What is made less probable, or more.
    Penalties,
    /// What the answer shows.
    Output,
    /// What the answer has to look like.
    Structure,
    /// What the chat template is told.
    Template,
    /// How the server goes about it.
    Serving,
    /// Accepted, and without effect by its definition.
    NoEffect,
    /// Documented by some API, refused here by name.
    Refused,
}

/// What happens to a parameter that was given.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// It has its effect, or the answer is a 400 that names it and the engine that cannot.
    Honoured,
    /// Nothing, by its definition.
    NoEffect,
    /// 400 `unsupported_parameter`, unless the value asks for nothing.
    Refused {
        /// Whether a value asks for nothing.
        asks_nothing: fn(&Value) -> bool,
        /// The rest of the sentence "it is not supported by any engine of this server: …".
        why: &'static str,
    },
}

/// One parameter of one or several endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// As in the body.
    pub name: &'static str,
    /// Where it may be given.
    pub on: Endpoints,
    /// Where it is listed.
    pub group: Group,
    /// Type and range.
    pub kind: Kind,
    /// What holds without it, in words; "required" where there has to be one.
    pub default: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What happens to it.
    pub rule: Rule,
    /// How its effect can be seen.
    pub probe: Probe,
}

impl Parameter {
    const fn new(
        name: &'static str,
        on: Endpoints,
        group: Group,
        kind: Kind,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        let rule = if matches!(group, Group::NoEffect) { Rule::NoEffect } else { Rule::Honoured };
        Self { name, on, group, kind, default, about, rule, probe: Probe::None }
    }

    /// It is seen in the answer to a request with `beside` besides, compared with the same request without it.
    const fn seen(mut self, beside: &'static str, value: &'static str) -> Self {
        self.probe = Probe::Answer { beside, value };
        self
    }

    /// One answer does not show it; a test of this name does.
    const fn tested(mut self, test: &'static str) -> Self {
        self.probe = Probe::Test(test);
        self
    }

    /// Whether a request has to have it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.default == REQUIRED
    }
}

const REQUIRED: &str = "required";

/// All rows, by group, within one group in the order in which they are best read.
pub fn all() -> impl Iterator<Item = &'static Parameter> {
    table::ROWS.iter().copied().flatten().chain(refused::rows())
}

/// The rows of an endpoint.
pub fn of(endpoint: Endpoint) -> impl Iterator<Item = &'static Parameter> {
    all().filter(move |row| row.on.has(endpoint))
}

/// The row of a name at an endpoint.
#[must_use]
pub fn find(endpoint: Endpoint, name: &str) -> Option<&'static Parameter> {
    of(endpoint).find(|row| row.name == name)
}

#[cfg(test)]
mod tests;
