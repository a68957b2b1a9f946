//! The program as a user runs it: both engines on the demo model, real clients, broken models, signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

// Beside this file `mod` would look among the tests that are programs of their own.
#[path = "end_to_end/async_openai.rs"]
mod async_openai;
#[path = "end_to_end/embeddings.rs"]
mod embeddings;
#[path = "end_to_end/parameters.rs"]
mod parameters;

const DUET: &str = env!("CARGO_BIN_EXE_duet");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root").to_owned()
}

/// A file that `make setup` makes. Missing, it fails the test under CI and skips it with a line elsewhere.
fn prerequisite(path: &str) -> Option<PathBuf> {
    let path = root().join(path);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing: run `make setup`", path.display());
    let _ = writeln!(std::io::stderr(), "skipped: {} is missing (`make setup`)", path.display());
    None
}

/// `duet serve`, ended with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(DUET)
            .envs(environment.iter().copied())
            .arg("serve")
            .args(arguments)
            .args(["--port", "0", "--log", "warn"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::piped())
            .spawn()
            .expect("duet starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("it speaks");
        let url = line.rsplit(' ').next().unwrap_or_default().trim().to_owned();
        assert!(url.starts_with("http://"), "the first line names the address: {line:?}");
        // The rest is read too, so that the program never waits for us.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, url }
    }

    /// Sends a request and gives the whole answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).expect("it listens");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // an error means that it ended already
        let _ = self.child.wait();
    }
}

fn duet(arguments: &[&str]) -> Output {
    Command::new(DUET).args(arguments).stdin(Stdio::null()).output().expect("duet runs")
}

#[track_caller]
fn fails_with_one_line(arguments: &[&str], wanted: &str) {
    let output = duet(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} succeeds");
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("duet: ")).collect();
    assert_eq!(said.len(), 1, "{text}");
    assert!(said[0].contains(wanted), "{text}");
}

fn config(folder: &Path, models: &[(&str, &Path, &str)]) -> String {
    let mut text = String::new();
    for (name, path, engine) in models {
        text.push_str(&format!(
            "[models.{name}]\npath = {path:?}\nengine = \"{engine}\"\ncontext = 512\nparallel = 2\n"
        ));
    }
    let path = folder.join("duet.toml");
    std::fs::write(&path, text).expect("the temporary folder can be written");
    path.display().to_string()
}

#[test]
fn the_openai_packages_work_on_both_engines() {
    let (Some(file), Some(folder)) = (
        prerequisite("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        prerequisite("models/SmolLM2-135M-Instruct-mlx"),
    ) else {
        return;
    };
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let config = config(
        temporary.path(),
        &[("smol-gguf", &file, "gguf"), ("smol-mlx", &file, "mlx"), ("smol-dir", &folder, "auto")],
    );
    let server = Server::start(&["--config", &config]);
    let models = ["smol-gguf", "smol-mlx", "smol-dir"];
    for (program, script) in
        [(".tools/bin/python", "openai_client.py"), (".tools/bin/node", "openai_client.mjs")]
    {
        let Some(program) = prerequisite(program) else { continue };
        let script = root().join("tests/clients").join(script);
        let output =
            Command::new(program).arg(script).arg(&server.url).args(models).output().expect("it starts");
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
    }
    assert_eq!(server.terminate(), Some(0));
}

/// The body of an answer.
fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |parts| parts.1)
}

/// A stream of so many tokens that has begun; more is read from it.
fn begin_stream(server: &Server, model: &str, max_tokens: u32) -> BufReader<TcpStream> {
    let host = server.url.trim_start_matches("http://");
    let body = format!(
        r#"{{"model":"{model}","prompt":"Once","max_tokens":{max_tokens},"ignore_eos":true,"stream":true}}"#
    );
    let mut stream = TcpStream::connect(host).expect("it listens");
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("it streams"), 0, "a first token comes");
    }
    lines
}

/// Ends a server under a running stream; gives the rest of the stream and the exit code.
fn stop_under_load(timeout: &str, max_tokens: u32) -> Option<(String, Option<i32>)> {
    let file = prerequisite("models/SmolLM2-135M-Instruct.Q4_1.gguf")?;
    let arguments = [&file.display().to_string(), "--name", "smol", "--context", "2048"];
    let server = Server::start_with(&arguments, &[("DUET_SERVER__SHUTDOWN_TIMEOUT_S", timeout)]);
    let mut lines = begin_stream(&server, "smol", max_tokens);
    let code = server.terminate();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("the stream ends");
    Some((rest, code))
}

#[test]
fn a_signal_lets_streams_end() {
    // Far longer than the slowest machine takes.
    let Some((rest, code)) = stop_under_load("3600", 60) else { return };
    // The key, not the word: the model may well say it.
    assert!(
        rest.contains("data: [DONE]") && !rest.contains("\"error\":"),
        "a running stream may end: {rest}"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn what_does_not_end_after_a_signal_is_cut_with_an_error() {
    // Over before the next token.
    let Some((rest, code)) = stop_under_load("0.000001", 1500) else { return };
    assert!(rest.contains("\"code\":\"shutting_down\"") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(code, Some(0), "whatever the engine was at");
}

#[test]
fn a_signal_during_a_load_is_no_failure() {
    let Some(file) = prerequisite("models/SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    for engine in ["gguf", "mlx"] {
        let server = Server::start(&[&file.display().to_string(), "--engine", engine]);
        assert_eq!(server.terminate(), Some(0), "{engine}");
    }
}

#[test]
fn settings_of_the_other_engine_are_refused() {
    let tiny = root().join("tests/fixtures/tiny-llama.gguf");
    let path = tiny.display().to_string();
    for engine in ["auto", "gguf"] {
        let of_engine = ["--weights", "dense", "--engine", engine];
        fails_with_one_line(&[&["run", &path, "a"], &of_engine[..]].concat(), "--weights has no effect");
        fails_with_one_line(
            &[&["serve", &path, "--port", "0"], &of_engine[..]].concat(),
            ".weights has no effect",
        );
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let models = ["auto", "gguf", "mlx"].map(|engine| (engine, tiny.as_path(), engine));
    let path = config(temporary.path(), &models);
    let mut text = std::fs::read_to_string(&path).expect("just written");
    text = text.replace("parallel = 2", "parallel = 2\nweights = \"packed\"");
    std::fs::write(&path, text).expect("the temporary folder can be written");
    let server = Server::start(&["--config", &path]);
    let ask = |model: &str| {
        let body = format!(r#"{{"model":"{model}","prompt":"a","max_tokens":2}}"#);
        server.ask("POST", "/v1/completions", &body)
    };
    for engine in ["auto", "gguf"] {
        let refused = ask(engine);
        assert!(
            refused.starts_with("HTTP/1.1 503") && refused.contains(&format!("models.{engine}.weights")),
            "{refused}"
        );
    }
    assert!(ask("mlx").starts_with("HTTP/1.1 200"));
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn broken_models_are_one_clear_line() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let cut = temporary.path().join("cut.gguf");
    let whole = std::fs::read(root().join("tests/fixtures/tiny-llama.gguf")).expect("a fixture");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("written");
    fails_with_one_line(&["serve", &cut.display().to_string(), "--port", "0"], "cut.gguf");
    fails_with_one_line(&["run", &cut.display().to_string(), "hello"], "cut.gguf");
    fails_with_one_line(&["serve", "no/such/model.gguf", "--port", "0"], "no/such/model.gguf");
    let config = temporary.path().join("bad.toml");
    std::fs::write(&config, "[server]\nprot = 80\n").expect("written");
    fails_with_one_line(&["serve", "--config", &config.display().to_string()], "prot");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = busy.local_addr().expect("bound").port().to_string();
    let tiny = root().join("tests/fixtures/tiny-llama.gguf").display().to_string();
    fails_with_one_line(&["serve", &tiny, "--port", &port], &port);
}

#[test]
fn a_missing_shard_is_typed_and_the_others_are_served() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let broken = temporary.path().join("broken");
    std::fs::create_dir(&broken).expect("created");
    let source = root().join("tests/fixtures/tiny-qwen2-sharded");
    for entry in std::fs::read_dir(source).expect("a fixture").map(|entry| entry.expect("readable")) {
        if !entry.file_name().to_string_lossy().contains("00002") {
            std::fs::copy(entry.path(), broken.join(entry.file_name())).expect("copied");
        }
    }
    let good = root().join("tests/fixtures/tiny-llama.gguf");
    let config = config(temporary.path(), &[("broken", &broken, "auto"), ("good", &good, "mlx")]);
    let server = Server::start(&["--config", &config]);
    let ask = |model: &str| {
        let body = format!(r#"{{"model":"{model}","prompt":"a","max_tokens":2}}"#);
        server.ask("POST", "/v1/completions", &body)
    };
    let refused = ask("broken");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("model_load_failed"), "{refused}");
    let answered = ask("good");
    assert!(answered.starts_with("HTTP/1.1 200") && answered.contains("\"engine\":\"mlx\""), "{answered}");
    assert!(server.ask("GET", "/v1/models", "").contains("\"broken\""));
}

#[test]
fn engines_tell_what_they_were_built_for() {
    let text = String::from_utf8(duet(&["engines", "--json"]).stdout).expect("text");
    assert!(text.contains("\"gguf\"") && text.contains("\"mlx\"") && text.contains("0.32.2"), "{text}");
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        assert!(text.contains("AVX512"), "llama.cpp was not built for this CPU: {text}");
    }
}
