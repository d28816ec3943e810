//! What a call costs, in whole numbers, so that everybody who computes it again comes to the same.

use logline_core::contract::provider::Usage;
use serde::{Deserialize, Serialize};

/// Prices in nanos of the provider's currency for a million tokens. 3 dollars for a million tokens are 3,000,000,000 nanos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Prices {
    /// Input that was neither read from a cache nor written to one.
    pub input: u64,
    /// Output, including reasoning.
    #[serde(default)]
    pub output: u64,
    /// Input that was read from a cache. Default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Input that was written to a cache. Default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Input that was written to a cache for 1 hour. Default: as `cache_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<u64>,
}

/// The highest price: a million units of the currency for a million tokens.
const MAX_PRICE: u64 = 1_000_000_000_000_000;

/// The tokens for which prices are given.
const PER: u128 = 1_000_000;

impl Prices {
    /// Prices without a cache.
    #[must_use]
    pub fn new(input: u64, output: u64) -> Self {
        Self { input, output, cache_read: None, cache_write: None, cache_write_1h: None }
    }

    /// Checks that every price can be counted.
    ///
    /// # Errors
    /// The first price that is too high.
    pub fn check(&self) -> Result<(), String> {
        let all = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("cache_write_1h", self.cache_write_1h),
        ];
        match all.into_iter().find(|(_, price)| price.is_some_and(|price| price > MAX_PRICE)) {
            Some((name, _)) => Err(format!("{name} is over {MAX_PRICE} nanos for a million tokens")),
            None => Ok(()),
        }
    }

    fn cache_write(&self) -> u64 {
        self.cache_write.unwrap_or(self.input)
    }

    fn cache_write_1h(&self) -> u64 {
        self.cache_write_1h.unwrap_or(self.cache_write())
    }

    /// The most that a call can cost with so many tokens of input and output.
    #[must_use]
    pub fn most(&self, input: u64, output: u64) -> u64 {
        let dearest = [self.input, self.cache_read.unwrap_or(0), self.cache_write(), self.cache_write_1h()];
        let dearest = dearest.into_iter().max().unwrap_or(self.input);
        nanos([(input, dearest), (output, self.output)])
    }
}

/// The cost of a call in nanos, rounded up. `None` if input or output is not known: a cost that is not known is never 0.
#[must_use]
pub fn cost(usage: &Usage, prices: &Prices) -> Option<u64> {
    Some(nanos([
        (usage.input?, prices.input),
        (usage.cache_read.unwrap_or(0), prices.cache_read.unwrap_or(prices.input)),
        (usage.cache_write.unwrap_or(0), prices.cache_write()),
        (usage.cache_write_1h.unwrap_or(0), prices.cache_write_1h()),
        (usage.output?, prices.output),
    ]))
}

fn nanos<const N: usize>(classes: [(u64, u64); N]) -> u64 {
    let sum = classes
        .into_iter()
        .fold(0_u128, |sum, (tokens, price)| sum.saturating_add(u128::from(tokens).saturating_mul(price.into())));
    u64::try_from(sum.div_ceil(PER)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_priced_apart_and_the_sum_is_rounded_up_once() {
        let prices =
            Prices { cache_read: Some(300), cache_write: Some(3750), cache_write_1h: Some(6000), ..Prices::new(3000, 15_000) };
        let mut usage = Usage::of(1_000_000, 1_000_000);
        assert_eq!(cost(&usage, &prices), Some(18_000));
        usage.cache_read = Some(1_000_000);
        usage.cache_write = Some(2_000_000);
        usage.cache_write_1h = Some(1_000_000);
        assert_eq!(cost(&usage, &prices), Some(18_000 + 300 + 7_500 + 6_000));
        // 1 token at 3,000 nanos a million and 1 at 15,000: 0.018 nanos.
        assert_eq!(cost(&Usage::of(1, 1), &prices), Some(1));
        assert_eq!(cost(&Usage::of(0, 0), &prices), Some(0));
    }

    #[test]
    fn what_is_not_known_is_not_free() {
        let prices = Prices::new(3000, 15_000);
        assert_eq!(cost(&Usage::default(), &prices), None);
        let mut half = Usage::of(5, 5);
        half.output = None;
        assert_eq!(cost(&half, &prices), None);
    }

    #[test]
    fn the_most_is_never_less_than_the_cost() {
        let prices =
            Prices { cache_read: Some(9000), cache_write: None, cache_write_1h: Some(6000), ..Prices::new(3000, 15_000) };
        for (input, read, write, hour) in [(90, 0, 0, 0), (0, 90, 0, 0), (0, 0, 90, 0), (0, 0, 0, 90), (30, 20, 20, 20)] {
            let mut usage = Usage::of(input, 7);
            (usage.cache_read, usage.cache_write, usage.cache_write_1h) = (Some(read), Some(write), Some(hour));
            assert!(cost(&usage, &prices) <= Some(prices.most(90, 7)), "{usage:?}");
        }
        let dearest = Prices::new(MAX_PRICE, MAX_PRICE);
        assert_eq!(dearest.most(u64::MAX, u64::MAX), u64::MAX, "a number that is too large is the largest");
    }
}
