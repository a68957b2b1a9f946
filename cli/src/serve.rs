//! `duet serve`: one model from the command line, or those of a config file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use duet_server::{ApiError, ModelSummary, RawConfig, RawModel, Server, ServerConfig, Size};
use tokio::net::TcpListener;

use crate::model::{LoadArguments, file_name};
use crate::run::print;
use crate::say;

#[derive(Debug, Args)]
#[command(after_help = "\
Settings come from duet.toml, then from the environment (DUET_SERVER__PORT=9000), then from these flags.
Models of a config load when they are first asked for; MODEL loads at once.")]
pub(crate) struct ServeArguments {
    /// A .gguf file or an MLX directory to serve beside the configured models
    model: Option<PathBuf>,
    /// Config file [default: duet.toml in the working directory, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8080]
    #[arg(long)]
    port: Option<u16>,
    /// File of API keys, one per line; without keys only this machine is served
    #[arg(long, value_name = "FILE")]
    api_keys_file: Option<PathBuf>,
    /// Certificate chain as a PEM file, for HTTPS; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate as a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name of MODEL for clients [default: its file name]
    #[arg(long, requires = "model")]
    name: Option<String>,
    #[command(flatten)]
    load: LoadArguments,
    /// Requests of MODEL that run at once [default: what fits memory]
    #[arg(long, value_name = "N", requires = "model")]
    parallel: Option<u32>,
    /// KV cache that they share, in tokens [default: what fits memory]
    #[arg(long, value_name = "TOKENS", requires = "model")]
    kv_tokens: Option<u32>,
    /// Host memory for prefixes that had to leave the KV cache, as in 2GiB [default: an eighth of what is free, 4GiB at most]
    #[arg(long, value_name = "SIZE")]
    cache_ram: Option<Size>,
    /// A folder for prefixes, which are there again after a restart [default: none]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Most bytes of that folder [default: 8GiB]
    #[arg(long, value_name = "SIZE")]
    cache_disk: Option<Size>,
    /// Evaluate every prompt of MODEL as a whole
    #[arg(long, requires = "model")]
    no_prefix_cache: bool,
    /// A script of what models say instead of what they would, for tests of clients: one {"says": "…"} per line
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

pub(crate) async fn serve(arguments: ServeArguments) -> anyhow::Result<u8> {
    let started = Instant::now();
    let mut flags = RawConfig::default();
    flags.server.host.clone_from(&arguments.host);
    flags.server.port = arguments.port;
    let file = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    flags.server.api_keys_file = file(&arguments.api_keys_file)?.map(Into::into);
    flags.server.tls_cert = file(&arguments.tls_cert)?.map(Into::into);
    flags.server.tls_key = file(&arguments.tls_key)?.map(Into::into);
    flags.server.replay = file(&arguments.replay)?.map(Into::into);
    flags.cache.ram_bytes = arguments.cache_ram;
    flags.cache.disk_dir = arguments.cache_dir.as_deref().map(absolute).transpose()?.map(Into::into);
    flags.cache.disk_bytes = arguments.cache_disk;
    let model = match &arguments.model {
        Some(path) => Some(add_model(&mut flags, path, &arguments)?),
        None => {
            arguments.load.refuse_without_model()?;
            None
        }
    };
    let config = ServerConfig::load(arguments.config.as_deref(), &flags)?;
    anyhow::ensure!(
        !config.models.is_empty(),
        "nothing to serve: name a model (`duet serve model.gguf`) or a config file with a [models.<name>] table"
    );
    let address = format!("{}:{}", config.http.host, config.http.port);
    let scheme = if config.http.security.tls.is_some() { "https" } else { "http" };
    let server = Server::new(config, crate::compose::deciding_registry())?;
    if let Some(name) = &model {
        // Its headers are read before anything is bound or loaded: a wrong path costs no time.
        server.inspect().await;
        if let Some(error) = summary(&server, name).and_then(|summary| summary.error) {
            return Err(api_error(&error));
        }
    }
    // From here on a signal ends it in good order, whenever it comes.
    let signals = Signals::new();
    let listener =
        TcpListener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
    let url = format!("{scheme}://{}", listener.local_addr()?);
    print(&format!("duet {} listens on {url}\n", env!("CARGO_PKG_VERSION")))?;

    let (give_up, gave_up) = tokio::sync::oneshot::channel::<()>();
    let signal_came = Arc::new(AtomicBool::new(false));
    let stop = {
        let signal_came = signal_came.clone();
        async move {
            tokio::select! {
                () = signalled(signals) => {
                    signal_came.store(true, Ordering::Relaxed);
                    say("stopping; once more ends at once");
                }
                // Dropped without a word where nobody gives up: then only a signal ends it.
                Ok(()) = gave_up => {}
            }
        }
    };
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener, stop).await }
    });
    let mut code = 0;
    match &model {
        Some(name) => match server.load(name).await {
            Ok(()) => print(&ready(&server, name, started))?,
            // Told to stop before it was ready.
            Err(_) if signal_came.load(Ordering::Relaxed) => {}
            Err(error) => {
                say(&format!("duet: {}", api_error(&error)));
                code = 1;
                let _ = give_up.send(()); // an error means that it is stopping already
            }
        },
        None => {
            // What cannot be served is said once at the start; the others are.
            server.inspect().await;
            for summary in server.models() {
                print(&format!("{}\n", listed(&summary)))?;
            }
        }
    }
    serving.await.context("the server broke off")??;
    Ok(code)
}

/// Puts MODEL and its flags into the settings; gives its name.
fn add_model(flags: &mut RawConfig, path: &Path, arguments: &ServeArguments) -> anyhow::Result<String> {
    let name = arguments.name.clone().unwrap_or_else(|| {
        let file = file_name(path);
        file.strip_suffix(".gguf").unwrap_or(&file).to_owned()
    });
    let load = &arguments.load;
    let model = RawModel {
        path: Some(absolute(path)?.into()),
        engine: Some(load.engine.clone()),
        context: load.context,
        parallel: arguments.parallel,
        kv_tokens: arguments.kv_tokens,
        kv_type: load.kv_type.clone(),
        threads: load.threads,
        weights: Some(load.weights.clone()),
        prefix_cache: arguments.no_prefix_cache.then_some(false),
        ..RawModel::default()
    };
    flags.models.insert(name.clone(), model);
    Ok(name)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

fn summary(server: &Server, name: &str) -> Option<ModelSummary> {
    server.models().into_iter().find(|summary| summary.name == name)
}

fn listed(summary: &ModelSummary) -> String {
    match (&summary.error, summary.engine) {
        (Some(error), _) => format!("{}: cannot be served: {}", summary.name, api_error(error)),
        (None, engine) => format!(
            "{}: {} on {} ({})",
            summary.name,
            summary.quantization.as_deref().unwrap_or("?"),
            engine.unwrap_or("?"),
            summary.engine_reason.as_deref().unwrap_or("not inspected yet"),
        ),
    }
}

fn ready(server: &Server, name: &str, started: Instant) -> String {
    let Some(summary) = summary(server, name) else { return String::new() };
    let plan = summary.plan.clone().unwrap_or_default();
    format!("{}\n{plan}\nready after {:.1} s\n", listed(&summary), started.elapsed().as_secs_f64())
}

/// The message for the terminal: the public one with the chain of causes behind it.
fn api_error(error: &ApiError) -> anyhow::Error {
    match &error.diagnostic {
        Some(cause) if !error.message.contains(cause.as_ref()) => {
            anyhow::anyhow!("{}: {cause}", error.message)
        }
        _ => anyhow::anyhow!("{}", error.message),
    }
}

/// Resolves at the first SIGINT or SIGTERM; a second one ends the process.
async fn signalled(mut signals: Signals) {
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        crate::leave(130); // a second one means at once, whatever is left undone
    });
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let of = |kind| signal(kind).expect("the runtime has its signal driver on");
        Self(of(SignalKind::interrupt()), of(SignalKind::terminate()))
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.0.recv() => {} _ = self.1.recv() => {} }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
