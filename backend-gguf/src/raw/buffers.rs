//! Buffer sizes as llama.cpp logs them: its C interface has no call for them.

use super::log::Line;

/// Bytes by purpose, over all devices; 0 where nothing of the kind was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Buffers {
    /// Weights, mapped or copied.
    pub(crate) model: u64,
    /// Keys and values, and the states of recurrent layers.
    pub(crate) cache: u64,
    /// Scratch of the compute graph.
    pub(crate) compute: u64,
    /// Rows of logits.
    pub(crate) output: u64,
}

impl Buffers {
    /// Sums lines such as "llama_kv_cache:        CPU KV buffer size =    45.00 MiB".
    pub(crate) fn from_log(lines: &[Line]) -> Self {
        let mut buffers = Self::default();
        for line in lines {
            let Some((head, tail)) = line.text.split_once(" buffer size =") else { continue };
            let Some(bytes) = tail.trim().strip_suffix(" MiB").and_then(mebibytes) else { continue };
            match head.rsplit(' ').next() {
                Some("model") => buffers.model += bytes,
                Some("KV" | "RS" | "state") => buffers.cache += bytes,
                Some("compute") => buffers.compute += bytes,
                Some("output") => buffers.output += bytes,
                _ => {}
            }
        }
        buffers
    }
}

fn mebibytes(text: &str) -> Option<u64> {
    let value: f64 = text.trim().parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite and not negative")]
    Some((value * 1024.0 * 1024.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logged_sizes_are_summed_by_purpose() {
        let lines = [
            "load_tensors:   CPU_Mapped model buffer size =    92.00 MiB",
            "load_tensors:   CPU_REPACK model buffer size =     0.50 MiB",
            "llama_context:        CPU  output buffer size =     0.19 MiB",
            "llama_kv_cache:        CPU KV buffer size =    45.00 MiB",
            "llama_kv_cache:        CPU KV buffer size =     5.00 MiB",
            "llama_memory_recurrent:        CPU RS buffer size =     1.00 MiB",
            "sched_reserve:        CPU compute buffer size =    97.25 MiB",
            "nonsense buffer size = many MiB",
            "other buffer size = -1 MiB",
            "size = 4 MiB",
        ]
        .map(|text| Line::test(text, false));
        let mib = 1024 * 1024;
        let expected = Buffers {
            model: 92 * mib + mib / 2,
            cache: 51 * mib,
            compute: 97 * mib + mib / 4,
            output: 199_229,
        };
        assert_eq!(Buffers::from_log(&lines), expected);
    }
}
