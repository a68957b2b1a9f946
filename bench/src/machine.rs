//! The machine a measurement is from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine a measurement is from. Absent figures are `None`, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// The processor's name.
    pub cpu: Option<String>,
    /// Physical cores.
    pub n_cores: Option<usize>,
    /// Threads that run at once.
    pub n_threads: usize,
    /// The processor's architecture ("x86_64").
    pub arch: String,
    /// Main memory.
    pub memory_bytes: u64,
    /// The operating system with its version.
    pub os: Option<String>,
    /// The kernel's version.
    pub kernel: Option<String>,
}

impl Machine {
    /// Memory that processes could still have here, in bytes.
    pub fn available_bytes() -> u64 {
        let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        System::new_with_specifics(kind).available_memory()
    }

    /// This one. Milliseconds.
    pub fn this() -> Self {
        let kind = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(kind);
        let some = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        Self {
            cpu: system.cpus().first().and_then(|cpu| some(cpu.brand())),
            n_cores: System::physical_core_count(),
            n_threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            arch: std::env::consts::ARCH.to_owned(),
            memory_bytes: system.total_memory(),
            os: System::long_os_version(),
            kernel: System::kernel_version(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_thread() {
        let machine = Machine::this();
        assert!(machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!((1..=machine.memory_bytes).contains(&Machine::available_bytes()));
        assert!(machine.n_threads > 0 && !machine.arch.is_empty());
    }
}
