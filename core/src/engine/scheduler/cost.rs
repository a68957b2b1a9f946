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

    /// Whether it has seen a step.
    pub fn is_taught(&self) -> bool {
        self.coefficients.is_some()
    }

    /// Seconds that a step of this load should take; `None` before the first observation.
    pub fn predict(&self, load: StepLoad) -> Option<f64> {
        let coefficients = self.coefficients?;
        Some(coefficients.iter().zip(load.features()).map(|(c, feature)| c * feature).sum())
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
    fn the_first_step_is_all_it_knows() {
        let mut model = CostModel::default();
        assert_eq!(model.predict(decode(1, 10)), None);
        model.observe(decode(1, 10), 0.006);
        assert!((model.predict(decode(1, 10)).expect("seen") - 0.006).abs() < 1e-4);
        let two = model.predict(decode(2, 10)).expect("seen");
        assert!(two > 0.010, "until more is known a row costs as much as a step: {two}");
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

    /// Relative error of what is predicted for a decode step with a chunk, after steps of many kinds.
    fn error_after(model: &mut CostModel, a: f64, b: f64, d: f64) -> f64 {
        for step in 0..200 {
            let load = decode(1 + step % 4, 100 + 20 * step).with_row(step * 10, step % 13, false);
            model.observe(load, machine(load, a, b, d));
        }
        let load = decode(2, 1000).with_row(3000, 10, false);
        (model.predict(load).expect("seen") / machine(load, a, b, d) - 1.0).abs()
    }

    #[test]
    fn a_linear_machine_is_learnt_and_followed_when_it_changes() {
        let mut model = CostModel::default();
        let error = error_after(&mut model, 4.5e-3, 2e-3, 1e-6);
        assert!(error < 0.1, "{error}");
        let error = error_after(&mut model, 2e-3, 5e-3, 3e-6);
        assert!(error < 0.1, "{error}");
    }

    proptest! {
        #[test]
        fn always_finite(
            steps in prop::collection::vec((1u32..600, 0u32..20, 0u32..100_000, 1e-6f64..100.0), 1..200),
        ) {
            let mut model = CostModel::default();
            for (n, outputs, position, seconds) in steps {
                let load = StepLoad { n_outputs: outputs, ..StepLoad::default().with_row(position, n, false) };
                model.observe(load, seconds);
                let time = model.predict(load).expect("seen");
                prop_assert!(time.is_finite() && time >= 0.0);
            }
        }
    }
}
