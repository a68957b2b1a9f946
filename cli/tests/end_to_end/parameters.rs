//! Every row of the table of parameters on the real engines.

use std::collections::HashMap;

use duet_server::params::probe::{Tokens, basic, comparable};
use duet_server::params::{self, Endpoint, Group, Parameter};
use serde_json::{Value, json};

use super::{Server, body_of, config, prerequisite};

/// Tokens of an answer: enough that an effect shows, few enough that all rows take seconds.
const N_TOKENS: u32 = 10;
/// Penalties show when a token has come again, some of them only when it has often.
const N_TOKENS_PENALISED: u32 = 32;

/// A model of the server under test.
struct Subject<'a> {
    server: &'a Server,
    engine: &'static str,
    tokens: Tokens,
}

impl<'a> Subject<'a> {
    /// The model that is named after its engine.
    fn of(server: &'a Server, engine: &'static str) -> Self {
        let info = server.ask("GET", &format!("/tokenizer_info?model={engine}"), "");
        let info: Value = serde_json::from_str(body_of(&info)).expect("JSON");
        let body = json!({"model": engine, "content": "c"}).to_string();
        let c: Value = serde_json::from_str(body_of(&server.ask("POST", "/tokenize", &body))).expect("JSON");
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).expect("a token id");
        let tokens = Tokens { eos: id(&info["eos_token_id"]), c: id(&c["tokens"][0]) };
        Self { server, engine, tokens }
    }

    /// What of an endpoint's parameters neither shows in an answer nor is refused as it should be. One request at a time:
    /// company in a batch moves the last digits of logits, and then an answer differs whatever the parameter does.
    fn without_effect(&self, endpoint: Endpoint) -> Vec<String> {
        let basic = |n_tokens: u32| {
            let mut basic = basic(endpoint, self.engine).expect("it generates");
            basic["max_tokens"] = n_tokens.into();
            basic
        };
        let (short, long) = (basic(N_TOKENS), basic(N_TOKENS_PENALISED));
        // Most rows are compared with one and the same answer.
        let mut bases: HashMap<String, Value> = HashMap::new();
        let mut wrong = Vec::new();
        for row in params::of(endpoint) {
            let basic = if row.group == Group::Penalties { &long } else { &short };
            let Some((without, with)) = row.bodies(basic, self.tokens) else { continue };
            let ask = |body: &str| self.server.ask("POST", endpoint.path(), body);
            let base = bases.entry(without.to_string()).or_insert_with_key(|body| {
                let answer = ask(body);
                assert!(answer.starts_with("HTTP/1.1 200"), "{body}: {answer}");
                comparable(body_of(&answer))
            });
            let answer = ask(&with.to_string());
            let seen = answer.starts_with("HTTP/1.1 200") && *base != comparable(body_of(&answer));
            if !seen && !self.is_refusal(row, &answer) {
                wrong.push(format!("{} {} {}: {with}: {answer}", self.engine, endpoint.path(), row.name));
            }
        }
        wrong
    }

    /// A 400 whose `param` is the parameter, or inside it, and whose message names the model's engine or its template.
    fn is_refusal(&self, row: &Parameter, answer: &str) -> bool {
        let Ok(body) = serde_json::from_str::<Value>(body_of(answer)) else { return false };
        let field = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        let names_engine = field("message").contains(&format!("`{}`", self.engine));
        answer.starts_with("HTTP/1.1 400")
            && field("param").starts_with(row.name)
            && (names_engine || field("message").contains("template"))
    }
}

#[test]
fn every_parameter_has_an_effect_on_both_engines_or_is_refused_by_name() {
    let Some(file) = prerequisite("models/SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let config = config(temporary.path(), &[("gguf", &file, "gguf"), ("mlx", &file, "mlx")]);
    let server = &Server::start(&["--config", &config]);
    let of_engine = |engine| {
        let subject = Subject::of(server, engine);
        [Endpoint::Chat, Endpoint::Text].map(|endpoint| subject.without_effect(endpoint)).concat()
    };
    let wrong = std::thread::scope(|scope| {
        let both = ["gguf", "mlx"].map(|engine| scope.spawn(move || of_engine(engine)));
        both.map(|thread| thread.join().expect("it answers")).concat()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
