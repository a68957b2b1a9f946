//! Threads for masks, apart from those that sample: a grammar that takes long may only keep other grammars waiting.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Parsers recurse little while they run; the library's own tests use the default.
const STACK_BYTES: usize = 16 << 20;
const MOST_THREADS: usize = 8;

/// The process's threads for masks, started by the first constrained request; `None` if they could not be.
pub(super) fn threads() -> Option<&'static ThreadPool> {
    static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let start = || {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        ThreadPoolBuilder::new()
            .num_threads(n_cores.clamp(1, MOST_THREADS))
            .stack_size(STACK_BYTES)
            .thread_name(|index| format!("duet-mask-{index}"))
            .build()
            .inspect_err(|error| tracing::error!(%error, "no threads for masks"))
            .ok()
    };
    THREADS.get_or_init(start).as_ref()
}
