//! Percentiles, medians, and what all of it was measured on.

/// The value below which this share of them lies.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

/// `p50 … p99 … max …` of microseconds.
pub(crate) fn latencies(sorted: &[f64]) -> String {
    format!(
        "p50 {:6.0} us   p99 {:6.0} us   max {:6.0} us",
        percentile(sorted, 0.5),
        percentile(sorted, 0.99),
        percentile(sorted, 1.0)
    )
}

/// CPU, cores and how busy they are.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown");
    format!("{}, {cores} cores, load average {load} before this run", name.unwrap_or("unknown CPU"))
}
