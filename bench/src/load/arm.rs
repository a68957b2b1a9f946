//! One side of a comparison: a server, running, and the name of the model to ask it for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::error::LoadError;
use super::prompts::VisitPrompts;
use super::server::{ServerCommand, ServerProcess};
use crate::clock::Clock;
use crate::http::{Answer, AnswerStream, Client, CompletionRequest, HttpError};

/// How an arm's server comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// It is started here, and stopped at the end.
    Command(ServerCommand),
    /// It runs already.
    Running {
        /// The arm's name in reports.
        arm: String,
        /// Where it listens.
        address: SocketAddr,
    },
}

impl Launch {
    /// The arm's name in reports.
    pub fn arm(&self) -> &str {
        match self {
            Self::Command(command) => &command.arm,
            Self::Running { arm, .. } => arm,
        }
    }
}

/// What a report says of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArmInfo {
    /// Its name.
    pub arm: String,
    /// Its command line, or the address of a server that ran already.
    pub command: String,
    /// What its program says of its version; filled by whoever starts it.
    pub version: Option<String>,
    /// The model it was asked for.
    pub model: String,
    /// What its answers say it is.
    pub system_fingerprint: Option<String>,
}

/// A server that answers.
pub struct Arm {
    launch: Launch,
    process: Option<ServerProcess>,
    client: Client,
    model: String,
    clock: Arc<dyn Clock>,
}

impl Arm {
    /// Starts the server if it has to be, waits until it answers, and asks for its first model.
    ///
    /// # Errors
    /// Those of [`ServerProcess`]; `Request` and `Answer` where it has no model.
    pub async fn start(launch: Launch, clock: Arc<dyn Clock>) -> Result<Self, LoadError> {
        let (process, address) = match &launch {
            Launch::Command(command) => {
                let process = ServerProcess::start(command)?;
                let address = process.address();
                (Some(process), address)
            }
            Launch::Running { address, .. } => (None, *address),
        };
        let client = Client::new(address, clock.clone());
        let mut arm = Self { launch, process, client, model: String::new(), clock };
        if let Some(process) = &mut arm.process {
            process.ready(&arm.client).await?;
        }
        arm.model = arm.first_model().await?;
        Ok(arm)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.launch.arm()
    }

    /// For the report, without what only answers or the program can tell.
    pub fn info(&self) -> ArmInfo {
        let command = match &self.launch {
            Launch::Command(command) => command.words.join(" "),
            Launch::Running { address, .. } => address.to_string(),
        };
        let (arm, model) = (self.name().to_owned(), self.model.clone());
        ArmInfo { arm, command, version: None, model, system_fingerprint: None }
    }

    /// Its server's process, where it is ours.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().and_then(ServerProcess::id)
    }

    /// Now, on the clock that answers are stamped with.
    pub(super) fn now(&self) -> Duration {
        self.client.now()
    }

    /// Stops the server as a service manager would and starts it again with the same command; what it keeps on disk is
    /// all that remains. A first request has been answered when this returns.
    ///
    /// # Errors
    /// As [`Arm::start`]; `Option` for a server that is not ours.
    pub(super) async fn restart(&mut self, prompts: &mut VisitPrompts<'_>) -> Result<(), LoadError> {
        let Some(process) = self.process.take() else {
            return Err(LoadError::Option(format!(
                "{}: only a server started here can be restarted",
                self.name()
            )));
        };
        process.stop().await?;
        *self = Self::start(self.launch.clone(), self.clock.clone()).await?;
        self.warm(prompts).await
    }

    /// A short request whose answer is thrown away, so that what comes next meets a loaded model and awake threads.
    ///
    /// # Errors
    /// `Request`.
    pub(super) async fn warm(&self, prompts: &mut VisitPrompts<'_>) -> Result<(), LoadError> {
        self.answer("the warm-up", prompts.prompt(32)?, 16).await.map(drop)
    }

    /// Sends a completion.
    ///
    /// # Errors
    /// `Request`.
    pub(super) async fn send(
        &self,
        during: &str,
        prompt: Vec<u32>,
        max_tokens: u32,
    ) -> Result<AnswerStream, LoadError> {
        let request = CompletionRequest::new(&self.model, prompt, max_tokens);
        self.client.complete(&request).await.map_err(|source| self.failed(during, source))
    }

    /// Sends a completion and waits for its end.
    ///
    /// # Errors
    /// `Request`; `Answer` for one without a token.
    pub(super) async fn answer(
        &self,
        during: &str,
        prompt: Vec<u32>,
        max_tokens: u32,
    ) -> Result<Answer, LoadError> {
        let stream = self.send(during, prompt, max_tokens).await?;
        let answer = stream.finish().await.map_err(|source| self.failed(during, source))?;
        match answer.pieces.is_empty() {
            true => Err(self.problem(format!("{during}: an answer without text"))),
            false => Ok(answer),
        }
    }

    /// An error that names this arm.
    pub(super) fn failed(&self, during: &str, source: HttpError) -> LoadError {
        LoadError::Request { arm: self.name().to_owned(), during: during.to_owned(), source }
    }

    /// Answers that give no figure.
    pub(super) fn problem(&self, problem: String) -> LoadError {
        LoadError::Answer { arm: self.name().to_owned(), problem }
    }

    /// Replaces an error by the server's end, if it has ended.
    pub(super) async fn explain(&mut self, error: LoadError) -> LoadError {
        match &mut self.process {
            Some(process) => process.ended().await.unwrap_or(error),
            None => error,
        }
    }

    /// Stops the server if it was started here.
    ///
    /// # Errors
    /// `Late` where it had to be killed.
    pub async fn stop(self) -> Result<(), LoadError> {
        match self.process {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    async fn first_model(&self) -> Result<String, LoadError> {
        let during = "the list of models";
        let answer = self.client.get("/v1/models").await.map_err(|source| self.failed(during, source))?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let name = body["data"][0]["id"].as_str();
        name.map(str::to_owned).ok_or_else(|| {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            self.problem(format!("{during} names none: {} {body}", answer.status))
        })
    }
}
