//! Layers and refusals, with files and variables of their own.

#![expect(clippy::result_large_err, reason = "figment's Jail gives its error by value")]

use std::path::Path;
use std::time::Duration;

use figment::Jail;

use super::*;

fn load() -> Result<ServerConfig, ConfigError> {
    ServerConfig::load(None, &RawConfig::default())
}

/// The whole line that a user sees for this file.
#[track_caller]
fn check_refused(file: &str, expected: &str) {
    Jail::expect_with(|jail| {
        jail.create_file("duet.toml", file)?;
        assert_eq!(load().unwrap_err().to_string(), expected, "{file}");
        Ok(())
    });
}

#[test]
fn with_nothing_at_all_there_are_defaults() {
    Jail::expect_with(|_| {
        let config = load().unwrap();
        assert_eq!((config.http.host.as_str(), config.http.port), ("127.0.0.1", 8080));
        assert_eq!(config.http.request_timeout, None);
        assert!(config.models.is_empty());
        Ok(())
    });
}

#[test]
fn later_layers_win_and_what_they_leave_out_stays() {
    Jail::expect_with(|jail| {
        jail.create_file(
            "duet.toml",
            "[server]\nport = 1\nhost = \"0.0.0.0\"\nmax_queue = 5\nrequest_timeout_s = 1.5\n\
             [models.a]\npath = \"a.gguf\"\ncontext = 10\nparallel = 2\n",
        )?;
        jail.set_env("DUET_SERVER__PORT", "2");
        jail.set_env("DUET_MODELS__A__CONTEXT", "20");
        jail.set_env("DUET_MODELS__B__PATH", "/models/b");
        jail.set_env("DUET_MODELS__B__ALIASES", "[\"x\", \"y\"]");
        jail.set_env("DUET_LOG", "debug");
        let mut flags = RawConfig::default();
        flags.server.port = Some(3);
        flags.models.insert("a".into(), RawModel { context: Some(30), ..RawModel::default() });
        let config = ServerConfig::load(None, &flags).unwrap();
        assert_eq!((config.http.host.as_str(), config.http.port), ("0.0.0.0", 3));
        assert_eq!(config.http.request_timeout, Some(Duration::from_millis(1500)));
        let [a, b] = config.models.as_slice() else { panic!("{config:?}") };
        assert_eq!((a.context, a.parallel, a.max_queue), (Some(30), Some(2), 5));
        assert_eq!(b.path, Path::new("/models/b"));
        assert_eq!(b.aliases, ["x", "y"]);
        Ok(())
    });
}

#[test]
fn variables_find_models_whatever_their_names() {
    Jail::expect_with(|jail| {
        jail.create_file("duet.toml", "[models.\"Qwen3-0.6b/it\"]\npath = \"q.gguf\"\n")?;
        jail.set_env("DUET_MODELS__QWEN3_0_6B_IT__ENGINE", "mlx");
        jail.set_env("DUET_MODELS__QWEN3_0_6B_IT__TEMPERATURE", "0.5");
        let config = load().unwrap();
        assert_eq!(config.models.len(), 1);
        assert_eq!(config.models[0].engine, EngineChoice::Named("mlx".into()));
        assert_eq!(config.models[0].sampling.temperature, Some(0.5));
        Ok(())
    });
}

#[test]
fn paths_are_relative_to_their_file() {
    Jail::expect_with(|jail| {
        jail.create_dir("etc")?;
        jail.create_file(
            "etc/my.toml",
            "[models.a]\npath = \"a.gguf\"\n[models.b]\npath = \"/abs/b.gguf\"\n",
        )?;
        let config = ServerConfig::load(Some(Path::new("etc/my.toml")), &RawConfig::default()).unwrap();
        assert_eq!(config.models[0].path, Path::new("etc/a.gguf"));
        assert_eq!(config.models[1].path, Path::new("/abs/b.gguf"));
        Ok(())
    });
}

#[test]
fn unknown_keys_name_file_key_and_a_near_match() {
    check_refused(
        "[server]\nprot = 1\n",
        "duet.toml: server.prot: unknown key; known here: host, port, max_body_bytes, max_queue, request_timeout_s, \
         body_timeout_s, shutdown_timeout_s, allowed_hosts, allowed_origins, unknown_fields; did you mean `port`?",
    );
    check_refused(
        "[sever]\n",
        "duet.toml: sever: unknown key; known here: server, models; did you mean `server`?",
    );
    Jail::expect_with(|jail| {
        jail.create_file("duet.toml", "[models.\"a.b\"]\npath = \"x\"\ncontxt = 1\n")?;
        let error = load().unwrap_err();
        assert_eq!((error.key.as_str(), error.near.as_deref()), ("models.a.b.contxt", Some("context")));
        jail.create_file("duet.toml", "")?;
        jail.set_env("DUET_SERVER__PROT", "1");
        let error = load().unwrap_err();
        assert_eq!((error.origin.as_deref(), error.key.as_str()), (Some("environment"), "server.prot"));
        Ok(())
    });
}

#[test]
fn wrong_types_and_broken_files() {
    check_refused(
        "[server]\nport = \"http\"\n",
        "duet.toml: server.port: expected u16, found string \"http\"",
    );
    check_refused(
        "[server]\nport = 70000\n",
        "duet.toml: server.port: expected u16, found signed int `70000`",
    );
    check_refused(
        "[models]\na = \"a.gguf\"\n",
        "duet.toml: models.a: expected a table, found string \"a.gguf\"",
    );
    Jail::expect_with(|jail| {
        for broken in ["[server", "port = ", "[server]\nport = 1\nport = 2", "\u{0}"] {
            jail.create_file("duet.toml", broken)?;
            let line = load().unwrap_err().to_string();
            assert!(line.starts_with("duet.toml: ") && !line.contains('\n'), "{line:?}");
        }
        let missing = ServerConfig::load(Some(Path::new("no.toml")), &RawConfig::default()).unwrap_err();
        assert_eq!(missing.to_string(), "no.toml: no such file");
        Ok(())
    });
}

#[test]
fn values_out_of_range_say_where_they_were_written() {
    let model = |fields: &str| format!("[models.\"a.1\"]\npath = \"a.gguf\"\n{fields}\n");
    check_refused("[server]\nhost = \" \"\n", "duet.toml: server.host: must not be empty");
    check_refused("[server]\nmax_queue = 0\n", "duet.toml: server.max_queue: must be at least 1, is 0");
    check_refused(
        "[server]\nshutdown_timeout_s = -1\n",
        "duet.toml: server.shutdown_timeout_s: must be a number of seconds above 0 (and under a year), is -1",
    );
    check_refused(
        "[server]\nunknown_fields = \"denny\"\n",
        "duet.toml: server.unknown_fields: unknown value `denny`; known: accept, deny; did you mean `deny`?",
    );
    check_refused("[models.a]\ncontext = 5\n", "models.a.path: missing: a model needs a path");
    check_refused(&model("context = 0"), "duet.toml: models.a.1.context: must be at least 1");
    check_refused(
        &model("context = 9\nkv_tokens = 8"),
        "duet.toml: models.a.1.kv_tokens: must be at least context (9), is 8",
    );
    check_refused(
        &model("temperature = 3.0"),
        "duet.toml: models.a.1.temperature: must be between 0 and 2, got 3",
    );
    check_refused(
        &model("kv_type = \"q8\""),
        "duet.toml: models.a.1.kv_type: unknown value `q8`; known: f16, bf16, f32, q8_0, q5_1, q5_0, q4_1, q4_0; did \
         you mean `q8_0`?",
    );
    check_refused(
        &model("weights = \"dens\""),
        "duet.toml: models.a.1.weights: unknown value `dens`; known: auto, packed, dense; did you mean `dense`?",
    );
    check_refused(
        &model("aliases = [\"b c\"]"),
        "duet.toml: models.a.1.aliases: \"b c\" is no name for a model: 1 to 200 bytes without spaces or control \
         characters",
    );
    check_refused(
        "[models.a]\npath = \"a\"\naliases = [\"b\"]\n[models.b]\npath = \"b\"\n",
        "duet.toml: models.a.aliases: `b` is a name of model `b` already",
    );
    check_refused(
        "[models.a]\npath = \"a\"\naliases = [\"c\"]\n[models.b]\npath = \"b\"\naliases = [\"c\"]\n",
        "duet.toml: models.b.aliases: `c` is a name of model `a` already",
    );
}
