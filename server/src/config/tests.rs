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
        "duet.toml: server.prot: unknown key; known here: host, port, max_body_bytes, max_queue, max_requests, \
         request_timeout_s, body_timeout_s, shutdown_timeout_s, allowed_hosts, allowed_origins, unknown_fields, api_keys_file, tls_cert, tls_key, header_timeout_s, write_timeout_s, max_connections, replay; did you mean `port`?",
    );
    check_refused(
        "[sever]\n",
        "duet.toml: sever: unknown key; known here: server, cache, models; did you mean `server`?",
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
        &model("kv_unified = \"yes\""),
        "duet.toml: models.a.1.kv_unified: expected a boolean, found string \"yes\"",
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

#[test]
fn sizes_have_units_or_none_and_the_folder_is_relative_to_its_file() {
    Jail::expect_with(|jail| {
        jail.create_dir("etc")?;
        jail.create_file(
            "etc/my.toml",
            "[cache]\nram_bytes = \"1.5GiB\"\ndisk_dir = \"prefixes\"\n\
             [models.a]\npath = \"a\"\nprefix_cache = false\n",
        )?;
        let load = || ServerConfig::load(Some(Path::new("etc/my.toml")), &RawConfig::default());
        let config = load().unwrap();
        let disk = DiskTierSpec { dir: "etc/prefixes".into(), max_bytes: 8 << 30 };
        assert_eq!(config.cache, CacheConfig { ram_bytes: Some(3 << 29), disk: Some(disk) });
        assert!(!config.models[0].prefix_cache);
        assert_eq!(config.models[0].stream_slowdown, 1.8);
        jail.set_env("DUET_CACHE__RAM_BYTES", "0");
        jail.set_env("DUET_CACHE__DISK_BYTES", "20 MiB");
        jail.set_env("DUET_MODELS__A__PREFIX_CACHE", "true");
        let config = load().unwrap();
        let disk = DiskTierSpec { dir: "etc/prefixes".into(), max_bytes: 20 << 20 };
        assert_eq!(config.cache, CacheConfig { ram_bytes: Some(0), disk: Some(disk) });
        assert!(config.models[0].prefix_cache);
        let mut flags = RawConfig::default();
        flags.cache.ram_bytes = Some(Size(7));
        let config = ServerConfig::load(Some(Path::new("etc/my.toml")), &flags).unwrap();
        assert_eq!(config.cache.ram_bytes, Some(7));
        assert!(config.cache.disk.is_some(), "a flag that was not given changes nothing");
        Ok(())
    });
}

#[test]
fn what_is_wrong_with_the_cache_names_file_and_key() {
    for (value, shown) in [
        ("-1", "signed int `-1`"),
        ("1.5", "float `1.5`"),
        ("true", "bool true"),
        ("[]", "sequence"),
        ("\"2 gigs\"", "string \"2 gigs\""),
        ("\"\"", "string \"\""),
        ("\"-2GiB\"", "string \"-2GiB\""),
        ("\"99999999EiB\"", "string \"99999999EiB\""),
    ] {
        let expected = "expected a number of bytes or a size such as \"2GiB\", found";
        check_refused(
            &format!("[cache]\nram_bytes = {value}\n"),
            &format!("duet.toml: cache.ram_bytes: {expected} {shown}"),
        );
    }
    check_refused(
        "[cache]\ndisk_bytes = \"2GiB\"\n",
        "duet.toml: cache.disk_bytes: has no effect without a folder in cache.disk_dir",
    );
    check_refused(
        "[cache]\ndisk_dir = \"x\"\ndisk_bytes = 1000\n",
        "duet.toml: cache.disk_bytes: must be at least 1048576 (1MiB), is 1000",
    );
    check_refused("[cache]\ndisk_dir = \"\"\n", "duet.toml: cache.disk_dir: must not be empty");
    check_refused(
        "[cache]\nram = 1\n",
        "duet.toml: cache.ram: unknown key; known here: ram_bytes, disk_dir, disk_bytes; did you mean `ram_bytes`?",
    );
    check_refused(
        "[models.a]\npath = \"a\"\nprefix_cache = \"no\"\n",
        "duet.toml: models.a.prefix_cache: expected a boolean, found string \"no\"",
    );
    check_refused(
        "[server]\nreplay = \"none.jsonl\"\n",
        "duet.toml: server.replay: none.jsonl: No such file or directory (os error 2)",
    );
    for table in ["cache", "server", "models"] {
        check_refused(
            &format!("{table} = 1\n"),
            &format!(
                "duet.toml: {table}: expected {}, found signed int `1`",
                if table == "models" { "a map" } else { "a table" }
            ),
        );
    }
    check_refused("[server]\nmax_requests = 0\n", "duet.toml: server.max_requests: must be at least 1, is 0");
    for (slowdown, shown) in
        [("0.99", "0.99"), ("-2", "-2"), ("nan", "NaN"), ("inf", "inf"), ("1001", "1001")]
    {
        check_refused(
            &format!("[models.a]\npath = \"a\"\nstream_slowdown = {slowdown}\n"),
            &format!("duet.toml: models.a.stream_slowdown: must be between 1 and 1000, is {shown}"),
        );
    }
}
