//! How likely each variant is to be the best.

use logline_core::Hash;
use serde::{Deserialize, Serialize};

use super::chance::Chance;

/// What is known of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// How often it did well.
    pub good: u64,
    /// How often it did not.
    pub bad: u64,
}

impl Counts {
    /// All that was counted.
    #[must_use]
    pub fn total(self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// Counts one more.
    pub fn add(&mut self, is_good: bool) {
        let count = if is_good { &mut self.good } else { &mut self.bad };
        *count = count.saturating_add(1);
    }
}

/// How many draws decide on the shares.
pub const DRAWS: u32 = 4_096;

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53, and the same rounding happens everywhere")]
fn float(count: u64) -> f64 {
    count as f64
}

/// The share of each arm: in how many of `draws` draws its success rate is the highest, if the rate of an arm has the distribution
/// Beta(1 + good, 1 + bad). The first of equal ones counts. The shares of one to many arms add up to `draws`.
#[must_use]
pub fn shares(counts: &[Counts], seed: &Hash, draws: u32) -> Vec<u32> {
    let mut wins = vec![0_u32; counts.len()];
    if let [only] = wins.as_mut_slice() {
        *only = draws;
        return wins;
    }
    let mut chance = Chance::new(seed);
    for _ in 0..draws {
        let mut best = (0, f64::MIN);
        for (arm, counts) in counts.iter().enumerate() {
            let rate = chance.beta(1.0 + float(counts.good), 1.0 + float(counts.bad));
            if rate > best.1 {
                best = (arm, rate);
            }
        }
        if let Some(wins) = wins.get_mut(best.0) {
            *wins += 1;
        }
    }
    wins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(good: u64, bad: u64) -> Counts {
        Counts { good, bad }
    }

    fn of(all: &[Counts]) -> Vec<u32> {
        shares(all, &Hash::of(b"seed"), DRAWS)
    }

    #[test]
    fn shares_are_what_integration_gives() {
        // P(Beta(8,4) > Beta(5,7)), by summation of the exact series.
        let found = f64::from(of(&[counts(7, 3), counts(4, 6)])[0]) / f64::from(DRAWS);
        assert!((found - 0.9008).abs() < 0.015, "{found}");
        let even = of(&[counts(0, 0), counts(0, 0), counts(0, 0)]);
        assert!(even.iter().all(|&share| (f64::from(share) / f64::from(DRAWS) - 1.0 / 3.0).abs() < 0.03), "{even:?}");
    }

    #[test]
    fn all_draws_are_shared_out_and_the_same_seed_shares_them_in_the_same_way() {
        let all = [counts(3, 1), counts(100, 40), counts(0, 9)];
        assert_eq!(of(&all).iter().sum::<u32>(), DRAWS);
        assert_eq!(of(&all), of(&all));
        assert_ne!(of(&all), shares(&all, &Hash::of(b"other"), DRAWS));
        assert_eq!((of(&[]), of(&[counts(0, 5)])), (vec![], vec![DRAWS]));
    }

    #[test]
    fn counts_that_are_absurd_end_all_the_same() {
        let found = of(&[counts(u64::MAX, 0), counts(0, u64::MAX)]);
        assert_eq!(found[0], DRAWS);
    }
}
