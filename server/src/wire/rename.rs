//! Errors of requests that became chat requests, in the words of the API that they were sent to.

use crate::error::ApiError;
use crate::params::Endpoint;

/// Names in chat and names there; longer ones first. What is behind a name stays.
type Names = &'static [(&'static str, &'static str)];

const RESPONSES: Names = &[
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
    ("messages", "input"),
];

const MESSAGES: Names = &[
    ("response_format.json_schema", "output_config.format"),
    ("response_format", "output_config.format"),
    ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
    ("stop", "stop_sequences"),
];

/// `error` with the parameters' names of `endpoint`, in its `param` and where the message has them between backticks.
pub(crate) fn in_words_of(endpoint: Endpoint, error: ApiError) -> ApiError {
    let (names, schema) = match endpoint {
        Endpoint::Responses => (RESPONSES, "].parameters"),
        Endpoint::Messages | Endpoint::CountTokens => (MESSAGES, "].input_schema"),
        _ => return error,
    };
    let Some(old) = &error.param else { return error };
    let new = renamed(old, names, schema);
    let message = error.message.replace(&format!("`{old}`"), &format!("`{new}`"));
    ApiError { message, param: Some(new), ..error }
}

/// `schema`: what a tool's schema is called.
fn renamed(path: &str, names: Names, schema: &str) -> String {
    let at = |(old, new): &(&str, &str)| {
        let rest = path.strip_prefix(old)?;
        let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
        // Messages are put together and taken apart on the way: the number would be another one.
        let rest = if *old == "messages" { "" } else { rest };
        is_whole.then(|| format!("{new}{rest}"))
    };
    names.iter().find_map(at).unwrap_or_else(|| match path {
        path if path.starts_with("messages[") => "messages".to_owned(),
        // The functions of tools have no level of their own there.
        path if path.starts_with("tools[") => {
            path.replacen("].function.", "].", 1).replacen("].parameters", schema, 1)
        }
        path => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(endpoint: Endpoint, param: &str, renamed: &str) {
        let error = ApiError::invalid(param, format!("`{param}` is wrong, stop"));
        let error = in_words_of(endpoint, error);
        assert_eq!(error.param.as_deref(), Some(renamed));
        assert_eq!(error.message, format!("`{renamed}` is wrong, stop"));
    }

    #[test]
    fn each_api_has_its_words() {
        check(Endpoint::Chat, "messages", "messages");
        check(Endpoint::Responses, "messages", "input");
        check(Endpoint::Responses, "messages[3].content", "input");
        check(Endpoint::Responses, "max_tokens", "max_output_tokens");
        check(
            Endpoint::Responses,
            "response_format.json_schema.schema.properties.a",
            "text.format.schema.properties.a",
        );
        check(Endpoint::Responses, "tools[1].function.name", "tools[1].name");
        check(Endpoint::Responses, "tools[1].function.parameters", "tools[1].parameters");
        check(Endpoint::Messages, "tools[1].function.parameters", "tools[1].input_schema");
        check(Endpoint::Messages, "messages[3].content", "messages");
        check(Endpoint::Messages, "stop[0]", "stop_sequences[0]");
        check(Endpoint::Messages, "stopping", "stopping");
        check(Endpoint::CountTokens, "temperature", "temperature");
    }

    #[test]
    fn an_error_of_no_parameter_stays() {
        let error = ApiError::shutting_down();
        assert_eq!(in_words_of(Endpoint::Responses, error.clone()), error);
    }
}
