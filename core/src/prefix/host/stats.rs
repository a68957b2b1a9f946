//! Counters of the tier.

/// What the tier holds and has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HostTierStats {
    /// Entries that can be found.
    pub n_entries: usize,
    /// Bytes of snapshots held in memory; at most the budget.
    pub ram_bytes: u64,
    /// Bytes of this model's files, as far as this tier knows them.
    pub disk_bytes: u64,
    /// Look-ups that found at least one token.
    pub n_hits: u64,
    /// Look-ups that found none.
    pub n_misses: u64,
    /// Snapshots given from memory.
    pub n_ram_fetches: u64,
    /// Snapshots given from files.
    pub n_disk_fetches: u64,
    /// Files written.
    pub n_written: u64,
    /// Entries not taken in, because there was no room for them in time.
    pub n_refused: u64,
    /// Entries that had to leave memory and had no file.
    pub n_lost: u64,
    /// Files found missing: their room was needed for others, or somebody deleted them.
    pub n_files_gone: u64,
    /// Failed reads and writes, damaged files included.
    pub n_errors: u64,
}
