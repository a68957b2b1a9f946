//! The statistics on simulated arms, and the order of the blocks.

use duet_bench::order::{Side, block_orders, order_name};
use duet_bench::stats::ratio::{Ratio, block_log_ratio};
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_block_is_mirrored_and_balanced(seed: u64, n in 0usize..200) {
        let orders = block_orders(seed, n);
        prop_assert_eq!(orders.len(), n);
        for order in &orders {
            prop_assert!(["ABBA", "BAAB"].contains(&order_name(order).as_str()));
        }
        prop_assert_eq!(block_orders(seed, n), orders);
    }

    #[test]
    fn a_linear_drift_cancels_in_every_block(seed: u64, slope in -0.02f64..0.02, true_log in -0.5f64..0.5) {
        // ln t grows by `slope` per visit, whoever runs.
        let mut visit = 0.0;
        for order in block_orders(seed, 8) {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for side in order {
                let log = slope * visit + if side == Side::A { true_log } else { 0.0 };
                (if side == Side::A { &mut a } else { &mut b }).push(log.exp());
                visit += 1.0;
            }
            prop_assert!((block_log_ratio(&a, &b).unwrap() - true_log).abs() < 1e-9);
        }
    }

    #[test]
    fn the_ratio_turns_round_with_the_arms(logs in prop::collection::vec(-1f64..1.0, 2..20)) {
        let forth = Ratio::of_blocks(logs.clone()).unwrap();
        let back = Ratio::of_blocks(logs.iter().map(|d| -d).collect()).unwrap();
        let (speed, interval) = forth.speed();
        prop_assert!((speed / back.time_ratio - 1.0).abs() < 1e-12);
        prop_assert!((interval.unwrap().low / back.interval.unwrap().low - 1.0).abs() < 1e-12);
    }
}

#[test]
fn the_coin_is_fair() {
    let n_abba = block_orders(7, 10_000).iter().filter(|order| order[0] == Side::A).count();
    assert!((4800..5200).contains(&n_abba), "{n_abba}");
}

#[test]
fn students_interval_in_numbers() {
    // mean 0.03, s 0.0158113883, t(0.975, 4) 2.7764451052
    let found = Ratio::of_blocks(vec![0.01, 0.02, 0.03, 0.04, 0.05]).unwrap();
    let half = 2.776_445_105_2 * 0.015_811_388_3 / 5f64.sqrt();
    let interval = found.interval.unwrap();
    assert!((found.time_ratio - 0.03f64.exp()).abs() < 1e-12);
    assert!((interval.low.ln() - (0.03 - half)).abs() < 1e-8, "{interval:?}");
    assert!((interval.high.ln() - (0.03 + half)).abs() < 1e-8);
}

#[test]
fn what_has_no_ratio() {
    assert_eq!(Ratio::of_blocks(vec![]), None);
    assert_eq!(Ratio::of_blocks(vec![0.0, f64::NAN]), None);
    assert_eq!(Ratio::of(&[vec![], vec![]]), None);
    let one = Ratio::of_blocks(vec![0.1]).unwrap();
    assert_eq!((one.interval, one.log_sd, one.n_blocks), (None, None, 1));
    for bad in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        assert_eq!(block_log_ratio(&[1.0, bad], &[1.0, 1.0]), None);
        assert_eq!(block_log_ratio(&[1.0], &[bad]), None);
    }
    assert_eq!(block_log_ratio(&[], &[1.0]), None);
}
