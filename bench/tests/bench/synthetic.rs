//! Synthetic engines on a virtual clock: visits with a known ratio, law of noise, drift and planted faults, in the shape
//! in which a real run has them, for the pipeline from samples to verdicts.

use duet_bench::analysis::{Analysis, Question, analyse};
use duet_bench::measure::{EngineSample, RunnerSample, WashOut};
use duet_bench::order::{Side, block_orders, order_name};
use duet_bench::report::{ArmReport, Block, BlockKind, Visit};

use crate::support::Noise;

/// Tokens decoded per request and mode.
pub(crate) const N_DECODE: usize = 9;

/// How visits differ from each other; deviations are of log-times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Law {
    /// Normal, 2 %.
    Normal,
    /// Normal, A 1 % and B 4 %.
    Unequal,
    /// Laplace, 2 %.
    Laplace,
    /// Neighbours alike: autoregressive with 0.6, 2 %.
    Autoregressive,
    /// Normal over a straight slow-down of 0.4 % per visit.
    LinearDrift,
    /// Normal over a random walk of 0.7 % per visit.
    RandomWalk,
    /// Normal over a wave of 4 % every 13 visits, as of a fan.
    Wave,
    /// Student's t with 3 degrees, scaled to a quartile of 2 %.
    StudentT3,
    /// Cauchy-like: t with 1.5 degrees.
    StudentT15,
    /// Normal, with one visit in twenty off by a normal of 20 %.
    SymmetricOutliers,
    /// One visit in ten is 25 % slower.
    Spikes,
    /// Exponential, 3 %: never faster than a floor.
    Exponential,
}

/// What is planted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// A slows down by 2.2 % per block.
    ArmDrifts,
    /// A is 22 % slower from block 7 on.
    ArmJumps,
    /// Both are 30 % slower from the second visit of block 6 on.
    MachineJumps,
    /// A takes 9 % longer just after B.
    Carryover,
    /// In block 4 the clock falls by a third, and times rise.
    Clock,
    /// In block 4 the machine runs on battery.
    Battery,
    /// In block 4 memory comes back from swap.
    Swapping,
    /// In block 4 others take half of the CPU during A's visits.
    Contention,
    /// In block 4 B has the prompt in a cache.
    CacheHit,
    /// In block 4 B decodes two tokens less.
    TooFewTokens,
    /// In block 4 B ends early and has no sample.
    EarlyEos,
    /// In block 4 B's wash-out does not end.
    NoSteady,
    /// In block 4 B gets other ids.
    OtherIds,
    /// Each arm's second role is 8 % slower.
    SelfDiffers,
}

/// One comparison to simulate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) law: Law,
    /// ln of the true time of A / time of B.
    pub(crate) true_log: f64,
    pub(crate) n_blocks: usize,
    pub(crate) n_aa: usize,
    pub(crate) fault: Fault,
}

/// The noise of one run.
struct Source {
    noise: Noise,
    law: Law,
    walk: f64,
    before: f64,
    n_visits: u32,
}

impl Source {
    fn visit(&mut self, side: Side) -> f64 {
        let at = f64::from(self.n_visits);
        self.n_visits += 1;
        let normal = self.noise.normal();
        match self.law {
            Law::Normal => 0.02 * normal,
            Law::Unequal => normal * if side == Side::A { 0.01 } else { 0.04 },
            Law::Laplace => 0.02 / 2f64.sqrt() * normal.signum() * self.noise.exponential(),
            Law::Autoregressive => {
                self.before = 0.6 * self.before + 0.02 * 0.8 * normal;
                self.before
            }
            Law::LinearDrift => 0.02 * normal + 0.004 * at,
            Law::RandomWalk => {
                self.walk += 0.007 * self.noise.normal();
                0.02 * normal + self.walk
            }
            Law::Wave => 0.02 * normal + 0.04 * (at * std::f64::consts::TAU / 13.0).sin(),
            // A normal over the root of a mean of squares; 0.765 is the quartile of t with 3 degrees.
            Law::StudentT3 => {
                let squares: f64 = (0..3).map(|_| self.noise.normal().powi(2)).sum();
                0.02 / 0.765 * normal / (squares / 3.0).sqrt()
            }
            // χ² with 1.5 degrees is a gamma of shape 3/4: a beta share of an exponential.
            Law::StudentT15 => {
                let share = self.noise.uniform().powf(4.0 / 3.0);
                let gamma = self.noise.exponential() * share.max(1e-12);
                0.01 * normal / (2.0 * gamma / 1.5).sqrt()
            }
            Law::SymmetricOutliers => {
                let wild = if self.noise.uniform() < 0.05 { 0.2 * self.noise.normal() } else { 0.0 };
                0.01 * normal + wild
            }
            Law::Spikes => 0.01 * normal + if self.noise.uniform() < 0.1 { 0.25 } else { 0.0 },
            Law::Exponential => 0.03 * self.noise.exponential(),
        }
    }
}

impl Comparison {
    /// The comparison of this seed, measured and analysed.
    pub(crate) fn analysed(&self, seed: u64, arms: &[ArmReport]) -> Analysis {
        let question = Question { margin: 0.03, n_decode: N_DECODE, grade: None, fidelity: None };
        analyse(&self.blocks(seed), arms, &question)
    }

    /// Its blocks.
    pub(crate) fn blocks(&self, seed: u64) -> Vec<Block> {
        let noise = Noise::new(seed);
        let mut source = Source { noise, law: self.law, walk: 0.0, before: 0.0, n_visits: 0 };
        let mut run = Run { comparison: self, source: &mut source, before: None, now_ns: 0 };
        let mut blocks = Vec::new();
        for (index, pair) in block_orders(!seed, 2 * self.n_aa).chunks(2).enumerate() {
            let turns = (0..4).flat_map(|number| [(Side::A, pair[0][number]), (Side::B, pair[1][number])]);
            let order = format!("{} {}", order_name(&pair[0]), order_name(&pair[1]));
            blocks.push(run.block(BlockKind::Aa, index, order, turns));
        }
        for (index, order) in block_orders(seed, self.n_blocks).iter().enumerate() {
            let turns = order.iter().map(|side| (*side, *side));
            blocks.push(run.block(BlockKind::Ab, self.n_aa + index, order_name(order), turns));
        }
        blocks
    }
}

struct Run<'a> {
    comparison: &'a Comparison,
    source: &'a mut Source,
    before: Option<Side>,
    now_ns: u64,
}

impl Run<'_> {
    fn block(
        &mut self,
        kind: BlockKind,
        index: usize,
        order: String,
        turns: impl Iterator<Item = (Side, Side)>,
    ) -> Block {
        let mut visits: Vec<Visit> = Vec::new();
        for (arm, side) in turns {
            let n_earlier = visits.iter().filter(|visit| (visit.arm, visit.side) == (arm, side)).count();
            let number = index.wrapping_sub(self.comparison.n_aa); // of the A/B blocks, from 0
            let visit = self.visit(arm, side, kind, number, visits.len(), 1 + 2 * index + n_earlier);
            visits.push(visit);
        }
        Block { kind, restart: 0, order, visits, lost: None }
    }

    fn visit(
        &mut self,
        arm: Side,
        side: Side,
        kind: BlockKind,
        block: usize,
        position: usize,
        request: usize,
    ) -> Visit {
        let fault = self.comparison.fault;
        let switched = self.before != Some(arm);
        self.before = Some(arm);
        let ab = kind == BlockKind::Ab;
        let here = ab && block == 3;
        let mut log = self.source.visit(arm);
        if arm == Side::A {
            log += self.comparison.true_log;
        }
        log += match fault {
            Fault::ArmDrifts if ab && arm == Side::A => 0.022 * block as f64,
            Fault::ArmJumps if ab && arm == Side::A && block >= 6 => 0.2,
            Fault::MachineJumps if ab && (block > 5 || (block == 5 && position >= 1)) => 0.3,
            Fault::Carryover if arm == Side::A && switched => 0.09,
            Fault::Clock if here => 0.2,
            Fault::Contention if here && arm == Side::A => 0.3,
            Fault::SelfDiffers if !ab && side == Side::B => 0.08,
            _ => 0.0,
        };
        let mut step = |scale: f64| {
            let log = log + 0.03 * self.source.noise.normal();
            (scale * log.exp() * 1e7) as u64
        };
        let mut runner = RunnerSample {
            prefill_ns: step(50.0),
            prefill_again_ns: Vec::new(),
            step_ns: (0..N_DECODE).map(|_| step(1.0)).collect(),
            first_top: 1,
            n_forward_passes: 10,
            kv_bytes: None,
        };
        let mut engine = Some(EngineSample {
            ttft_ns: step(51.0),
            ttft_again_ns: Vec::new(),
            itl_ns: (1..N_DECODE).map(|_| step(1.1)).collect(),
            engine_decode_ns: step(9.0),
            n_cached_tokens: 0,
            n_tokens: N_DECODE as u32,
            ids: vec![1; N_DECODE],
        });
        let mut steady = true;
        let mut ids_sha256 = format!("request {request}");
        let mut failure = None;
        let mut environment = duet_bench::Environment {
            others_cpu: Some(0.1 + 0.02 * self.source.noise.uniform()),
            clock_mhz: Some(3000.0 + 20.0 * self.source.noise.normal()),
            n_throttled: Some(0),
            swapped_in_bytes: Some(0),
            on_battery: Some(false),
        };
        match (fault, arm) {
            (Fault::Clock, _) if here => environment.clock_mhz = Some(2000.0),
            (Fault::Battery, _) if here => environment.on_battery = Some(true),
            (Fault::Swapping, _) if here => environment.swapped_in_bytes = Some(9 << 20),
            (Fault::Contention, Side::A) if here => environment.others_cpu = Some(0.5),
            (Fault::CacheHit, Side::B) if here => {
                let sample = engine.as_mut().expect("nothing took it");
                (sample.n_cached_tokens, sample.ttft_ns) = (40, sample.ttft_ns / 5);
            }
            (Fault::TooFewTokens, Side::B) if here => runner.step_ns.truncate(N_DECODE - 2),
            (Fault::EarlyEos, Side::B) if here => {
                engine = None;
                let detail = "3 tokens came where 9 were asked for".to_owned();
                failure = Some(duet_bench::report::VisitFailure {
                    code: duet_bench::validity::Code::EarlyEos,
                    detail,
                });
            }
            (Fault::NoSteady, Side::B) if here => steady = false,
            (Fault::OtherIds, Side::B) if here => ids_sha256.push('!'),
            _ => {}
        }
        let started_ns = self.now_ns;
        self.now_ns += runner.prefill_ns + runner.step_ns.iter().sum::<u64>();
        Visit {
            arm,
            side,
            request,
            ids_sha256,
            started_ns,
            reload_ns: None,
            wash_out: switched.then(|| WashOut { step_ns: vec![1; 16], steady }),
            runner: Some(runner),
            engine,
            failure,
            environment: Some(environment),
        }
    }
}
