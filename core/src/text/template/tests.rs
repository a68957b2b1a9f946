//! Templates of the known manners against `transformers`, and hostile ones against the limits.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{ChatTemplate, TemplateError, TemplateInput, TemplateSources};

const CASES: &str = include_str!("../../../tests/data/chat_template/cases.json");

fn source_of(name: &str) -> &'static str {
    match name {
        "chatml" => include_str!("../../../tests/data/chat_template/chatml.jinja"),
        "headers" => include_str!("../../../tests/data/chat_template/headers.jinja"),
        "inst" => include_str!("../../../tests/data/chat_template/inst.jinja"),
        "python" => include_str!("../../../tests/data/chat_template/python.jinja"),
        "thinking" => include_str!("../../../tests/data/chat_template/thinking.jinja"),
        "turns" => include_str!("../../../tests/data/chat_template/turns.jinja"),
        _ => panic!("no template {name}"),
    }
}

fn flag(input: &Value, name: &str) -> bool {
    input[name].as_bool().unwrap_or(false)
}

#[test]
fn renders_what_transformers_renders() {
    let cases: Value = serde_json::from_str(CASES).expect("a JSON file");
    let cases = cases["cases"].as_array().expect("a list");
    assert!(cases.len() > 80);
    let mut wrong = String::new();
    for case in cases {
        let template =
            ChatTemplate::new(source_of(case["template"].as_str().expect("a name")), "<s>", "</s>");
        let mut kwargs = Map::from_iter([("date_string".to_owned(), json!("26 Jul 2024"))]);
        kwargs.extend(case["input"]["kwargs"].as_object().cloned().unwrap_or_default());
        let got = template.expect("it compiles").render(&TemplateInput {
            messages: &case["input"]["messages"],
            tools: case["input"].get("tools"),
            add_generation_prompt: flag(&case["input"], "add_generation_prompt"),
            continue_final_message: flag(&case["input"], "continue_final_message"),
            kwargs: &kwargs,
        });
        let expected = &case["expected"];
        let agrees = match &got {
            Ok(text) => expected["text"] == json!(text),
            Err(TemplateError::Raised { message }) => expected["raised"] == json!(message),
            Err(TemplateError::Failed { .. } | TemplateError::InvalidInput { .. }) => {
                expected.get("failed").is_some()
            }
            Err(_) => false,
        };
        if !agrees {
            wrong += &format!("{} {}\n got {got:?}\n expected {expected}\n", case["template"], case["name"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn render(source: &str, messages: &Value) -> Result<String, TemplateError> {
    let input = TemplateInput {
        messages,
        tools: None,
        add_generation_prompt: false,
        continue_final_message: false,
        kwargs: &Map::new(),
    };
    ChatTemplate::new(source, "<s>", "</s>")?.render(&input)
}

fn hello() -> Value {
    json!([{"role": "user", "content": "hello"}])
}

/// Nothing a template does may take much time or memory; without the limits each of these would take all of it.
#[test]
fn hostile_templates_are_stopped() {
    const HOSTILE: &[&str] = &[
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set x = 'a' * 1000000000 %}",
        "{% set x = 'a' * 99999999 %}{% set y = x * 99999999 %}",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(64) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(64) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | tojson }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(64) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | string }}",
        "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s.replace('a', n.s) %}{% endfor %}",
        "{% set s = 'a' * 9999999 %}{{ s.replace('a', s) | length }}",
        "{% set s = 'a' * 9999999 %}{{ s.replace('', s) | length }}",
        "{% set s = 'a' * 9999999 %}{{ s | replace('a', s) | length }}",
        "{% set s = 'a' * 9999999 %}{{ s.join(s) | length }}",
        "{% set s = 'a' * 9999999 %}{{ s.join([s] * 9999999) | length }}",
        "{% set s = 'a' * 9999999 %}{{ ([s] * 99999999) | join(s) | length }}",
        "{% set s = 'a' * 30000000 %}{% for i in range(100000) %}{% set x = s.split('a') %}{% endfor %}",
        "{% set s = 'a' * 30000000 %}{% for i in range(100000) %}{% set x = s.upper() %}{% endfor %}",
        "{% set s = 'a' * 30000000 %}{% for i in range(100000) %}{% if s.find('b') > 0 %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 30000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 9 ~ 'b' %}{{ ([s] * 99999999).count('b') }}",
        "{{ 'x'.startswith(['y'] * 99999999) }}{{ 'x'.endswith(['y'] * 99999999) }}",
        "{{ '{:>9999999999}'.format('x') | length }}",
        "{{ '{:099999999}'.format(1) | length }}",
        "{{ ('{0}' * 99999).format('a' * 99999) | length }}",
        "{{ '%0999999999d' | format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ 'a' | indent(999999999) }}",
        "{{ [[[[[1] * 9999] * 9999] * 9999] * 9999] | tojson }}",
        "{{ ([[1] * 9999] * 9999) | tojson(sort_keys=true) }}",
        "{{ [1] | batch(99999999, 'x') | list | length }}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro m(n) %}{{ m(n + 1) ~ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro a() %}{{ caller() }}{% endmacro %}{% macro b() %}{% call a() %}{{ b() }}{% endcall %}{% endmacro %}{{ b() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set x %}{% for a in range(99999) %}{{ 'y' * 9999 }}{% endfor %}{% endset %}",
        "{% filter upper %}{% for a in range(99999) %}{{ 'y' * 9999 }}{% endfor %}{% endfilter %}",
        "{% for a in range(99999) %}{{ 'y' * 9999 }}{% endfor %}",
        "{% set n = namespace(l=[]) %}{% for a in range(99999) %}{% set n.l = n.l + ['y' * 9999] %}{% endfor %}",
        "{% set n = namespace(l=1) %}{% for a in range(99999) %}{% set n.l = n.l * 9999999999999 %}{% endfor %}",
        "{{ 10 ** 999999999 }}",
        "{{ range(999999999999) | list }}",
    ];
    for source in HOSTILE {
        let start = Instant::now();
        match render(source, &hello()) {
            Err(TemplateError::LimitExceeded { .. } | TemplateError::Failed { .. }) => {}
            other => panic!("{source} gave {other:?}"),
        }
        // Each takes milliseconds; the bound is for a slow machine under load.
        assert!(start.elapsed() < Duration::from_secs(30), "{source} took {:?}", start.elapsed());
    }
}

#[test]
fn limits_grow_with_the_conversation() {
    let many: Vec<Value> =
        (0..3_000).map(|n| json!({"role": "user", "content": format!("question {n}")})).collect();
    let quadratic =
        "{% for m in messages %}{{ m.content ~ (messages | length) ~ messages[-1].role }}{% endfor %}";
    let text = render(quadratic, &json!(many)).expect("rendered");
    assert!(text.ends_with("question 29993000user"));
    let long = json!([{"role": "user", "content": "long ".repeat(2_000_000)}]);
    let text = render("{% for m in messages %}{{ m.role + ': ' + m.content | trim }}{% endfor %}", &long);
    assert_eq!(text.expect("rendered").len(), 6 + 10_000_000 - 1);
}

#[test]
fn malformed_templates_name_the_line() {
    #[track_caller]
    fn check(source: &str, line: Option<usize>) {
        match ChatTemplate::new(source, "", "") {
            Err(TemplateError::Malformed { name, line: at, .. }) => {
                assert_eq!((name.as_str(), at), ("default", line))
            }
            other => panic!("{source:?} gave {other:?}"),
        }
    }
    check("{% if true %}", Some(1));
    check("a\nb\n{{ 1 + }}", Some(3));
    check("{% nonsense %}", Some(1));
    check("{{ 'open }}", Some(1));
    check("{% endfor %}", Some(1));
    check("{% include 'other' %}", Some(1));
    check("{% import 'other' as other %}", Some(1));
    check("{% extends 'other' %}", Some(1));
    check(&format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000)), Some(1));
    check(&format!("{}{}", "{% if 1 %}".repeat(5_000), "{% endif %}".repeat(5_000)), Some(1));
    check(&"x".repeat((1 << 20) + 1), None);
}

#[test]
fn failing_templates_are_typed() {
    #[track_caller]
    fn check(source: &str) {
        match render(source, &hello()) {
            Err(TemplateError::Failed { line, .. }) => assert_eq!(line, Some(1), "{source}"),
            other => panic!("{source} gave {other:?}"),
        }
    }
    check("{{ nothing.here }}");
    check("{{ messages[0].content.nope() }}");
    check("{{ unknown_function() }}");
    check("{{ 'a' + 1 }}");
    check("{{ 1 // 0 }}");
    check("{{ strftime_now('%') }}");
    check("{{ {} | tojson(indent=1000) }}");
    check("{{ {} | tojson(separators=['a']) }}");
    check("{{ {} | tojson(nonsense=1) }}");
    check("{{ raise_exception() }}");
    // Unknown filters are found when the template is compiled or when it runs, depending on the engine.
    assert!(render("{{ 1 | nonsense }}", &hello()).is_err());
}

#[test]
fn a_refusal_carries_the_templates_words() {
    let source = "{% macro m() %}{{ raise_exception('No \"system\" <role>.') }}{% endmacro %}{{ m() }}";
    let message = "No \"system\" <role>.".to_owned();
    assert_eq!(render(source, &hello()), Err(TemplateError::Raised { message }));
}

#[test]
fn the_time_is_the_local_time() {
    let today = || jiff::Zoned::now().strftime("%Y-%m-%d %d %b").to_string();
    let before = today();
    let shown = render("{{ strftime_now('%Y-%m-%d %d %b') }}", &hello()).expect("rendered");
    assert!(shown == before || shown == today(), "{shown}");
}

#[test]
fn contradictory_input_is_the_callers_fault() {
    #[track_caller]
    fn check(messages: &Value, generate: bool, kwargs: &Value) {
        let input = TemplateInput {
            messages,
            tools: None,
            add_generation_prompt: generate,
            continue_final_message: kwargs.is_null(),
            kwargs: &kwargs.as_object().cloned().unwrap_or_default(),
        };
        let template = ChatTemplate::new("{% for m in messages %}{{ m.role }}{% endfor %}", "", "");
        match template.expect("it compiles").render(&input) {
            Err(TemplateError::InvalidInput { message }) => assert!(!message.is_empty()),
            other => panic!("{messages} {kwargs} gave {other:?}"),
        }
    }
    check(&hello(), true, &Value::Null);
    check(&hello(), false, &Value::Null);
    check(&json!([]), false, &Value::Null);
    check(&json!("text"), false, &Value::Null);
    check(&json!([{"role": "user"}]), false, &Value::Null);
    check(&json!([{"role": "user", "content": [{"type": "image"}]}]), false, &Value::Null);
    check(&hello(), false, &json!({"messages": []}));
    check(&hello(), false, &json!({"tools": null}));
    check(&hello(), false, &json!({"add_generation_prompt": true}));
}

#[test]
fn conversations_of_any_shape_do_not_panic() {
    let shapes =
        [json!(null), json!([]), json!({}), json!("x"), json!([1, "a", null, [], {}]), json!([{"role": 1}])];
    for name in ["chatml", "headers", "inst", "thinking", "turns"] {
        for messages in &shapes {
            // Any answer will do, as long as it is one.
            let _ = render(source_of(name), messages);
        }
    }
}

#[test]
fn the_template_for_tools_is_used_with_tools() {
    let sources = |entries: &[(&str, &str)]| TemplateSources {
        templates: entries.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect(),
        special_tokens: [("pad_token".to_owned(), "<pad>".to_owned())].into(),
    };
    let render = |sources: TemplateSources, tools: Option<&Value>| {
        let input = TemplateInput {
            messages: &hello(),
            tools,
            add_generation_prompt: false,
            continue_final_message: false,
            kwargs: &Map::new(),
        };
        ChatTemplate::from_sources(sources)?.render(&input)
    };
    let both = [("default", "plain"), ("tool_use", "tools {{ pad_token }}")];
    assert_eq!(render(sources(&both), None).as_deref(), Ok("plain"));
    assert_eq!(render(sources(&both), Some(&json!([]))).as_deref(), Ok("tools <pad>"));
    assert_eq!(render(sources(&both[..1]), Some(&json!([]))).as_deref(), Ok("plain"));
    assert_eq!(render(sources(&both[1..]), None), Err(TemplateError::Missing));
    assert_eq!(render(sources(&[]), None), Err(TemplateError::Missing));
}

#[test]
fn a_model_directory_is_searched_in_the_known_places() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    let found = || TemplateSources::from_model_dir(dir.path());
    let default = |sources: TemplateSources| sources.templates.get("default").cloned();
    assert_eq!(found(), Ok(TemplateSources::default()));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": "a", "bos_token": {"content": "<s>"}, "eos_token": null}"#,
    );
    let sources = found().expect("read");
    assert_eq!(
        sources.special_tokens.into_iter().collect::<Vec<_>>(),
        [("bos_token".to_owned(), "<s>".to_owned())]
    );
    assert_eq!(default(found().expect("read")).as_deref(), Some("a"));
    let list =
        r#"[{"name": "default", "template": "b"}, {"name": "tool_use", "template": "t"}, {"name": 1}, 2]"#;
    write("tokenizer_config.json", &format!(r#"{{"chat_template": {list}}}"#));
    assert_eq!(found().expect("read").templates.len(), 2);
    write("chat_template.json", r#"{"chat_template": {"default": "c", "rag": "r"}}"#);
    assert_eq!(found().expect("read").templates.len(), 3);
    write("chat_template.jinja", "d");
    assert_eq!(default(found().expect("read")).as_deref(), Some("d"));
    fs::create_dir(dir.path().join("additional_chat_templates")).expect("a folder");
    write("additional_chat_templates/think.jinja", "e");
    write("additional_chat_templates/notes.txt", "f");
    assert_eq!(found().expect("read").templates.len(), 4);

    for malformed in ["", "{", "[1", "\u{0}", r#"{"chat_template": "#] {
        write("tokenizer_config.json", malformed);
        assert!(matches!(found(), Err(TemplateError::Unreadable { .. })), "{malformed:?}");
    }
    for odd in ["1", "[]", r#"{"chat_template": 5}"#, r#"{"chat_template": [{"name": "default"}]}"#] {
        write("tokenizer_config.json", odd);
        assert!(found().is_ok(), "{odd}");
    }
    fs::write(dir.path().join("chat_template.jinja"), [0xff, 0xfe]).expect("written");
    assert!(matches!(found(), Err(TemplateError::Unreadable { .. })));
}
