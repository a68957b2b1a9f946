//! The distributions that are kept per model and engine: names, meaning, buckets.

/// One distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    TimeToFirstToken,
    InterTokenLatency,
    TimePerOutputToken,
    EndToEnd,
    Queue,
    Prefill,
    Decode,
    Inference,
    PromptTokens,
    GenerationTokens,
    CachedTokens,
    BatchWidth,
    Overhead,
}

/// Name, help and upper bounds.
pub(super) type Row = (&'static str, &'static str, &'static [f64]);

impl Measure {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 13] = [
        Self::TimeToFirstToken,
        Self::InterTokenLatency,
        Self::TimePerOutputToken,
        Self::EndToEnd,
        Self::Queue,
        Self::Prefill,
        Self::Decode,
        Self::Inference,
        Self::PromptTokens,
        Self::GenerationTokens,
        Self::CachedTokens,
        Self::BatchWidth,
        Self::Overhead,
    ];

    pub(super) fn row(self) -> Row {
        match self {
            Self::TimeToFirstToken => (
                "vllm:time_to_first_token_seconds",
                "From a request's arrival to its first token, as the server saw it.",
                FIRST_TOKEN,
            ),
            Self::InterTokenLatency => (
                "vllm:inter_token_latency_seconds",
                "Between two tokens of a choice, as the server saw them.",
                TOKEN,
            ),
            Self::TimePerOutputToken => (
                "vllm:request_time_per_output_token_seconds",
                "A choice's mean gap between tokens on the engine's clock.",
                TOKEN,
            ),
            Self::EndToEnd => (
                "vllm:e2e_request_latency_seconds",
                "From a request's arrival to a choice's end, loading included.",
                REQUEST,
            ),
            Self::Queue => {
                ("vllm:request_queue_time_seconds", "From the engine's queue to the first step.", REQUEST)
            }
            Self::Prefill => {
                ("vllm:request_prefill_time_seconds", "From the first step to the first token.", REQUEST)
            }
            Self::Decode => {
                ("vllm:request_decode_time_seconds", "From the first token to the last.", REQUEST)
            }
            Self::Inference => {
                ("vllm:request_inference_time_seconds", "From the first step to the last token.", REQUEST)
            }
            Self::PromptTokens => {
                ("vllm:request_prompt_tokens", "Prompt tokens of a choice, cached ones included.", TOKENS)
            }
            Self::GenerationTokens => {
                ("vllm:request_generation_tokens", "Generated tokens of a choice.", TOKENS)
            }
            Self::CachedTokens => {
                ("duet_request_cached_tokens", "Prompt tokens of a choice that were not evaluated.", TOKENS)
            }
            Self::BatchWidth => {
                ("duet_request_batch_width", "Most sequences that shared a step with a choice.", WIDTHS)
            }
            Self::Overhead => (
                "duet_request_overhead_seconds",
                "The server's own time until the engine has the request; waiting for its body and for a load is not in it.",
                OVERHEAD,
            ),
        }
    }
}

/// vLLM's, and two below 10 ms.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// vLLM's, and finer ones below 10 ms: small models decode faster.
const TOKEN: &[f64] = &[
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
    0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// vLLM's, and some below its first.
const REQUEST: &[f64] = &[
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
    50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];
/// vLLM's series, to a window of a million.
const TOKENS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];
const WIDTHS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0];
const OVERHEAD: &[f64] =
    &[25e-6, 50e-6, 75e-6, 100e-6, 150e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
pub(super) const HTTP_SECONDS: &[f64] = &[
    100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0,
];
pub(super) const LOAD_SECONDS: &[f64] =
    &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_numbers_and_buckets_rise() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, index);
            let (name, _, buckets) = measure.row();
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]), "{name}");
        }
    }

    /// A dashboard's quantiles are computed from these.
    #[test]
    fn vllms_buckets_are_all_there() {
        let has = |measure: Measure, bounds: &[f64]| {
            let (name, _, buckets) = measure.row();
            assert!(bounds.iter().all(|bound| buckets.contains(bound)), "{name}");
        };
        has(
            Measure::TimeToFirstToken,
            &[
                0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
                20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
            ],
        );
        let token = [
            0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
            40.0, 80.0,
        ];
        has(Measure::InterTokenLatency, &token);
        has(Measure::TimePerOutputToken, &token);
        let request = [
            0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
            480.0, 960.0, 1920.0, 7680.0,
        ];
        for measure in
            [Measure::EndToEnd, Measure::Queue, Measure::Prefill, Measure::Decode, Measure::Inference]
        {
            has(measure, &request);
        }
        has(Measure::PromptTokens, &[1.0, 2.0, 5.0, 10.0, 5000.0]);
    }
}
