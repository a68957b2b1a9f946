//! What a run has measured so far, in a file: when an engine takes the process down, the next process goes on after the
//! block that was lost.
//!
//! One JSON value per line, each written and flushed before the next thing happens: how many blocks there are, that a visit
//! begins, that a block is done; after the blocks, that a stage begins, and what came of it. A line that broke off in the middle is the last thing that a process did.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::schedule::Counts;
use crate::agreement::{Agreement, Reference};
use crate::error::BenchError;
use crate::order::Side;
use crate::report::{Block, BlockKind, Lost};
use crate::scenario::ScenarioReport;
use crate::validity::Code;

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Entry {
    /// A process begins.
    Process {
        /// SHA-256 of the text's ids: another text is another run.
        ids_sha256: String,
    },
    /// How many blocks there are.
    Counts { n_aa: usize, n_pilot: usize, n_ab: usize, piloted: bool },
    /// A visit begins.
    Visit { block: usize, kind: BlockKind, order: String, arm: Side },
    /// The process was stopped because the visit did not end.
    Hung { seconds: u64 },
    /// A block is done.
    Block { block: Box<Block> },
    /// Something else went on.
    Alive,
    /// Something after the blocks begins.
    Stage { name: String },
    /// It is over.
    StageDone { name: String, came: Came },
}

/// What came of a stage, for the processes after this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Came {
    /// Nothing that has to be kept.
    Nothing,
    /// The comparison of logits.
    Agreement(Box<Agreement>),
    /// Both arms against the reference.
    Reference(Box<Reference>),
    /// A scenario.
    Scenario(Box<ScenarioReport>),
}

/// What earlier processes have made of a stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Past {
    /// None has come so far.
    New,
    /// One was lost in it, and how.
    Lost(String),
    /// It is over.
    Done(Came),
}

/// [`Entry::Alive`], after whatever broke off before it.
pub(super) const ALIVE: &str = "\n{\"entry\":\"alive\"}\n";

/// The file, and what was in it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Blocks of processes before this one, lost ones included.
    pub(super) blocks: Vec<Block>,
    /// What was decided on their number.
    counts: Option<(Counts, bool)>,
    /// Processes before this one.
    pub(super) n_processes: u32,
    /// Stages that were begun.
    stages: Vec<(String, Past)>,
}

impl Journal {
    /// Reads what is there, which may be nothing, and begins this process's part.
    ///
    /// # Errors
    /// `File`; `Option` for a file that is of another run.
    pub(super) fn open(path: &Path, ids_sha256: &str) -> Result<Self, BenchError> {
        let failed = |source| BenchError::File { path: path.to_owned(), source };
        let entries = read(path).map_err(failed)?;
        let (mut blocks, mut counts, mut n_processes) = (Vec::new(), None, 0);
        let mut begun: Option<(usize, BlockKind, String, Side)> = None;
        let mut hung = None;
        let mut stages: Vec<(String, Past)> = Vec::new();
        for entry in entries {
            match entry {
                Entry::Process { ids_sha256: of } if of != ids_sha256 => {
                    let message = format!("{} is of another run", path.display());
                    return Err(BenchError::Option { option: "journal", message });
                }
                Entry::Process { .. } => {
                    lose(&mut blocks, begun.take(), hung.take(), n_processes);
                    n_processes += 1;
                }
                Entry::Counts { n_aa, n_pilot, n_ab, piloted } => {
                    counts = Some((Counts { n_aa, n_pilot, n_ab }, piloted));
                }
                Entry::Visit { block, kind, order, arm } => begun = Some((block, kind, order, arm)),
                Entry::Hung { seconds } => {
                    hung = Some(seconds);
                    if let Some((_, past @ Past::Lost(_))) = stages.last_mut() {
                        *past =
                            Past::Lost(format!("nothing came for {seconds} s and its process was stopped"));
                    }
                }
                Entry::Stage { name } => {
                    stages.push((name, Past::Lost("its process ended in it".to_owned())))
                }
                Entry::StageDone { name, came } => {
                    stages.retain(|(known, _)| *known != name);
                    stages.push((name, Past::Done(came)));
                }
                Entry::Alive => {}
                Entry::Block { block } => {
                    blocks.push(*block);
                    begun = None;
                }
            }
        }
        lose(&mut blocks, begun, hung, n_processes);
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let mut journal = Self { path: path.to_owned(), file, blocks, counts, n_processes, stages };
        // After a line that broke off, one begins anew.
        journal.file.write_all(b"\n").map_err(failed)?;
        journal.write(&Entry::Process { ids_sha256: ids_sha256.to_owned() })?;
        Ok(journal)
    }

    /// The numbers of blocks that an earlier process decided on, and whether its pilot has spoken.
    pub(super) fn counts(&self) -> Option<(Counts, bool)> {
        self.counts
    }

    pub(super) fn decided(&mut self, counts: Counts, piloted: bool) -> Result<(), BenchError> {
        let Counts { n_aa, n_pilot, n_ab } = counts;
        self.write(&Entry::Counts { n_aa, n_pilot, n_ab, piloted })
    }

    pub(super) fn begin(
        &mut self,
        block: usize,
        kind: BlockKind,
        order: &str,
        arm: Side,
    ) -> Result<(), BenchError> {
        self.write(&Entry::Visit { block, kind, order: order.to_owned(), arm })
    }

    pub(super) fn done(&mut self, block: &Block) -> Result<(), BenchError> {
        self.write(&Entry::Block { block: Box::new(block.clone()) })
    }

    /// What earlier processes have made of a stage.
    pub(crate) fn past(&self, name: &str) -> Past {
        let found = self.stages.iter().rev().find(|(known, _)| known == name);
        found.map_or(Past::New, |(_, past)| past.clone())
    }

    /// Notes that a stage begins.
    pub(crate) fn begin_stage(&mut self, name: &str) -> Result<(), BenchError> {
        self.write(&Entry::Stage { name: name.to_owned() })
    }

    /// Notes that it is over.
    pub(crate) fn stage_done(&mut self, name: &str, came: Came) -> Result<(), BenchError> {
        self.write(&Entry::StageDone { name: name.to_owned(), came })
    }

    fn write(&mut self, entry: &Entry) -> Result<(), BenchError> {
        let failed = |source| BenchError::File { path: self.path.clone(), source };
        let line = serde_json::to_string(entry).map_err(|error| failed(error.into()))? + "\n";
        self.file.write_all(line.as_bytes()).map_err(failed)
    }
}

/// Notes in a journal that its process was stopped because nothing had happened for so long.
///
/// # Errors
/// Those of the file.
pub fn note_hang(path: &Path, seconds: u64) -> std::io::Result<()> {
    let line = serde_json::to_string(&Entry::Hung { seconds })?;
    OpenOptions::new().append(true).open(path)?.write_all(format!("\n{line}\n").as_bytes())
}

/// The block that was being measured when a process ended: void, and said so.
fn lose(
    blocks: &mut Vec<Block>,
    begun: Option<(usize, BlockKind, String, Side)>,
    hung: Option<u64>,
    n_processes: u32,
) {
    let Some((index, kind, order, arm)) = begun.filter(|(index, ..)| *index == blocks.len()) else { return };
    let (code, detail) = match hung {
        Some(seconds) => (Code::Hang, format!("nothing came for {seconds} s and its process was stopped")),
        None => {
            (Code::Crash, "its process ended in the middle of block ".to_owned() + &(index + 1).to_string())
        }
    };
    let restart = n_processes.saturating_sub(1);
    let lost = Some(Lost { code, arm, detail });
    blocks.push(Block { kind, restart, order, visits: Vec::new(), lost });
}

/// Every whole line that is understood; none for a file that is not there.
fn read(path: &Path) -> std::io::Result<Vec<Entry>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut entries = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        entries.extend(serde_json::from_slice(&line?).ok());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts { n_aa: 1, n_pilot: 0, n_ab: 4 }
    }

    #[test]
    fn what_was_begun_and_not_done_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let block = |order: &str| Block {
            kind: BlockKind::Ab,
            restart: 0,
            order: order.into(),
            visits: Vec::new(),
            lost: None,
        };
        let mut first = Journal::open(&path, "ids").unwrap();
        assert!(first.blocks.is_empty() && first.counts().is_none() && first.n_processes == 0);
        first.decided(counts(), false).unwrap();
        first.begin(0, BlockKind::Ab, "ABBA", Side::A).unwrap();
        first.done(&block("ABBA")).unwrap();
        first.begin(1, BlockKind::Ab, "BAAB", Side::B).unwrap();
        drop(first);
        let mut second = Journal::open(&path, "ids").unwrap();
        assert_eq!((second.n_processes, second.counts()), (1, Some((counts(), false))));
        let orders: Vec<&str> = second.blocks.iter().map(|block| block.order.as_str()).collect();
        assert_eq!(orders, ["ABBA", "BAAB"]);
        let lost = second.blocks[1].lost.as_ref().unwrap();
        assert_eq!((lost.code, lost.arm), (Code::Crash, Side::B));
        second.begin(2, BlockKind::Ab, "ABBA", Side::A).unwrap();
        drop(second);
        note_hang(&path, 77).unwrap();
        let third = Journal::open(&path, "ids").unwrap();
        let lost = third.blocks[2].lost.as_ref().unwrap();
        assert_eq!((lost.code, lost.arm, third.blocks[2].restart), (Code::Hang, Side::A, 1));
        assert!(lost.detail.contains("77 s"));
    }

    #[test]
    fn a_stage_is_new_lost_or_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut first = Journal::open(&path, "ids").unwrap();
        assert_eq!(first.past("one"), Past::New);
        first.begin_stage("one").unwrap();
        first.stage_done("one", Came::Nothing).unwrap();
        first.begin_stage("two").unwrap();
        drop(first);
        let mut second = Journal::open(&path, "ids").unwrap();
        assert_eq!(second.past("one"), Past::Done(Came::Nothing));
        assert_eq!(second.past("two"), Past::Lost("its process ended in it".into()));
        assert_eq!(second.past("three"), Past::New);
        second.begin_stage("three").unwrap();
        drop(second);
        note_hang(&path, 7).unwrap();
        let third = Journal::open(&path, "ids").unwrap();
        assert!(matches!(third.past("three"), Past::Lost(why) if why.contains("7 s")));
        assert!(matches!(third.past("two"), Past::Lost(why) if why.contains("ended")));
        assert!(third.blocks.is_empty(), "no block was begun");
    }

    #[test]
    fn a_process_that_dies_before_any_block_loses_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        drop(Journal::open(&path, "ids").unwrap());
        let second = Journal::open(&path, "ids").unwrap();
        assert!(second.blocks.is_empty() && second.n_processes == 1);
    }

    #[test]
    fn signs_of_life_are_no_blocks() {
        assert_eq!(serde_json::from_str::<Entry>(ALIVE).unwrap(), Entry::Alive);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, ALIVE.repeat(3)).unwrap();
        let journal = Journal::open(&path, "ids").unwrap();
        assert!(journal.blocks.is_empty() && journal.n_processes == 0);
    }

    #[test]
    fn broken_lines_are_passed_over_and_other_runs_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        drop(Journal::open(&path, "ids").unwrap());
        for broken in ["{\"entry\":\"block\",\"blo", "\u{0}\u{1}", "{}", "[1]", "{\"entry\":\"sleep\"}"] {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(broken.as_bytes()).unwrap();
            assert!(Journal::open(&path, "ids").unwrap().blocks.is_empty(), "{broken}");
        }
        let error = Journal::open(&path, "other ids").unwrap_err();
        assert!(error.to_string().contains("another run"), "{error}");
        assert!(matches!(Journal::open(dir.path(), "ids"), Err(BenchError::File { .. })), "a folder");
    }
}
