//! Outputs of each family, good and bad, and what holds for any text.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tools::Tool;

fn tools() -> Arc<Tools> {
    let parameters = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}}});
    let tool = |name: &str| Tool { name: name.into(), description: None, parameters: parameters.clone() };
    Arc::new(Tools(vec![tool("weather"), tool("now")]))
}

fn options(family: Family) -> ParseOptions {
    let harmony = family == Family::Harmony;
    ParseOptions { calls: Some((family, tools())), reasoning: None, harmony, only_one_call: false }
}

/// Pieces of a text that comes in these parts; neighbours of a kind joined.
fn parse<'a>(options: &ParseOptions, parts: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
    let mut parser = OutputParser::new(options);
    let mut all = Vec::new();
    let mut add = |pieces: std::vec::Drain<'_, Piece>| {
        for piece in pieces {
            match (all.last_mut(), piece) {
                (Some(Piece::Content(last)), Piece::Content(text))
                | (Some(Piece::Reasoning(last)), Piece::Reasoning(text))
                | (Some(Piece::Arguments(last)), Piece::Arguments(text)) => last.push_str(&text),
                (_, piece) => all.push(piece),
            }
        }
    };
    for part in parts {
        add(parser.push(part));
    }
    add(parser.finish());
    all
}

/// `text`, `name(arguments)`, `name#id(arguments)`, `(thinking)`; as one line for tables.
fn show(pieces: &[Piece]) -> String {
    let mut line = String::new();
    for piece in pieces {
        match piece {
            Piece::Content(text) => line += &format!("«{text}»"),
            Piece::Reasoning(text) => line += &format!("~{text}~"),
            Piece::Call { name, id: None } => line += &format!(" {name}("),
            Piece::Call { name, id: Some(id) } => line += &format!(" {name}#{id}("),
            Piece::Arguments(text) => line += text,
            Piece::CallEnd => line.push(')'),
        }
    }
    line.trim_start().to_owned()
}

#[track_caller]
fn check(family: Family, text: &str, expected: &str) {
    assert_eq!(show(&parse(&options(family), [text])), expected, "{text:?}");
}

#[test]
fn hermes() {
    let f = Family::Hermes;
    check(
        f,
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>",
        "weather({\"city\": \"Bonn\"})",
    );
    check(
        f,
        "Let me see.\n<tool_call>{\"arguments\": {\"a\":[1,{}]}, \"name\": \"now\"}</tool_call>\n",
        "«Let me see.» now({\"a\":[1,{}]})",
    );
    check(
        f,
        "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"now\"}</tool_call> ok",
        "now({}) now({})«ok»",
    );
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>", "f({\"a\":1})");
    check(
        f,
        "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"a\":1}}}</tool_call>",
        "f({\"a\":1})",
    );
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":null,\"id\":[1]}</tool_call>", "f({})");
    check(
        f,
        "<tool_call>{\"name\":\"f\",\"arguments\":{\"t\":\"</tool_call>\"}}</tool_call>",
        "f({\"t\":\"</tool_call>\"})",
    );
    check(
        f,
        "<tool_call>{\"name\":\"f\",\"arguments\":{\"t\":\"a\nb\"}}</tool_call>",
        "f({\"t\":\"a\\nb\"})",
    );
}

#[test]
fn hermes_malformed() {
    let f = Family::Hermes;
    for text in [
        "",
        " \n",
        "plain { text }",
        "<tool_call>",
        "<tool_call>\n",
        "<tool_call></tool_call>",
        "<tool_cal",
        "<tool_call>weather</tool_call>",
        "<tool_call>{}</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>{\"name\": 1}</tool_call>",
        "<tool_call>{\"name\": \"\"}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": 1}</tool_call>",
        "<tool_call>{\"name\" \"f\"}</tool_call>",
        "<tool_call>{name: \"f\"}</tool_call>",
        "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
        "<tool_call>{\"name\": \"f\"",
        "a <tool_call> b <tool_call> c",
        "</tool_call>",
        "x <tool_call>\n{\"nam",
        "{\"name\":\"now\",\"arguments\":{}}",
    ] {
        let expected = if text.is_empty() { String::new() } else { format!("«{text}»") };
        check(f, text, &expected);
    }
    // After the name all is arguments, and what follows a whole call is content.
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":", "f({\"a\":)");
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":oops}</tool_call>", "f({\"a\":oops})");
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":{}</tool_call>ok", "f({})«ok»");
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":{}}}</tool_call>ok", "f({})«ok»");
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":{}} and more", "f({})«and more»");
    check(f, "<tool_call>{\"name\":\"f\",\"arguments\":{}}\n<tool_call>{\"name\":\"g\"}", "f({}) g({})");
    check(f, "<tool_call>no <tool_call>{\"name\":\"g\"}</tool_call>", "«<tool_call>no» g({})");
}

#[test]
fn qwen_coder_and_glm() {
    let f = Family::QwenCoder;
    check(
        f,
        "Hm\n<tool_call>\n<function=weather>\n<parameter=city>\nBonn\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        "«Hm» weather({\"city\": \"Bonn\", \"days\": 3})",
    );
    check(f, "<function=now>\n</function>\n</tool_call>", "now({})«</tool_call>»");
    check(f, "<tool_call>\n<function=now></function></tool_call>x", "now({})«x»");
    check(
        f,
        "<tool_call><function=weather><parameter=days>many</parameter></function></tool_call>",
        "weather({\"days\": \"many\"})",
    );
    for text in [
        "<tool_call><func>",
        "<tool_call><function=>",
        "<function=",
        "<function=a\nb>",
        "<tool_call>\n<functio",
    ] {
        check(f, text, &format!("«{text}»"));
    }
    check(f, "<function=now><parameter=city>Bo", "now({\"city\": Bo)");

    let f = Family::Glm;
    check(
        f,
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n<arg_key>tags</arg_key><arg_value>[1]</arg_value>\n</tool_call>",
        "weather({\"city\": \"12\", \"tags\": [1]})",
    );
    check(f, "<tool_call>now\n</tool_call>\n<tool_call>now</tool_call>", "now({}) now({})");
    for text in
        ["<tool_call>a b</tool_call>", "<tool_call></tool_call>", "<tool_call>now", "<tool_call>a b<arg_key>"]
    {
        check(f, text, &format!("«{text}»"));
    }
    check(f, "<tool_call>now<arg_key>city</arg_key><arg_value>Bo", "now({\"city\": <arg_value>Bo)");
}

#[test]
fn llama3() {
    let f = Family::Llama3;
    check(f, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "f({\"a\": 1})");
    check(f, "{\"name\": \"now\", \"parameters\": {}}", "now({})");
    check(
        f,
        "\n{\"name\": \"now\"}; {\"name\": \"weather\", \"parameters\": {\"x\":{}}}",
        "now({}) weather({\"x\":{}})",
    );
    check(f, "{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}", "now({})");
    check(f, "{\"name\": \"now\"} and so on", "now({})«and so on»");
    for text in [
        "{\"name\": \"Bob\", \"parameters\": {}}",
        "{\"a\": 1}",
        "{",
        "{}",
        "[1]",
        "<|python_tag|>print(1)",
        "Answer: {\"name\": \"now\", \"parameters\": {}}",
        "{\"name\": \"now\"",
        "{ not json }",
        "<|python_tag|>",
        "<{\"name\": \"now\"}",
    ] {
        check(f, text, &format!("«{text}»"));
    }
    check(f, "{\"name\": \"now\", \"parameters\": {\"a\": ", "now({\"a\": )");
}

#[test]
fn mistral() {
    let f = Family::Mistral;
    check(
        f,
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
        "f({\"a\": 1}) g({})",
    );
    check(f, "[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g[ARGS]{}", "f({\"a\": 1}) g({})");
    check(f, "Hi[TOOL_CALLS]f[CALL_ID]Ab1[ARGS]{\"a\": [\"]\"]}", "«Hi» f#Ab1({\"a\": [\"]\"]})");
    check(f, "[TOOL_CALLS] {\"name\": \"f\", \"arguments\": {}}", "f({})");
    for text in [
        "[TOOL_CALLS]",
        "[TOOL_CALLS] []",
        "[TOOL_CALLS] [1]",
        "[TOOL_CALLS] f g{}",
        "[TOOL_CALLS]f",
        "[TOOL_CALLS]f\n{}",
        "[TOOL_",
        "[TOOL_CALLS]{}",
    ] {
        check(f, text, &format!("«{text}»"));
    }
    check(f, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}", "f({})");
    check(f, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}] x", "f({})«x»");
    check(f, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}} x", "f({})«x»");
}

#[test]
fn deepseek_and_kimi() {
    let f = Family::DeepSeek;
    let open = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>";
    let end = "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    check(f, &format!("{open}function<｜tool▁sep｜>f\n```json\n{{\"a\": 1}}\n```{end}"), "f({\"a\": 1})");
    check(
        f,
        &format!(
            "Ok\n\n{open}f<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{{}}{end}"
        ),
        "«Ok» f({}) g({})",
    );
    check(f, &format!("{open}f<｜tool▁sep｜>{{\"a\":"), "f({\"a\":)");
    for text in
        ["f<｜tool▁sep｜>", "", "f", " <｜tool▁sep｜>{}", "f<｜tool▁sep｜>x\ny\n{}", "f\n<｜tool▁sep｜>{}"]
    {
        check(f, &format!("<｜tool▁call▁begin｜>{text}"), &format!("«<｜tool▁call▁begin｜>{text}»"));
    }
    let f = Family::Kimi;
    let call = |id: &str, arguments: &str| {
        format!(
            "<|tool_calls_section_begin|><|tool_call_begin|>{id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|><|tool_calls_section_end|>"
        )
    };
    check(f, &call("functions.f:0", "{\"a\": 1}"), "f#functions.f:0({\"a\": 1})");
    check(f, &(call("functions.f:0", "{}") + &call("g:1", " {}")), "f#functions.f:0({}) g#g:1({})");
    for head in ["functions.f", "functions.:0", "f:x", "f g:0", ""] {
        let text = format!("<|tool_call_begin|>{head}<|tool_call_argument_begin|>{{}}");
        check(f, &text, &format!("«{text}»"));
    }
}

#[test]
fn gemma() {
    let f = Family::Gemma;
    check(
        f,
        "<start_function_call>call:f{city:<escape>a{b}<escape>,n:-1.5,on:true,l:[1,<escape>x<escape>],o:{k:null}}<end_function_call>",
        "f({\"city\":\"a{b}\",\"n\":-1.5,\"on\":true,\"l\":[1,\"x\"],\"o\":{\"k\":null}})",
    );
    check(
        f,
        "Ok <|tool_call>call:f{q:<|\"|><tool_call|><|\"|>}<tool_call|>",
        "«Ok» f({\"q\":\"<tool_call|>\"})",
    );
    check(f, "<|tool_call>call:f{}", "f({})");
    for text in [
        "<|tool_call>",
        "<|tool_call>f{}<tool_call|>",
        "<|tool_call>call:{}<tool_call|>",
        "<|tool_call>call:f{a}<tool_call|>",
        "<|tool_call>call:f{a:}<tool_call|>",
        "<|tool_call>call:f{a:1<tool_call|>",
        "<|tool_call>call:f{} x<tool_call|>",
        "<start_function_call>call:f{a:<escape>x}<end_function_call>",
    ] {
        check(f, text, &format!("«{text}»"));
    }
}

#[test]
fn pythonic() {
    let f = Family::Pythonic;
    check(
        f,
        "[weather(city='Bo\\'nn', days=-3), now()]",
        "weather({\"city\":\"Bo'nn\",\"days\":-3}) now({})",
    );
    check(
        f,
        "<|python_start|>[f(a=[1, \"]\"], b={'k': None}, c=(True, 1.5))]<|python_end|>x",
        "f({\"a\":[1,\"]\"],\"b\":{\"k\":null},\"c\":[true,1.5]})«x»",
    );
    check(f, "<|tool_call_start|>[f(a=\"\\u00e9\\n\")]<|tool_call_end|>", "f({\"a\":\"é\\n\"})");
    check(f, "<|tool_call_start|>[f()]", "f({})");
    for text in [
        "[link](url)",
        "[1, 2]",
        "[",
        "[]",
        "[now]",
        "[other()]",
        "[now(1)]",
        "[now(a=x)]",
        "[now(a=1]",
        "[now(",
        "see [now()]",
        "[now()",
        "<|python_start|>print(1)<|python_end|>",
        "[now(a='x)]",
        "[now(a=1e999)]",
    ] {
        check(f, text, &format!("«{text}»"));
    }
}

#[test]
fn harmony() {
    let f = Family::Harmony;
    check(
        f,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>",
        "~Hm.~ f({\"a\":1})",
    );
    check(
        f,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "~Hm.~«Yes.»",
    );
    check(f, "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}", "f({})");
    check(
        f,
        "<|channel|>commentary<|message|>I will call.<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{",
        "«I will call.» f({)",
    );
    for text in ["", "Just text", "a <|chan", "<x|>"] {
        let expected = if text.is_empty() { String::new() } else { format!("«{text}»") };
        check(f, text, &expected);
    }
    check(f, "<|channel|>final", "«final»");
    let without = ParseOptions { calls: None, ..options(f) };
    let text = "<|channel|>commentary to=functions.f<|message|>{}";
    assert_eq!(show(&parse(&without, [text])), "«{}»");
}

#[test]
fn reasoning_comes_before_calls_and_one_call_may_be_all() {
    let mut both = options(Family::Hermes);
    both.reasoning = Some((Tags::Think, Start::Inside));
    let text = "a <tool_call> b</think>\n<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\"}</tool_call>x";
    assert_eq!(show(&parse(&both, [text])), "~a <tool_call> b~ f({}) g({})«x»");
    both.only_one_call = true;
    assert_eq!(show(&parse(&both, [text])), "~a <tool_call> b~ f({})");
}

const FRAGMENTS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "{\"name\": \"now\"",
    ", \"arguments\": ",
    "{\"a\": 1}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\n",
    " ",
    "now",
    "(",
    ")",
    "a=1",
    ",",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<|tool_call_begin|>",
    "functions.f:0",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<function=now>",
    "<parameter=a>",
    "</parameter>",
    "</function>",
    "<|tool_call>",
    "call:f{",
    "<|\"|>",
    "<tool_call|>",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
    "analysis",
    "final",
    " to=functions.f",
    "<think>",
    "</think>",
    "é",
    "text ",
];

fn any_text() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(FRAGMENTS).prop_map(str::to_owned);
    // Now and then one that is broken off, or anything at all.
    let broken = (prop::sample::select(FRAGMENTS), any::<prop::sample::Index>())
        .prop_map(|(text, n)| text.chars().take(n.index(text.chars().count() + 1)).collect());
    prop::collection::vec(prop_oneof![8 => fragment, 2 => broken, 1 => ".{0,4}"], 0..24)
        .prop_map(|parts| parts.concat())
}

fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// `DUET_FUZZ_CASES` says how many of each kind.
fn cases() -> u32 {
    std::env::var("DUET_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn any_cut_gives_the_same_pieces(
        text in any_text(), family in prop::sample::select(&Family::NAMES[..]), thinks in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let reasoning = thinks.then_some((Tags::Think, Start::Outside));
        let options = ParseOptions { reasoning, ..options(family.1) };
        let mut at: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        at.push(text.len());
        let mut ends: Vec<usize> = cuts.iter().map(|cut| at[cut.index(at.len())]).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let parts = ends.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        prop_assert_eq!(parse(&options, parts), parse(&options, [text.as_str()]));
    }

    /// Every call ends once and before the next; a text in which no call was found comes out as it was.
    #[test]
    fn pieces_are_in_order_and_text_without_calls_is_whole(text in any_text(), family in prop::sample::select(&Family::NAMES[..])) {
        let pieces = parse(&options(family.1), [text.as_str()]);
        let (mut open, mut content) = (false, String::new());
        for piece in &pieces {
            match piece {
                Piece::Call { name, .. } => {
                    prop_assert!(!open && !name.is_empty());
                    open = true;
                }
                Piece::Arguments(_) => prop_assert!(open),
                Piece::CallEnd => {
                    prop_assert!(open);
                    open = false;
                }
                Piece::Content(text) => {
                    prop_assert!(!open);
                    content.push_str(text);
                }
                Piece::Reasoning(_) => prop_assert!(family.1 == Family::Harmony),
            }
        }
        prop_assert!(!open);
        let has_calls = pieces.iter().any(|piece| matches!(piece, Piece::Call { .. }));
        let frames = text.contains("tool_calls_section") || text.contains("calls▁");
        if !has_calls && !frames && family.1 != Family::Harmony {
            prop_assert_eq!(content, text);
        } else if family.1 != Family::Harmony {
            // Nothing is made up either.
            prop_assert!(letters(&content).len() <= letters(&text).len());
        }
    }
}
