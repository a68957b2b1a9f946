//! How long the next step will take, learnt from the last ones.
//!
//! A step's time is modelled as `a + b·tokens + c·outputs + d·attended cells` with coefficients that are not negative:
//! least squares on relative errors, where older steps count less and coefficients that the recent steps say nothing
//! about stay where they were. Four unknowns are solved by sweeps from the last solution, well under a microsecond.

/// What a step does, as far as its time depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepLoad {
    /// Tokens evaluated.
    pub n_tokens: u32,
    /// Tokens after which something is sampled.
    pub n_outputs: u32,
    /// Cells that the tokens attend to, summed over tokens.
    pub n_attended: u64,
}

impl StepLoad {
    /// The load with one more row: `n_tokens` of a sequence from `position` on.
    pub fn with_row(self, position: u32, n_tokens: u32, yields_token: bool) -> Self {
        let (position, n) = (u64::from(position), u64::from(n_tokens));
        Self {
            n_tokens: self.n_tokens + n_tokens,
            n_outputs: self.n_outputs + u32::from(yields_token),
            n_attended: self.n_attended + n * position + n * (n + 1) / 2,
        }
    }

    fn features(self) -> [f64; N] {
        [1.0, f64::from(self.n_tokens), f64::from(self.n_outputs), self.n_attended as f64]
    }
}

const N: usize = 4;
/// Weight of a step relative to the one after it: about fifty steps are remembered.
const FORGETTING: f64 = 0.98;
/// How strongly a coefficient stays where it was, in steps' worth of evidence.
const INERTIA: f64 = 0.02;
const SWEEPS: usize = 6;

/// The model. Knows nothing until it has seen a step.
#[derive(Debug, Clone, Default)]
pub struct CostModel {
    coefficients: Option<[f64; N]>,
    products: [[f64; N]; N],
    targets: [f64; N],
}

impl CostModel {
    /// A step of this load took so many seconds. Times that are no positive number are not believed.
    pub fn observe(&mut self, load: StepLoad, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 || load.n_tokens == 0 {
            return;
        }
        let x = load.features().map(|feature| feature / seconds);
        for (row, xi) in self.products.iter_mut().zip(x) {
            for (product, xj) in row.iter_mut().zip(x) {
                *product = *product * FORGETTING + xi * xj;
            }
        }
        for (target, xi) in self.targets.iter_mut().zip(x) {
            *target = *target * FORGETTING + xi;
        }
        // Before anything is known a token costs its share of the step: too much rather than too little, so that the
        // first chunks beside running streams are small.
        let before = self.coefficients.unwrap_or([0.0, seconds / f64::from(load.n_tokens), 0.0, 0.0]);
        self.coefficients = Some(self.solve(before, x));
    }

    /// Non-negative least squares by coordinate descent from `before`, to which `x` holds each coefficient.
    fn solve(&self, before: [f64; N], x: [f64; N]) -> [f64; N] {
        let mut solution = before;
        for _ in 0..SWEEPS {
            for i in 0..N {
                let hold = INERTIA * x[i] * x[i];
                let others: f64 = (0..N).filter(|&j| j != i).map(|j| self.products[i][j] * solution[j]).sum();
                let curvature = self.products[i][i] + hold;
                if curvature > 0.0 {
                    solution[i] = ((self.targets[i] + hold * before[i] - others) / curvature).max(0.0);
                }
            }
        }
        solution
    }

    /// Seconds that a step of this load should take; `None` before the first observation.
    pub fn predict(&self, load: StepLoad) -> Option<f64> {
        let coefficients = self.coefficients?;
        Some(coefficients.iter().zip(load.features()).map(|(c, feature)| c * feature).sum())
    }

    /// Most tokens of a prompt, from `position` on and at most `limit`, that can join the decode rows in `decode` without
    /// the step taking more than `slowdown` times what it takes without them. At least 1: prompts always move.
    pub fn chunk(&self, decode: StepLoad, position: u32, limit: u32, slowdown: f64) -> u32 {
        let Some(alone) = self.predict(decode) else { return 1.min(limit) };
        let fits = |n: u32| {
            self.predict(decode.with_row(position, n, false)).is_some_and(|time| time <= alone * slowdown)
        };
        // The largest n that fits; the time rises with n.
        let (mut low, mut high) = (1, limit.max(1));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low.min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seconds on a machine that really is linear.
    fn machine(load: StepLoad, a: f64, b: f64, d: f64) -> f64 {
        a + b * f64::from(load.n_tokens) + d * load.n_attended as f64
    }

    fn decode(n: u32, position: u32) -> StepLoad {
        (0..n).fold(StepLoad::default(), |load, _| load.with_row(position, 1, true))
    }

    #[test]
    fn knows_nothing_before_the_first_step_and_starts_small() {
        let mut model = CostModel::default();
        assert_eq!(model.predict(decode(1, 10)), None);
        assert_eq!(model.chunk(decode(1, 10), 0, 512, 2.0), 1);
        model.observe(decode(1, 10), 0.006);
        assert!((model.predict(decode(1, 10)).expect("seen") - 0.006).abs() < 1e-4);
        assert!(model.chunk(decode(1, 10), 0, 512, 2.0) <= 2, "a row may cost as much as a step");
    }

    #[test]
    fn nonsense_is_not_believed() {
        let mut model = CostModel::default();
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            model.observe(decode(1, 1), seconds);
        }
        model.observe(StepLoad::default(), 1.0);
        assert_eq!(model.predict(decode(1, 1)), None);
    }

    #[test]
    fn a_limit_of_nothing_is_kept() {
        assert_eq!(CostModel::default().chunk(decode(1, 1), 0, 0, 2.0), 0);
    }

    /// The closed loop: chunks chosen by the model on a machine whose rows become dearer with depth.
    fn ingest(model: &mut CostModel, a: f64, b: f64, d: f64, slowdown: f64) -> (u32, f64) {
        for step in 0..100 {
            let load = decode(1, 100 + step);
            model.observe(load, machine(load, a, b, d));
        }
        let (mut position, mut n_steps, mut n_over) = (0, 0, 0);
        while position < 4000 {
            let running = decode(1, 200 + n_steps);
            let n = model.chunk(running, position, 4000 - position, slowdown);
            let load = running.with_row(position, n, false);
            let (time, alone) = (machine(load, a, b, d), machine(running, a, b, d));
            n_over += u32::from(time > alone * slowdown * 1.1 && n > 1);
            model.observe(load, time);
            (position, n_steps) = (position + n, n_steps + 1);
        }
        (n_steps, f64::from(n_over) / f64::from(n_steps))
    }

    #[test]
    fn chunks_use_the_room_there_is_and_no_more() {
        // 4.5 ms a step, 2 ms a token, a microsecond for a thousand cells: 3 tokens fit beside one stream.
        let (n_steps, over) = ingest(&mut CostModel::default(), 4.5e-3, 2e-3, 1e-9, 2.0);
        assert!(over <= 0.01, "{over}");
        assert!(n_steps < 4000 / 3 + 200, "{n_steps} steps");
    }

    #[test]
    fn a_machine_that_changes_is_followed() {
        let mut model = CostModel::default();
        ingest(&mut model, 4e-3, 2e-3, 1e-9, 2.0);
        let (_, over) = ingest(&mut model, 2e-3, 5e-3, 1e-9, 3.0);
        assert!(over <= 0.03, "{over}");
    }

    proptest! {
        #[test]
        fn always_finite_and_within_limits(
            steps in prop::collection::vec((1u32..600, 0u32..20, 0u32..100_000, 1e-6f64..100.0), 1..200),
            limit in 1u32..4096, slowdown in 1.0f64..10.0,
        ) {
            let mut model = CostModel::default();
            for (n, outputs, position, seconds) in steps {
                let load = StepLoad { n_outputs: outputs, ..StepLoad::default().with_row(position, n, false) };
                model.observe(load, seconds);
                let time = model.predict(load).expect("seen");
                prop_assert!(time.is_finite() && time >= 0.0);
                let chunk = model.chunk(decode(3, position), position, limit, slowdown);
                prop_assert!((1..=limit).contains(&chunk));
            }
        }
    }
}
