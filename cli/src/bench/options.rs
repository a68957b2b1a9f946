//! From the command line to the bench's options.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use duet_bench::http::RemoteServer;
use duet_bench::scenario::{FreshStart, ScenarioKind, StartCommand};
use duet_bench::{BenchOptions, ReferenceModel, Subject, Text};

use super::RunArguments;
use crate::model::LoadArguments;

/// Engines' ids of servers, in the order of `--url`.
const SERVERS: [&str; 2] = ["http", "http2"];

/// The options of one process; the error is a sentence for the user.
pub(super) fn options(arguments: &RunArguments) -> Result<BenchOptions, String> {
    let subject = match &arguments.other {
        Some(other) => Subject::Pair(arguments.model.clone(), other.clone()),
        None => Subject::One(arguments.model.clone()),
    };
    let text = match (&arguments.text, &arguments.prompts) {
        (Some(path), _) => Text::File(path.clone()),
        (None, Some(name)) => prompts(name),
        (None, None) => Text::built_in(),
    };
    let mut options = match (arguments.quick, arguments.full) {
        (true, _) => BenchOptions::quick(subject, text),
        (_, true) => BenchOptions::full(subject, text),
        _ => BenchOptions::new(subject, text).with_usual_scenarios(),
    };
    scenarios(&mut options, arguments)?;
    for (id, url) in SERVERS.into_iter().zip(&arguments.urls) {
        options.servers.push(Arc::new(RemoteServer::new(id, url, options.clock.clone())?));
    }
    options.engines = match (&arguments.engines, arguments.urls.len()) {
        (None, 1) => Some(["auto", SERVERS[0]].map(str::to_owned)),
        (None, 2) => Some(SERVERS.map(str::to_owned)),
        (_, 3..) => return Err("two arms have two --url at most".to_owned()),
        (engines, _) => engines.clone(),
    };
    // An A/A run is its own noise floor.
    if arguments.other.is_none() && arguments.engines.as_ref().is_some_and(|[a, b]| a == b) {
        options.n_aa_blocks = 0;
    }
    let load = LoadArguments::of_kind(&arguments.weights, arguments.kv_type.as_deref());
    options.weights = load.weights();
    options.kv_type = load.kv_type();
    options.threads = arguments.threads;
    options.swap = arguments.swap;
    options.journal.clone_from(&arguments.journal);
    if !arguments.no_proof && !arguments.blocks_alone {
        options.same_bits = Some(Arc::new(crate::same_bits::Converted));
    }
    options.start = start_command(arguments);
    if !arguments.blocks_alone && !arguments.no_proof {
        options.reference.clone_from(&arguments.reference);
    }
    options.duet_version = env!("CARGO_PKG_VERSION").into();
    set(&mut options.n_processes, arguments.processes);
    set(&mut options.n_prompt, arguments.prompt);
    set(&mut options.n_decode, arguments.decode);
    set(&mut options.n_aa_blocks, arguments.self_blocks);
    set(&mut options.n_agreement, arguments.agreement);
    set(&mut options.seed, arguments.seed);
    set(&mut options.margin, arguments.margin.map(|percent| percent / 100.0));
    if arguments.blocks_alone {
        options.n_agreement = 0;
        options.scenarios.kinds.clear();
    }
    if let Some(most) = arguments.most_blocks {
        options.n_blocks = options.n_blocks.min(most);
    }
    if let Some(n_blocks) = arguments.blocks {
        (options.n_blocks, options.n_pilot_blocks, options.budget) = (n_blocks, 0, None);
    }
    Ok(options)
}

/// `duet run` with the arms' settings, which prints its first token when it is there.
fn start_command(arguments: &RunArguments) -> Option<StartCommand> {
    let program = std::env::current_exe().ok()?;
    let mut settings: Vec<String> =
        ["--raw", "--max-tokens", "2", "--temperature", "0"].map(str::to_owned).into();
    settings.extend(["--weights".to_owned(), arguments.weights.clone()]);
    settings.extend(arguments.kv_type.iter().flat_map(|kv_type| ["--kv-type".to_owned(), kv_type.clone()]));
    settings.extend(arguments.threads.iter().flat_map(|n| ["--threads".to_owned(), n.to_string()]));
    Some(Arc::new(move |start: &FreshStart<'_>| {
        let mut command = Command::new(&program);
        command.arg("run").args(["--engine", start.engine, "--context", &start.context_length.to_string()]);
        command.args(&settings).arg("--").arg(start.model).arg(start.prompt);
        command
    }))
}

/// A built-in set by its name, unless there is a folder in the name or a file of that name's kind.
fn prompts(name: &Path) -> Text {
    match name.to_str().filter(|_| name.extension().is_none() && name.components().count() == 1) {
        Some(name) => Text::Set(name.to_owned()),
        None => Text::Prompts(name.to_owned()),
    }
}

/// What is done beside single requests. What is asked for by name takes the time that it takes.
fn scenarios(options: &mut BenchOptions, arguments: &RunArguments) -> Result<(), String> {
    let scenarios = &mut options.scenarios;
    let names: Vec<&str> = match arguments.scenarios.iter().map(String::as_str).collect::<Vec<_>>() {
        names if names.is_empty() && arguments.full => vec!["all"],
        names => names,
    };
    match names.as_slice() {
        [] => {}
        ["none"] => scenarios.kinds.clear(),
        ["all"] => (scenarios.kinds, scenarios.budget) = (ScenarioKind::ALL.to_vec(), None),
        names => {
            let kinds: Result<Vec<ScenarioKind>, String> = names.iter().map(|name| name.parse()).collect();
            (scenarios.kinds, scenarios.budget) = (kinds?, None);
        }
    }
    for (flag, given, kind) in [
        ("--streams", !arguments.streams.is_empty(), ScenarioKind::Streams),
        ("--rate", arguments.rate.is_some(), ScenarioKind::Arrivals),
    ] {
        if given && !scenarios.kinds.contains(&kind) {
            return Err(format!(
                "{flag} is of the scenario `{kind}`, which is not asked for: --scenario {kind}"
            ));
        }
    }
    if !arguments.streams.is_empty() {
        scenarios.streams.clone_from(&arguments.streams);
    }
    scenarios.per_second = arguments.rate;
    if let Some(n_blocks) = arguments.self_blocks {
        scenarios.n_aa_blocks = n_blocks;
    }
    Ok(())
}

/// An engine's id before a colon, and a model.
pub(super) fn reference(text: &str) -> Result<ReferenceModel, String> {
    let is_id = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase());
    match text.split_once(':') {
        // One letter is a drive.
        Some((engine, path)) if is_id(engine) && engine.len() > 1 && !path.is_empty() => {
            Ok(ReferenceModel { engine: Some(engine.to_owned()), path: path.into() })
        }
        _ if text.is_empty() => Err("a model is needed".to_owned()),
        _ => Ok(ReferenceModel { engine: None, path: text.into() }),
    }
}

/// Two names with a comma between them.
pub(super) fn two(names: &str) -> Result<[String; 2], String> {
    match names.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(',') => Ok([a, b].map(str::to_owned)),
        _ => Err("takes two engines, as in gguf,mlx".to_owned()),
    }
}

fn set<T>(option: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *option = given;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::BenchArguments;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn parse(words: &str) -> Result<BenchArguments, clap::Error> {
        Ok(Line::try_parse_from(std::iter::once("bench").chain(words.split_whitespace()))?.bench)
    }

    #[test]
    fn a_model_alone_is_measured_on_both_engines() {
        let run = parse("m.gguf").unwrap().run.expect("a run");
        let options = options(&run).unwrap();
        assert_eq!(options.subject, Subject::One("m.gguf".into()));
        assert_eq!((options.engines, options.n_aa_blocks), (None, 6));
    }

    #[test]
    fn engines_are_two_names_before_or_after_the_model() {
        for words in ["--engines gguf,gguf m.gguf", "m.gguf --engines gguf,gguf"] {
            let options = options(&parse(words).unwrap().run.expect("a run")).unwrap();
            assert_eq!(options.engines, Some(["gguf".to_owned(), "gguf".to_owned()]));
            assert_eq!(options.n_aa_blocks, 0, "it is its own noise floor");
        }
        for words in ["gguf", "gguf,", ",mlx", "a,b,c"] {
            assert!(parse(&format!("m.gguf --engines {words}")).is_err(), "{words}");
        }
    }

    #[test]
    fn a_server_is_an_arm_beside_the_model_s_own_engine() {
        let options = |words| options(&parse(words).unwrap().run.expect("a run"));
        let one = options("m.gguf --url http://127.0.0.1:1").unwrap();
        assert_eq!(one.engines, Some(["auto".to_owned(), "http".to_owned()]));
        let two = options("m.gguf --url http://127.0.0.1:1 --url http://127.0.0.1:2/v1").unwrap();
        assert_eq!(two.servers.iter().map(|server| server.id()).collect::<Vec<_>>(), SERVERS);
        assert!(options("m.gguf --url ftp://x").unwrap_err().contains("http://"));
    }

    #[test]
    fn prompts_are_a_set_or_a_file() {
        let text = |words: &str| options(&parse(words).unwrap().run.expect("a run")).unwrap().text;
        assert_eq!(text("m.gguf --prompts rag"), Text::Set("rag".into()));
        for file in ["mine.jsonl", "./rag", "/a/b.txt"] {
            assert_eq!(text(&format!("m.gguf --prompts {file}")), Text::Prompts(file.into()));
        }
        assert!(parse("m.gguf --prompts rag --text x").is_err(), "one or the other");
    }

    #[test]
    fn a_reference_may_name_its_engine() {
        let named = |engine: Option<&str>, path: &str| {
            Ok(ReferenceModel { engine: engine.map(str::to_owned), path: path.into() })
        };
        assert_eq!(reference("mlx:/a/b"), named(Some("mlx"), "/a/b"));
        for plain in ["m.gguf", "/a:b/m", "C:\\m.gguf", ":m"] {
            assert_eq!(reference(plain), named(None, plain));
        }
        assert!(reference("").is_err());
        assert!(parse("m.gguf --reference f16.gguf --swap").is_err(), "three models, and one place");
    }

    #[test]
    fn scenarios_are_asked_for_by_name() {
        let options = |words: &str| options(&parse(words).unwrap().run.expect("a run"));
        let kinds = |words: &str| {
            options(words).map(|found| (found.scenarios.kinds, found.scenarios.budget.is_some()))
        };
        let usual = vec![ScenarioKind::Streams, ScenarioKind::SharedPrefix];
        assert_eq!(kinds("m.gguf"), Ok((usual, true)));
        assert_eq!(kinds("m.gguf --quick").unwrap().0, []);
        assert_eq!(kinds("m.gguf --full"), Ok((ScenarioKind::ALL.to_vec(), false)));
        assert_eq!(kinds("m.gguf --scenario none").unwrap().0, []);
        let two = vec![ScenarioKind::Load, ScenarioKind::Idle];
        assert_eq!(kinds("m.gguf --quick --scenario load,idle"), Ok((two, false)));
        for words in ["sprint", "all,load", "", "none,load", "Streams"] {
            let line = format!("m.gguf --scenario={words}");
            let error = kinds(&line).unwrap_err();
            assert!(error.contains("there is no scenario"), "{words}: {error}");
        }
        let given =
            options("m.gguf --scenario streams,arrivals --streams 1,16 --rate 2.5").unwrap().scenarios;
        assert_eq!((given.streams, given.per_second), (vec![1, 16], Some(2.5)));
        for words in
            ["--quick --streams 16", "--rate 2", "--scenario load --streams 1", "--scenario none --rate 1"]
        {
            let error = options(&format!("m.gguf {words}")).unwrap_err();
            assert!(error.contains("not asked for"), "{words}: {error}");
        }
    }

    #[test]
    fn a_command_needs_no_model_and_a_run_needs_one() {
        assert!(parse("show a.json").unwrap().command.is_some());
        assert!(parse("--quick").is_err(), "no model");
        assert!(parse("m.gguf --quick --full").is_err());
        assert!(parse("m.gguf --json r.json").unwrap().output.json.is_some());
    }
}
