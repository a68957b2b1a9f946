//! CPU time of the threads that serve.
//!
//! The kernel keeps a thread's whole CPU time to the nanosecond, but how it splits into user and system time is sampled at
//! its ticks. So sums are exact, and the split gets better the longer one measures; getrusage gives the same split for
//! all threads of a process at once, which does not let the thread be left out that makes the tokens.

use std::fs;
use std::ops::{Add, Sub};

/// In microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// User and system time.
    pub(crate) whole: f64,
    /// Of what was sampled.
    user_ticks: f64,
    system_ticks: f64,
}

/// tokio's name for its threads; the engine, clients and pacers have other ones.
const SERVING: &str = "tokio-rt-worker";

impl Cpu {
    /// Of tokio's threads so far.
    pub(crate) fn of_serving_threads() -> Self {
        let tasks = fs::read_dir("/proc/self/task").expect("Linux keeps CPU time per thread there");
        let serving = tasks.flatten().map(|task| task.path()).filter(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == SERVING)
        });
        serving.map(|task| of_thread(&task)).fold(Self::default(), Add::add)
    }

    /// User time per so many things.
    pub(crate) fn user(self, n: f64) -> f64 {
        self.whole * self.user_ticks / (self.user_ticks + self.system_ticks).max(1.0) / n
    }
}

fn of_thread(task: &std::path::Path) -> Cpu {
    let numbers = |file: &str, skip: &str| -> Vec<f64> {
        let text = fs::read_to_string(task.join(file)).unwrap_or_default();
        let rest = text.rsplit(skip).next().unwrap_or_default();
        rest.split_whitespace().map(|word| word.parse().unwrap_or_default()).collect()
    };
    let nanoseconds = numbers("schedstat", "\n\n").first().copied().unwrap_or_default();
    let stat = numbers("stat", ")");
    let field = |index: usize| stat.get(index).copied().unwrap_or_default();
    Cpu { whole: nanoseconds / 1e3, user_ticks: field(11), system_ticks: field(12) }
}

impl Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            whole: self.whole + other.whole,
            user_ticks: self.user_ticks + other.user_ticks,
            system_ticks: self.system_ticks + other.system_ticks,
        }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            whole: self.whole - other.whole,
            user_ticks: self.user_ticks - other.user_ticks,
            system_ticks: self.system_ticks - other.system_ticks,
        }
    }
}
