//! The surroundings that `transformers` gives to a chat template.

use std::borrow::Cow;
use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::error::Raise;
use super::{TemplateError, json, methods};

/// The largest source compiled; real templates are below 100 kB.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// An environment with all templates compiled. Fuel is set per rendering.
pub(super) fn build(templates: &BTreeMap<String, String>) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| TemplateError::from_compile("syntax", &error))?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", methods::string);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    for (name, source) in templates {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!("{} bytes are more than the limit of {MAX_SOURCE_BYTES}", source.len());
            return Err(TemplateError::Malformed { name: name.clone(), message, line: None });
        }
        let source = without_generation_blocks(source).into_owned();
        let added = environment.add_template_owned(name.clone(), source);
        added.map_err(|error| TemplateError::from_compile(name, &error))?;
    }
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raise(message)))
}

/// The local time, formatted as by C's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "strftime_now").with_source(error))
}

/// `{% generation %}` marks the assistant's words for training and leaves the text alone; the engine does not know it.
/// An `if` that is always true trims its surroundings in the same way.
fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    const TAGS: [(&str, &str); 2] = [("generation", "if true"), ("endgeneration", "endif")];
    let mut result = String::new();
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let inner = &rest[start + 2..start + length];
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        result.push_str(&rest[..start + 2]);
        match TAGS.iter().find(|tag| tag.0 == word) {
            Some((_, replacement)) => result.push_str(&inner.replacen(word, &format!(" {replacement} "), 1)),
            None => result.push_str(inner),
        }
        rest = &rest[start + length..];
    }
    if result.is_empty() {
        return Cow::Borrowed(source);
    }
    result.push_str(rest);
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_conditions() {
        #[track_caller]
        fn check(source: &str, expected: &str) {
            assert_eq!(without_generation_blocks(source), expected);
        }
        check("no tags", "no tags");
        check("a{% generation %}b{% endgeneration %}c", "a{%  if true  %}b{%  endif  %}c");
        check("{%- generation -%}b{%+endgeneration+%}", "{%-  if true  -%}b{%+ endif +%}");
        check("{% if add_generation_prompt %}x{% endif %}", "{% if add_generation_prompt %}x{% endif %}");
        check("{% set generation = 1 %}{% generation", "{% set generation = 1 %}{% generation");
    }
}
