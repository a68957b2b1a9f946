//! A start from nothing at all: a new process that loads the model and answers.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::clock::Clock;

/// What a new process shall do: load a model on an engine, and print its first token as soon as it is there.
#[derive(Debug, Clone, Copy)]
pub struct FreshStart<'a> {
    /// The engine's id.
    pub engine: &'a str,
    /// The model.
    pub model: &'a Path,
    /// The prompt as text.
    pub prompt: &'a str,
    /// Room for so many tokens.
    pub context_length: u32,
}

/// Makes the command of such a process; given by whoever knows the program.
pub type StartCommand = Arc<dyn Fn(&FreshStart<'_>) -> std::process::Command + Send + Sync>;

/// From just before the process is started to the first thing that it prints; waits for its end.
///
/// # Errors
/// That it cannot be started, or ended without printing anything, in a sentence.
///
/// # Cancel safety
/// Dropping the future kills the process.
pub(super) async fn first_output(
    command: std::process::Command,
    clock: &dyn Clock,
) -> Result<Duration, String> {
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let began = clock.now();
    let mut child = command.spawn().map_err(|error| format!("a new process cannot be started: {error}"))?;
    let mut output = child.stdout.take().ok_or("a new process has no output")?;
    let mut buffer = [0u8; 1024];
    let mut n = output.read(&mut buffer).await.map_err(|error| error.to_string())?;
    let passed = clock.now().saturating_sub(began);
    let printed = n > 0;
    while n > 0 {
        n = output.read(&mut buffer).await.map_err(|error| error.to_string())?;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    match printed && status.success() {
        true => Ok(passed),
        false => Err(format!("a new process gave no answer ({status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn sh(script: &str) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_first_output_counts_and_the_end_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ended");
        let script = format!("echo one; echo two; touch {}", file.display());
        let time = first_output(sh(&script), &SystemClock::default()).await.unwrap();
        assert!(time > Duration::ZERO && file.exists());
    }

    #[tokio::test]
    async fn a_process_that_gives_nothing_is_an_error() {
        for (script, part) in [("exit 0", "no answer"), ("exit 3", "3"), ("echo half; exit 4", "4")] {
            let error = first_output(sh(script), &SystemClock::default()).await.unwrap_err();
            assert!(error.contains(part), "{script}: {error}");
        }
        let missing = std::process::Command::new("/no/such/program");
        let error = first_output(missing, &SystemClock::default()).await.unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }
}
