//! How the memory for prefixes is shared among the models.

use duet_core::backend::{DiskTierSpec, PrefixCacheSpec};

use super::Memory;
use crate::config::{CacheConfig, ModelConfig};

/// Most host memory for prefixes unless the settings say otherwise: this, or this part of what is free.
const MOST_DEFAULT_BYTES: u64 = 4 << 30;
const DEFAULT_PART: u64 = 8;

/// What all models share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CacheBudget {
    ram_bytes: u64,
    disk: Option<DiskTierSpec>,
}

impl CacheBudget {
    /// `memory`: as it is at the start.
    pub(super) fn new(config: CacheConfig, memory: Memory) -> Self {
        let default = || (memory.available_bytes / DEFAULT_PART).min(MOST_DEFAULT_BYTES);
        Self { ram_bytes: config.ram_bytes.unwrap_or_else(default), disk: config.disk }
    }

    /// For a model about to be loaded: half of what the others have left, since more may come; all of it if none can.
    /// Never more than `free_bytes`, which its weights and KV cache leave.
    pub(super) fn share(
        &self,
        config: &ModelConfig,
        taken_bytes: u64,
        others_may_come: bool,
        free_bytes: u64,
    ) -> PrefixCacheSpec {
        if !config.prefix_cache {
            return PrefixCacheSpec { enabled: false, host_bytes: 0, disk: None };
        }
        let left = self.ram_bytes.saturating_sub(taken_bytes);
        let share = if others_may_come { left / 2 } else { left };
        PrefixCacheSpec { enabled: true, host_bytes: share.min(free_bytes), disk: self.disk.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RawConfig, RawModel, ServerConfig};

    fn model(prefix_cache: Option<bool>) -> ModelConfig {
        let model = RawModel {
            path: Some(std::path::PathBuf::from("a.gguf").into()),
            prefix_cache,
            ..RawModel::default()
        };
        let raw = RawConfig { models: [("a".to_owned(), model)].into(), ..RawConfig::default() };
        ServerConfig::from_raw(&raw).unwrap().models.remove(0)
    }

    fn budget(ram_bytes: Option<u64>, available_bytes: u64) -> CacheBudget {
        let memory = Memory { total_bytes: 1 << 40, available_bytes };
        CacheBudget::new(CacheConfig { ram_bytes, disk: None }, memory)
    }

    #[test]
    fn the_default_is_an_eighth_of_what_is_free_up_to_four_gib() {
        assert_eq!(budget(None, 8 << 30).ram_bytes, 1 << 30);
        assert_eq!(budget(None, 1 << 39).ram_bytes, 4 << 30);
        assert_eq!(budget(None, 0).ram_bytes, 0);
        assert_eq!(budget(Some(1 << 39), 8 << 30).ram_bytes, 1 << 39, "what is asked for is not reduced");
    }

    #[test]
    fn shares_never_add_up_to_more_than_there_is() {
        let budget = budget(Some(1000), 0);
        let share = |taken, others| budget.share(&model(None), taken, others, 1 << 30).host_bytes;
        let first = share(0, true);
        let second = share(first, true);
        let third = share(first + second, false);
        assert_eq!((first, second, third), (500, 250, 250));
        assert_eq!(share(1000, false), 0);
        assert_eq!(share(2000, false), 0);
    }

    #[test]
    fn a_share_is_no_more_than_the_model_leaves_free_and_none_where_it_is_off() {
        let budget = budget(Some(1000), 0);
        assert_eq!(budget.share(&model(None), 0, false, 10).host_bytes, 10);
        let off = budget.share(&model(Some(false)), 0, false, 1 << 30);
        assert_eq!(off, PrefixCacheSpec { enabled: false, host_bytes: 0, disk: None });
    }
}
