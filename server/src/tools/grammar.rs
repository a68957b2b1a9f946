//! `tool_choice` that asks for a call, as a grammar: nothing else than a call can be said.

use duet_core::constraint::ConstraintSpec;
use duet_core::text::{EncodeOptions, Tokenizer};

use super::request::ToolRequest;
use super::{Family, Tool};
use crate::reasoning::Tags;

/// Calls after the first, where several are allowed: more would be a loop.
const MOST_FURTHER_CALLS: usize = 15;

/// Behind thinking; a bound, so that a model cannot go on with blanks.
const BLANKS: &str = r"/\s{0,8}/";

/// The form in which calls are enforced. Families whose arguments are no JSON get Hermes' form, which the grammar
/// holds them to.
pub(crate) fn enforced(family: Family) -> Family {
    match family {
        Family::Llama3 | Family::Mistral | Family::DeepSeek | Family::Kimi | Family::Harmony => family,
        Family::Hermes | Family::QwenCoder | Family::Glm | Family::Gemma | Family::Pythonic => Family::Hermes,
    }
}

/// How a call is put together.
struct Form {
    /// Around all calls, and between two.
    open: String,
    between: String,
    close: String,
    /// Around the arguments of the function with this name, which is plain.
    before: fn(&Marks<'_>, &str) -> String,
    after: String,
    several: bool,
}

/// Writes parts of a rule.
struct Marks<'a>(&'a dyn Tokenizer);

impl Marks<'_> {
    /// A mark: the control token where it is one, else its text.
    fn mark(&self, text: &str) -> String {
        let options = EncodeOptions { add_special: false, parse_special: true };
        match self.0.encode(text, options).as_deref() {
            Ok([id]) if self.0.is_control(*id) => format!("<[{id}]>"),
            _ => literal(text),
        }
    }
}

/// A text in a rule.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn form(family: Family, marks: &Marks<'_>) -> Form {
    let mark = |text: &str| marks.mark(text);
    let none = String::new;
    match family {
        Family::Llama3 => Form {
            open: none(),
            between: literal("; "),
            close: none(),
            before: |_, name| literal(&format!("{{\"name\": {}, \"parameters\": ", literal(name))),
            after: literal("}"),
            several: true,
        },
        Family::Mistral => Form {
            open: format!("{} \"[\"", mark("[TOOL_CALLS]")),
            between: literal(", "),
            close: literal("]"),
            before: |_, name| literal(&format!("{{\"name\": {}, \"arguments\": ", literal(name))),
            after: literal("}"),
            several: true,
        },
        Family::DeepSeek => Form {
            open: mark("<｜tool▁calls▁begin｜>"),
            between: literal("\n"),
            close: mark("<｜tool▁calls▁end｜>"),
            before: |marks, name| {
                let (begin, sep) = (marks.mark("<｜tool▁call▁begin｜>"), marks.mark("<｜tool▁sep｜>"));
                format!("{begin} \"function\" {sep} {}", literal(&format!("{name}\n```json\n")))
            },
            after: format!("{} {}", literal("\n```"), mark("<｜tool▁call▁end｜>")),
            several: true,
        },
        Family::Kimi => Form {
            open: mark("<|tool_calls_section_begin|>"),
            between: none(),
            close: mark("<|tool_calls_section_end|>"),
            before: |marks, name| {
                let (begin, arguments) =
                    (marks.mark("<|tool_call_begin|>"), marks.mark("<|tool_call_argument_begin|>"));
                format!("{begin} {} /[0-9]/ {arguments}", literal(&format!("functions.{name}:")))
            },
            after: mark("<|tool_call_end|>"),
            several: true,
        },
        Family::Harmony => Form {
            open: none(),
            between: none(),
            close: none(),
            before: |marks, name| {
                let (channel, constrain, message) =
                    (marks.mark("<|channel|>"), marks.mark("<|constrain|>"), marks.mark("<|message|>"));
                let to = literal(&format!("commentary to=functions.{name} "));
                format!("{channel} {to} {constrain} \"json\" {message}")
            },
            after: none(),
            several: false,
        },
        _ => Form {
            open: none(),
            between: literal("\n"),
            close: none(),
            before: |marks, name| {
                let begin = marks.mark("<tool_call>");
                format!("{begin} {}", literal(&format!("\n{{\"name\": {}, \"arguments\": ", literal(name))))
            },
            after: format!("{} {}", literal("}\n"), mark("</tool_call>")),
            several: true,
        },
    }
}

/// Lark's rule `name` for the rest of a thinking that the prompt has opened, its closing tag and blanks behind it.
pub(crate) fn thought(name: &str, tags: Tags, tokenizer: &dyn Tokenizer) -> String {
    let close = Marks(tokenizer).mark(tags.pair()[1]);
    match close.starts_with('<') {
        true => format!("{name}: /(?s:.*)/ {close} {BLANKS}\n"),
        false => format!("{name}: {name}_inner {BLANKS}\n{name}_inner[suffix={close}]: /(?s:.*)/\n"),
    }
}

/// A grammar of calls of these functions. `thinking`: the prompt has opened it, so that it comes first.
pub(crate) fn calls(
    family: Family,
    request: &ToolRequest,
    tokenizer: &dyn Tokenizer,
    thinking: Option<Tags>,
) -> ConstraintSpec {
    let marks = Marks(tokenizer);
    let form = form(family, &marks);
    let more = match form.several && request.parallel {
        true => format!(" ({} call){{0,{MOST_FURTHER_CALLS}}}", form.between),
        false => String::new(),
    };
    let first = if thinking.is_some() { "thought " } else { "" };
    let mut grammar = format!("%llguidance {{}}\nstart: {first}{} call{more} {}\n", form.open, form.close);
    if let Some(tags) = thinking {
        grammar.push_str(&thought("thought", tags, tokenizer));
    }
    let names: Vec<String> = (0..request.tools.0.len()).map(|index| format!("call_{index}")).collect();
    grammar.push_str(&format!("call: {}\n", names.join(" | ")));
    for (index, Tool { name, parameters, .. }) in request.tools.0.iter().enumerate() {
        let before = (form.before)(&marks, name);
        let parameters = ConstraintSpec::schema_in_lark(parameters);
        grammar.push_str(&format!(
            "call_{index}: {before} arguments_{index} {}\narguments_{index}: %json {parameters}\n",
            form.after
        ));
    }
    ConstraintSpec::Lark(grammar)
}
