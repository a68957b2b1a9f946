//! Who used the processor meanwhile: the server, or somebody else on the machine.

use std::time::Duration;

/// Processor time since the machine or process started, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// All cores, all processes, time stolen by a hypervisor included.
    machine: u64,
    /// The server and this process.
    ours: u64,
    /// The server alone.
    server: u64,
    server_id: u32,
}

/// Linux reports in units of USER_HZ, which is 100 on every architecture that duet runs on.
const TICKS_PER_SECOND: f64 = 100.0;

impl CpuTimes {
    /// Now; `None` where the system has no /proc, or the server is not a process of ours.
    pub(super) fn read(server: Option<u32>) -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let machine = machine_ticks(&read("/proc/stat")?)?;
        let server_id = server?;
        let server = process_ticks(&read(&format!("/proc/{server_id}/stat"))?)?;
        let own = process_ticks(&read("/proc/self/stat")?)?;
        Some(Self { machine, ours: server.saturating_add(own), server, server_id })
    }

    /// Cores that were busy for the server and for others since `before`, on average over `wall`; `None` if the server is
    /// another process by now, or no time has passed.
    pub(super) fn cores_since(&self, before: &Self, wall: Duration) -> Option<(f64, f64)> {
        if self.server_id != before.server_id || wall.is_zero() {
            return None;
        }
        let cores = |ticks: u64| ticks as f64 / TICKS_PER_SECOND / wall.as_secs_f64();
        let server = self.server.checked_sub(before.server)?;
        let machine = self.machine.checked_sub(before.machine)?;
        let ours = self.ours.checked_sub(before.ours)?;
        // Counters of processes and of the machine are not read at the same instant.
        Some((cores(server), cores(machine.saturating_sub(ours))))
    }
}

/// Busy ticks of /proc/stat's first line: user, nice, system, irq, softirq and steal.
fn machine_ticks(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map(|n| n.parse().ok()).collect::<Option<_>>()?;
    (ticks.len() >= 8).then(|| [0, 1, 2, 5, 6, 7].iter().map(|&index| ticks[index]).sum())
}

/// User and system ticks of /proc/PID/stat, whose second field may hold anything, in parentheses.
fn process_ticks(text: &str) -> Option<u64> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields.get(11)?.parse::<u64>().ok()?.checked_add(fields.get(12)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read() {
        let stat = "cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(machine_ticks(stat), Some(10 + 20 + 30 + 6 + 7 + 8));
        let process = "42 (a) b) R) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20 0 1 0 1 1 1\n";
        assert_eq!(process_ticks(process), Some(100));
    }

    #[test]
    fn other_texts_are_none() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu  1 2 3 4 5 6 7 x", "intr 1"] {
            assert_eq!(machine_ticks(text), None, "{text}");
        }
        for text in
            ["", "42 (a) S 1", "42 a S 1 2 3 4 5 6 7 8 9 10 70 30", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x 30"]
        {
            assert_eq!(process_ticks(text), None, "{text}");
        }
        assert_eq!(process_ticks(&format!("1 (a) S 1 2 3 4 5 6 7 8 9 10 {} 1", u64::MAX)), None);
    }

    #[test]
    fn what_others_used_is_the_rest() {
        let before = CpuTimes { machine: 1000, ours: 100, server: 90, server_id: 7 };
        let after = CpuTimes { machine: 1400, ours: 300, server: 280, server_id: 7 };
        let wall = Duration::from_secs(2);
        assert_eq!(after.cores_since(&before, wall), Some((0.95, 1.0)));
        assert_eq!(after.cores_since(&CpuTimes { server_id: 8, ..before }, wall), None, "restarted");
        assert_eq!(before.cores_since(&after, wall), None, "counters do not go back");
        assert_eq!(after.cores_since(&before, Duration::ZERO), None);
    }

    #[test]
    fn this_process_can_be_read_where_there_is_proc() {
        let found = CpuTimes::read(Some(std::process::id()));
        assert_eq!(found.is_some(), std::path::Path::new("/proc/stat").exists());
        assert_eq!(CpuTimes::read(None), None);
    }
}
