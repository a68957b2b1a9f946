//! A server process of ours: started, waited for, stopped; never left behind.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::error::LoadError;
use crate::http::Client;

/// How to start a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCommand {
    /// The arm's name in reports.
    pub arm: String,
    /// Program and arguments; `{port}` in any of them becomes the port to listen on.
    pub words: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// How long it may take to load, and to stop.
    pub patience: Duration,
}

/// Time between two looks at a server that is loading.
const RETRY: Duration = Duration::from_millis(20);

/// A server's connections break before its process is seen to have ended.
const MOMENT: Duration = Duration::from_secs(1);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct ServerProcess {
    command: ServerCommand,
    child: Child,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts the server on a free port of the loopback interface. It is not ready yet.
    ///
    /// # Errors
    /// `Start`; `Option` for an empty command or one that does not say where the port goes.
    pub fn start(command: &ServerCommand) -> Result<Self, LoadError> {
        let failed =
            |source| LoadError::Start { arm: command.arm.clone(), command: command.words.join(" "), source };
        let Some((program, arguments)) = command.words.split_first() else {
            return Err(LoadError::Option(format!("{}: an empty command", command.arm)));
        };
        if !command.words.iter().any(|word| word.contains("{port}")) {
            let problem = "the command has no {port}, which stands for the port to listen on";
            return Err(LoadError::Option(format!("{}: {problem}", command.arm)));
        }
        let address = free_address().map_err(failed)?;
        let port = address.port().to_string();
        let log = File::options().create(true).append(true).open(&command.log).map_err(failed)?;
        let child = Command::new(program)
            .args(arguments.iter().map(|word| word.replace("{port}", &port)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { command: command.clone(), child, address })
    }

    /// Where it listens, or will.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id; `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until `/health` is 200: asks again and again, and looks whether the process is still there.
    ///
    /// # Errors
    /// `Exited`, `Late`.
    pub async fn ready(&mut self, client: &Client) -> Result<(), LoadError> {
        let healthy = async {
            // A refused connection, a reset, a 503: not yet.
            while !client.get("/health").await.is_ok_and(|answer| answer.status == 200) {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            status = self.child.wait() => Err(self.exited(status)),
            outcome = timeout(self.command.patience, healthy) => {
                outcome.map_err(|_| late(&self.command, "ready"))
            }
        }
    }

    /// How it ended, if it has or does within a moment; `None` for a server that goes on.
    pub async fn ended(&mut self) -> Option<LoadError> {
        let status = timeout(MOMENT, self.child.wait()).await.ok()?;
        Some(self.exited(status))
    }

    /// Asks it to stop, as a service manager would, and waits until it is gone; kills it if it takes too long.
    ///
    /// # Errors
    /// `Late` where it had to be killed.
    pub async fn stop(mut self) -> Result<(), LoadError> {
        terminate(&mut self.child);
        if timeout(self.command.patience, self.child.wait()).await.is_ok() {
            return Ok(());
        }
        let _ = self.child.kill().await; // it may have ended at the last moment
        Err(late(&self.command, "gone"))
    }

    fn exited(&self, status: std::io::Result<ExitStatus>) -> LoadError {
        let arm = self.command.arm.clone();
        match status {
            Ok(status) => LoadError::Exited { arm, status, log: end_of(&self.command.log) },
            Err(source) => LoadError::Start { arm, command: self.command.words.join(" "), source },
        }
    }
}

fn late(command: &ServerCommand, what: &'static str) -> LoadError {
    let (arm, limit) = (command.arm.clone(), command.patience);
    LoadError::Late { arm, what, limit, log: end_of(&command.log) }
}

/// A port that nobody listens on at this moment. Somebody else may take it before the server does; that shows as a server
/// that ends at once.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The last lines of a log.
fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(unix)]
fn terminate(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process};
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id {
        let _ = kill_process(id, Signal::TERM); // an error means that it has ended already
    }
}

#[cfg(not(unix))]
fn terminate(child: &mut Child) {
    let _ = child.start_kill();
}
