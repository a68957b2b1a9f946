//! How much memory a load may take.

use std::sync::Arc;

/// What the machine (or the container) has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What can be had without swapping; pages of mapped files count as free.
    pub available_bytes: u64,
}

/// Asks for the memory as it is now.
pub type MemorySource = Arc<dyn Fn() -> Memory + Send + Sync>;

/// The machine's own memory, or the container's limit where that is lower.
pub fn system_memory() -> Memory {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let memory = Memory { total_bytes: system.total_memory(), available_bytes: system.available_memory() };
    match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 => Memory {
            total_bytes: memory.total_bytes.min(limits.total_memory),
            // Not `free_memory`, which counts cached file pages as used.
            available_bytes: memory.available_bytes.min(limits.total_memory.saturating_sub(limits.rss)),
        },
        _ => memory,
    }
}

impl Memory {
    /// What a further model may take beside models that were planned to take `resident_bytes`.
    ///
    /// Weights that are mapped from a file look free to the system, so what is planned counts as well as what is
    /// available.
    pub(super) fn budget_bytes(self, resident_bytes: u64) -> u64 {
        self.available_bytes.min(self.total_bytes.saturating_sub(resident_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_weights_of_a_resident_model_are_not_free() {
        let memory = Memory { total_bytes: 100, available_bytes: 90 };
        assert_eq!(memory.budget_bytes(0), 90);
        assert_eq!(memory.budget_bytes(60), 40);
        assert_eq!(memory.budget_bytes(200), 0);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = system_memory();
        assert!(memory.total_bytes >= memory.available_bytes && memory.available_bytes > 0, "{memory:?}");
    }
}
