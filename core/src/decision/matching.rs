//! Whether a decision is about what is asked: every part of the key is compared, and the first that differs is named.

use super::{Decision, DecisionFile, EngineIdentity, MachineIdentity};

/// What is asked: the engine for a model here and now.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// [`crate::model::fingerprint`] of the model's files.
    pub fingerprint: &'a str,
    /// This machine.
    pub machine: &'a MachineIdentity,
    /// The engines of this build.
    pub engines: &'a [EngineIdentity],
    /// The time, RFC 3339 or anything jiff reads as a moment.
    pub now: jiff::Timestamp,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// A decision about exactly this.
    Decision(&'a Decision),
    /// Decisions about this model, none of which holds any more: the newest and why.
    Stale(&'a Decision, Stale),
    /// None about this model.
    Nothing,
}

/// Why a decision no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stale {
    /// It was made on another machine.
    #[error("it was made on another machine")]
    Machine,
    /// An engine has another version, or runs on another device, or is missing.
    #[error("engine `{id}` was {measured} when it was measured and is {now}")]
    Engine {
        /// Which engine.
        id: String,
        /// Its version and device then.
        measured: String,
        /// Now.
        now: String,
    },
    /// Its time is over.
    #[error("it expired on {on}")]
    Expired {
        /// When, as the file says.
        on: String,
    },
}

impl DecisionFile {
    /// The decision for this question. Of several the last one written.
    pub fn find(&self, question: Question<'_>) -> Found<'_> {
        let mut stale = None;
        let about =
            self.decisions.iter().filter(|decision| decision.model.fingerprint == question.fingerprint);
        for decision in about.rev() {
            match decision.staleness(question) {
                None => return Found::Decision(decision),
                Some(why) => {
                    stale.get_or_insert((decision, why));
                }
            }
        }
        stale.map_or(Found::Nothing, |(decision, why)| Found::Stale(decision, why))
    }
}

impl Decision {
    /// Why this decision does not hold for the question, as far as machine, engines and time go; `None` if it does.
    pub fn staleness(&self, question: Question<'_>) -> Option<Stale> {
        if !self.machine.is(question.machine) {
            return Some(Stale::Machine);
        }
        for measured in &self.engines {
            let now = question.engines.iter().find(|engine| engine.id == measured.id);
            if now != Some(measured) {
                let shown = |engine: &EngineIdentity| format!("{} on {}", engine.version, engine.device);
                let now = now.map_or_else(|| "not in this build".to_owned(), shown);
                return Some(Stale::Engine { id: measured.id.clone(), measured: shown(measured), now });
            }
        }
        // A moment that cannot be read has passed.
        let expires = self.expires.parse::<jiff::Timestamp>().ok();
        let over = expires.is_none_or(|expires| expires <= question.now);
        over.then(|| Stale::Expired { on: self.expires.clone() })
    }
}

impl MachineIdentity {
    /// Whether this is the same machine, or one just like it.
    pub fn is(&self, other: &Self) -> bool {
        let same = |a: &Self| (a.cpu.clone(), a.n_threads, a.arch.clone(), a.os.clone());
        same(self) == same(other)
            && self.memory_bytes.abs_diff(other.memory_bytes)
                <= self.memory_bytes.max(other.memory_bytes) / 16
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DecisionError, ModelIdentity};
    use super::*;

    fn machine() -> MachineIdentity {
        MachineIdentity {
            cpu: "Abacus 9".into(),
            n_threads: 8,
            arch: "x86_64".into(),
            memory_bytes: 32 << 30,
            os: "Debian 12".into(),
        }
    }

    fn engine(id: &str, version: &str) -> EngineIdentity {
        EngineIdentity { id: id.into(), version: version.into(), device: "CPU".into() }
    }

    fn decision(fingerprint: &str, expires: &str) -> Decision {
        let identity = ModelIdentity { name: "m".into(), fingerprint: fingerprint.into(), sha256: vec![] };
        Decision {
            model: identity,
            machine: machine(),
            engines: vec![engine("gguf", "1"), engine("mlx", "2")],
            decided: "2026-11-01T00:00:00Z".into(),
            expires: expires.into(),
            engine: Some("mlx".into()),
            reason: "faster".into(),
            probability: 0.99,
            expected_loss: 0.001,
            workloads: vec![],
            matrix: vec![],
            crossovers: vec![],
            grade: Some("B".into()),
            noise_floors: [("prefill".to_owned(), 0.01)].into(),
            codes: vec![],
            report_sha256: "0".into(),
            command: "duet bench m".into(),
        }
    }

    const LATER: &str = "2027-01-30T00:00:00Z";

    fn file() -> DecisionFile {
        let mut file = DecisionFile::default();
        file.put(decision("abc", LATER));
        file
    }

    #[track_caller]
    fn ask<'a>(
        file: &'a DecisionFile,
        machine: &MachineIdentity,
        engines: &[EngineIdentity],
        now: &str,
    ) -> Found<'a> {
        let now = now.parse().expect("a moment");
        file.find(Question { fingerprint: "abc", machine, engines, now })
    }

    const NOW: &str = "2026-11-23T08:00:00Z";

    #[test]
    fn a_decision_holds_for_what_was_measured_and_nothing_else() {
        let (file, engines) = (file(), [engine("mlx", "2"), engine("gguf", "1"), engine("third", "9")]);
        let Found::Decision(found) = ask(&file, &machine(), &engines, NOW) else { panic!("it holds") };
        assert_eq!(found.engine.as_deref(), Some("mlx"));
        let nearly = MachineIdentity { memory_bytes: (32 << 30) - (1 << 28), ..machine() };
        assert!(
            matches!(ask(&file, &nearly, &engines, NOW), Found::Decision(_)),
            "a little memory more or less"
        );
        for other in [
            MachineIdentity { cpu: "Abacus 10".into(), ..machine() },
            MachineIdentity { n_threads: 4, ..machine() },
            MachineIdentity { memory_bytes: 16 << 30, ..machine() },
            MachineIdentity { os: "Debian 13".into(), ..machine() },
        ] {
            assert!(
                matches!(ask(&file, &other, &engines, NOW), Found::Stale(_, Stale::Machine)),
                "{other:?}"
            );
        }
        let newer = [engine("mlx", "3"), engine("gguf", "1")];
        let Found::Stale(_, why) = ask(&file, &machine(), &newer, NOW) else { panic!("mlx is another") };
        assert_eq!(why.to_string(), "engine `mlx` was 2 on CPU when it was measured and is 3 on CPU");
        let Found::Stale(_, why) = ask(&file, &machine(), &newer[1..], NOW) else { panic!("mlx is gone") };
        assert!(why.to_string().ends_with("is not in this build"), "{why}");
        let expired = ask(&file, &machine(), &engines, "2027-02-01T00:00:00Z");
        assert!(matches!(expired, Found::Stale(_, Stale::Expired { .. })), "{expired:?}");
    }

    #[test]
    fn a_moment_that_cannot_be_read_has_passed() {
        let mut file = file();
        file.decisions[0].expires = "next year".into();
        let engines = [engine("gguf", "1"), engine("mlx", "2")];
        assert!(matches!(ask(&file, &machine(), &engines, NOW), Found::Stale(_, Stale::Expired { .. })));
    }

    #[test]
    fn another_model_has_none() {
        let mut file = file();
        file.decisions[0].model.fingerprint = "abd".into();
        assert_eq!(ask(&file, &machine(), &[], NOW), Found::Nothing);
    }

    #[test]
    fn a_new_decision_takes_the_place_of_its_elder() {
        let mut file = file();
        file.put(Decision { reason: "measured again".into(), ..decision("abc", LATER) });
        file.put(decision("other model", LATER));
        let swapped =
            Decision { engines: vec![engine("mlx", "2"), engine("gguf", "1")], ..decision("abc", LATER) };
        file.put(swapped);
        assert_eq!(file.decisions.len(), 3);
        assert_eq!(file.decisions[0].reason, "measured again");
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("deep/decisions.json");
        assert_eq!(DecisionFile::read_or_empty(&path).expect("none is empty"), DecisionFile::default());
        file().write(&path).expect("a place to write");
        assert_eq!(DecisionFile::read(&path).expect("it was written"), file());
        assert_eq!(
            std::fs::read_dir(path.parent().expect("deep")).expect("it is there").count(),
            1,
            "nothing beside it"
        );
    }

    #[test]
    fn broken_files_are_typed_errors() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("d.json");
        let good = serde_json::to_string(&file()).expect("json");
        let texts = [
            String::new(),
            "[]".into(),
            "{}".into(),
            "\u{0}".into(),
            good.replace("duet-decisions/1", "duet-decisions/2"),
            good.replace("0.99", "\"high\""),
            good.replace("\"engine\":\"mlx\",", "\"engine\":7,"),
            good[..good.len() / 2].into(),
            format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        ];
        for text in texts {
            std::fs::write(&path, &text).expect("a place to write");
            let error = DecisionFile::read(&path).expect_err("it is broken");
            let typed = matches!(error, DecisionError::Json { .. } | DecisionError::Schema { .. });
            assert!(typed, "{error:?}");
        }
        let long = std::fs::File::create(&path).expect("a file");
        long.set_len(DecisionFile::MAX_BYTES + 1).expect("a hole");
        assert!(matches!(DecisionFile::read(&path), Err(DecisionError::TooLong { .. })));
        assert!(matches!(DecisionFile::read(dir.path()), Err(DecisionError::Io { .. })));
    }
}
