//! The machine's state while a visit ran: what other processes took, clocks, swapping, power. Linux only so far; what a
//! system does not tell is `None` and can raise no finding.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine's state while one visit ran.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Share of all CPU time, 0 to 1, that other processes and the hypervisor took meanwhile; absent for visits that are
    /// too short for the system's count of ticks.
    pub others_cpu: Option<f64>,
    /// Mean clock of the CPUs at the end, in MHz.
    pub clock_mhz: Option<f64>,
    /// How often CPUs were throttled for their temperature meanwhile.
    pub n_throttled: Option<u64>,
    /// Bytes read back from swap meanwhile, by the whole machine.
    pub swapped_in_bytes: Option<u64>,
    /// Whether the machine ran on battery at the end.
    pub on_battery: Option<bool>,
}

/// One reading, to be compared with a later one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    cpu: Option<CpuTicks>,
    own: Option<u64>,
    n_throttled: Option<u64>,
    pages_in: Option<u64>,
}

/// Ticks of all CPUs together since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuTicks {
    busy: u64,
    all: u64,
}

/// Fewer ticks than this make no share: half a second of one CPU.
const LEAST_TICKS: u64 = 50;
/// Of x86 and of ARM as llama.cpp and MLX run on them; swapping counts pages.
const PAGE_BYTES: u64 = 4096;

impl Reading {
    /// The machine now. Reads a few small files; well below a millisecond per CPU.
    pub(crate) fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self {
            cpu: read("/proc/stat").and_then(|text| cpu_ticks(&text)),
            own: read("/proc/self/stat").and_then(|text| own_ticks(&text)),
            n_throttled: throttle_count(Path::new("/sys/devices/system/cpu")),
            pages_in: read("/proc/vmstat").and_then(|text| counter(&text, "pswpin")),
        }
    }

    /// What happened since this reading.
    pub(crate) fn until_now(&self) -> Environment {
        let mut found = self.until(&Self::now());
        found.clock_mhz = clock_mhz(Path::new("/sys/devices/system/cpu"));
        found.on_battery = on_battery(Path::new("/sys/class/power_supply"));
        found
    }

    fn until(&self, later: &Self) -> Environment {
        let since = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
        Environment {
            others_cpu: self.others(later),
            clock_mhz: None,
            n_throttled: since(later.n_throttled, self.n_throttled),
            swapped_in_bytes: since(later.pages_in, self.pages_in).map(|pages| pages * PAGE_BYTES),
            on_battery: None,
        }
    }

    fn others(&self, later: &Self) -> Option<f64> {
        let all = later.cpu?.all.checked_sub(self.cpu?.all)?;
        let busy = later.cpu?.busy.checked_sub(self.cpu?.busy)?;
        let own = later.own?.checked_sub(self.own?)?;
        // The two counts are not taken at one moment, so that `own` may be ahead by a tick.
        (all >= LEAST_TICKS).then(|| busy.saturating_sub(own) as f64 / all as f64)
    }
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal, then guest times that user holds already.
fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Option<Vec<u64>> = line.split_whitespace().take(8).map(|field| field.parse().ok()).collect();
    let fields = fields.filter(|fields| fields.len() == 8)?;
    let all: u64 = fields.iter().try_fold(0u64, |sum, ticks| sum.checked_add(*ticks))?;
    Some(CpuTicks { busy: all - fields[3] - fields[4], all })
}

/// utime + stime of /proc/self/stat, fields 14 and 15; the name before them may hold spaces and brackets.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    fields.next()?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)
}

/// A line "NAME COUNT".
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The folders cpu0, cpu1, … below `dir`.
fn cpus(dir: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("cpu"));
        name.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn clock_mhz(dir: &Path) -> Option<f64> {
    let clocks: Vec<f64> = cpus(dir)
        .filter_map(|cpu| number(&cpu.join("cpufreq/scaling_cur_freq")))
        .map(|khz| khz as f64 / 1000.0)
        .collect();
    crate::stats::mean(&clocks)
}

fn throttle_count(dir: &Path) -> Option<u64> {
    let counts: Vec<u64> =
        cpus(dir).filter_map(|cpu| number(&cpu.join("thermal_throttle/core_throttle_count"))).collect();
    (!counts.is_empty()).then(|| counts.into_iter().fold(0, u64::saturating_add))
}

/// Whether a mains supply is there and off; without one nothing is known (a server has none, and no battery).
fn on_battery(dir: &Path) -> Option<bool> {
    let mut mains = None;
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let kind = std::fs::read_to_string(entry.path().join("type")).unwrap_or_default();
        if kind.trim() == "Mains" {
            let online = number(&entry.path().join("online")) == Some(1);
            mains = Some(mains.unwrap_or(false) || online);
        }
    }
    mains.map(|online: bool| !online)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 5 20 800 50 3 2 20 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1 2\n";

    #[test]
    fn ticks_are_read() {
        assert_eq!(cpu_ticks(STAT), Some(CpuTicks { busy: 150, all: 1000 }));
        let own = "42 (a) b) R 1 2 3 4 5 6 7 8 9 10 31 11 0 0 20 0 4";
        assert_eq!(own_ticks(own), Some(42));
        assert_eq!(counter("pswpin_x 9\npswpin 3\n", "pswpin"), Some(3));
    }

    #[test]
    fn broken_texts_are_none() {
        for text in ["", "cpu", "cpu 1 2 3", "cpu  a b c d e f g h", "cpu  1 2 3 -4 5 6 7 8"] {
            assert_eq!(cpu_ticks(text), None, "{text}");
        }
        let huge = format!("cpu  {0} {0} 1 1 1 1 1 1", u64::MAX);
        assert_eq!(cpu_ticks(&huge), None);
        for text in
            ["", "1 (a", "1 (a) R 1", "1 (a) R 1 2 3 4 5 6 7 8 9 10 x 11", "1 (a) R 1 2 3 4 5 6 7 8 9 10 1"]
        {
            assert_eq!(own_ticks(text), None, "{text}");
        }
        assert_eq!((counter("pswpin", "pswpin"), counter("pswpin x", "pswpin")), (None, None));
    }

    #[test]
    fn a_share_of_the_time() {
        let reading = |busy, all, own| Reading {
            cpu: Some(CpuTicks { busy, all }),
            own: Some(own),
            n_throttled: Some(own),
            pages_in: None,
        };
        let found = reading(100, 1000, 50).until(&reading(200, 1200, 110));
        assert_eq!(found.others_cpu, Some(0.2));
        assert_eq!((found.n_throttled, found.swapped_in_bytes), (Some(60), None));
        assert_eq!(reading(0, 0, 0).until(&reading(49, 49, 0)).others_cpu, None, "too short");
        assert_eq!(reading(9, 9, 9).until(&reading(0, 0, 0)).others_cpu, None, "counters that went back");
    }

    #[test]
    fn files_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!((clock_mhz(dir.path()), throttle_count(dir.path())), (None, None));
        assert_eq!(on_battery(dir.path()), None);
        for (cpu, khz) in [("cpu0", "3000000\n"), ("cpu12", "1000000"), ("cpufreq", "9"), ("cpu3x", "9")] {
            write(&format!("{cpu}/cpufreq/scaling_cur_freq"), khz);
        }
        write("cpu0/thermal_throttle/core_throttle_count", "7");
        assert_eq!((clock_mhz(dir.path()), throttle_count(dir.path())), (Some(2000.0), Some(7)));
        write("BAT0/type", "Battery\n");
        assert_eq!(on_battery(dir.path()), None);
        write("AC/type", "Mains\n");
        write("AC/online", "0\n");
        assert_eq!(on_battery(dir.path()), Some(true));
        write("ADP1/type", "Mains");
        write("ADP1/online", "1");
        assert_eq!(on_battery(dir.path()), Some(false), "one of two supplies is enough");
    }
}
