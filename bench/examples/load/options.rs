//! The command line.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use duet_bench::load::{Launch, LoadPlan, Scenario, ServerCommand, Sizes};

use crate::Failure;

/// Measures servers under load, one or two in turns.
#[derive(Debug, Parser)]
#[command(after_help = "\
An arm is NAME='COMMAND …' with {port} where the port goes, or NAME=ADDRESS:PORT of a server that runs already.
With two arms, each ratio is the first ÷ the second.")]
pub(crate) struct Options {
    /// A server to measure; once or twice
    #[arg(long, value_name = "NAME=SERVER", required = true)]
    arm: Vec<String>,
    /// Folder with the model's tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: PathBuf,
    /// What to do
    #[arg(long, value_enum, value_delimiter = ',', default_value = "streams")]
    scenarios: Vec<Kind>,
    /// streams: how many at once
    #[arg(long, value_delimiter = ',', default_value = "1,8,16")]
    streams: Vec<usize>,
    /// streams: tokens of each prompt
    #[arg(long)]
    prompt: Option<usize>,
    /// streams: tokens of each answer
    #[arg(long)]
    output: Option<u32>,
    /// shared-prefix: prompts at once
    #[arg(long)]
    sharers: Option<usize>,
    /// shared-prefix: tokens that the prompts begin with
    #[arg(long)]
    shared: Option<usize>,
    /// shared-prefix: tokens of each whole prompt
    #[arg(long)]
    shared_prompt: Option<usize>,
    /// long-prompt: tokens of the prompt that arrives
    #[arg(long)]
    long_prompt: Option<usize>,
    /// follow-up: tokens of the conversation
    #[arg(long)]
    conversation: Option<usize>,
    /// follow-up: stop and start the server between the turns
    #[arg(long)]
    restart: bool,
    /// Blocks: each does every scenario twice to each arm
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Chooses the prompts and the order of the arms [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds that a start or one visit may take
    #[arg(long, default_value_t = 600)]
    patience: u64,
    /// UTF-8 text that prompts are made of [default: a chapter that comes with duet]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Write the report with every instant to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Streams,
    SharedPrefix,
    LongPrompt,
    FollowUp,
}

impl Options {
    pub(crate) fn plan(&self) -> Result<LoadPlan, Failure> {
        let mut scenarios = Vec::new();
        for kind in &self.scenarios {
            match kind {
                Kind::Streams => scenarios.extend(self.streams.iter().map(|n| Scenario::Streams(*n))),
                Kind::SharedPrefix => scenarios.push(Scenario::SharedPrefix),
                Kind::LongPrompt => scenarios.push(Scenario::LongPrompt),
                Kind::FollowUp => scenarios.push(Scenario::FollowUp { restart: self.restart }),
            }
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        let patience = Duration::from_secs(self.patience);
        Ok(LoadPlan { scenarios, sizes: self.sizes(), n_blocks: self.blocks, seed, patience })
    }

    fn sizes(&self) -> Sizes {
        let default = Sizes::default();
        Sizes {
            prompt: self.prompt.unwrap_or(default.prompt),
            output: self.output.unwrap_or(default.output),
            sharers: self.sharers.unwrap_or(default.sharers),
            shared: self.shared.unwrap_or(default.shared),
            shared_prompt: self.shared_prompt.unwrap_or(default.shared_prompt),
            long_prompt: self.long_prompt.unwrap_or(default.long_prompt),
            conversation: self.conversation.unwrap_or(default.conversation),
            ..default
        }
    }

    pub(crate) fn launches(&self) -> Result<Vec<Launch>, Failure> {
        self.arm.iter().enumerate().map(|(index, arm)| self.launch(index, arm)).collect()
    }

    fn launch(&self, index: usize, arm: &str) -> Result<Launch, Failure> {
        let (name, server) = arm
            .split_once('=')
            .ok_or_else(|| format!("--arm {arm}: not NAME=COMMAND or NAME=ADDRESS:PORT"))?;
        if let Ok(address) = server.parse() {
            return Ok(Launch::Running { arm: name.to_owned(), address });
        }
        let words = shlex::split(server).ok_or_else(|| format!("--arm {name}: a quote is not closed"))?;
        let log = std::env::temp_dir().join(format!("duet-load-{}-{index}.log", std::process::id()));
        let patience = Duration::from_secs(self.patience);
        Ok(Launch::Command(ServerCommand { arm: name.to_owned(), words, log, patience }))
    }
}
