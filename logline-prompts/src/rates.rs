//! Rates, and how sure they are.

use serde::{Deserialize, Serialize};

/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The sum of the quantiles for a two-sided test at 5 % that finds a difference in 8 of 10 cases.
const POWER: f64 = 2.801_585_218_112_968;

/// A number with the ends of its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The number.
    pub value: f64,
    /// The upper end.
    pub high: f64,
}

/// Results of one source, of which one says little more than all: repetitions of a fixture, or fixtures that were made from each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cluster {
    /// How many did well.
    pub good: u32,
    /// How many there are.
    pub of: u32,
}

/// The rate of successes and its Wilson interval. However many results a cluster has, it makes the interval no narrower than one result
/// would. `None`: there is no result.
#[must_use]
pub fn rate(clusters: &[Cluster]) -> Option<Interval> {
    let total = |of: fn(&Cluster) -> u32| clusters.iter().map(|cluster| f64::from(of(cluster))).sum::<f64>();
    let (good, n) = (total(|cluster| cluster.good), total(|cluster| cluster.of));
    if n <= 0.0 {
        return None;
    }
    // How alike the results of a cluster are is not known, and an estimate from few clusters is wrong by far: each counts once.
    let clusters = clusters.iter().filter(|cluster| cluster.of > 0).count();
    Some(wilson(good / n, number(clusters)))
}

/// The Wilson score interval of a rate seen in `n` results.
fn wilson(rate: f64, n: f64) -> Interval {
    let z2 = Z * Z;
    let middle = (rate + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt();
    Interval { low: (middle - half).max(0.0), value: rate, high: (middle + half).min(1.0) }
}

/// The lower end of the Wilson interval for `good` of `of` results; 0 if there are none.
#[must_use]
pub fn lower(good: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let (good, of) = (good as f64, of as f64);
    if of > 0.0 { wilson(good / of, of).low } else { 0.0 }
}

/// What comparing two variants on the same fixtures says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Difference {
    /// The rate of the second minus that of the first.
    pub difference: Interval,
    /// How many clusters were compared.
    pub pairs: u32,
    /// The smallest difference that would have been seen in 8 of 10 such comparisons.
    pub detectable: f64,
}

/// Compares two variants on the same clusters, each pair being (first, second). Clusters without results of both are left out.
///
/// The interval is that of Bonett and Price (2012) for paired rates. A cluster counts once, with the difference of its two rates. `None`:
/// nothing can be compared.
#[must_use]
pub fn compare(pairs: &[(Cluster, Cluster)]) -> Option<Difference> {
    let share = |cluster: &Cluster| f64::from(cluster.good) / f64::from(cluster.of);
    let differences: Vec<f64> = pairs.iter().filter(|(a, b)| a.of > 0 && b.of > 0).map(|(a, b)| share(b) - share(a)).collect();
    if differences.is_empty() {
        return None;
    }
    let n = number(differences.len());
    let better = differences.iter().map(|difference| difference.max(0.0)).sum::<f64>();
    let worse = differences.iter().map(|difference| (-difference).max(0.0)).sum::<f64>();
    let (p, q) = ((better + 1.0) / (n + 2.0), (worse + 1.0) / (n + 2.0));
    let error = ((p + q - (p - q) * (p - q)) / (n + 2.0)).sqrt();
    let value = (better - worse) / n;
    let (low, high) = ((p - q - Z * error).max(-1.0), (p - q + Z * error).min(1.0));
    let pairs = u32::try_from(differences.len()).unwrap_or(u32::MAX);
    Some(Difference { difference: Interval { low, value, high }, pairs, detectable: (POWER * error).min(1.0) })
}

#[expect(clippy::cast_precision_loss, reason = "there are at most some thousand results")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 5e-4, "{found}, not {wanted}");
    }

    fn each(results: &[bool]) -> Vec<Cluster> {
        results.iter().map(|&good| Cluster { good: good.into(), of: 1 }).collect()
    }

    /// The published examples of Newcombe (1998), method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    #[test]
    fn wilson_is_what_newcombe_published() {
        for (good, of, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let results: Vec<bool> = (0..of).map(|n| n < good).collect();
            let found = rate(&each(&results)).unwrap();
            near(found.low, low);
            near(found.high, high);
            near(lower(good, of), low);
        }
    }

    #[test]
    fn repetitions_do_not_make_a_rate_surer() {
        let once = rate(&each(&[true, true, true, false])).unwrap();
        let ten_times: Vec<_> = [10, 10, 10, 0].map(|good| Cluster { good, of: 10 }).into();
        let repeated = rate(&ten_times).unwrap();
        assert!(repeated.high - repeated.low >= (once.high - once.low) * 0.9, "{repeated:?} {once:?}");
        let all_good: Vec<_> = (0..5).map(|_| Cluster { good: 20, of: 20 }).collect();
        near(rate(&all_good).unwrap().low, rate(&each(&[true; 5])).unwrap().low);
        assert_eq!(rate(&[]), None);
    }

    /// With two sources nobody can tell how alike their results are, and one failure more must not make a rate surer.
    #[test]
    fn a_failure_more_never_raises_the_lower_end() {
        let of = |clusters: &[(u32, u32)]| {
            let clusters: Vec<_> = clusters.iter().map(|&(good, of)| Cluster { good, of }).collect();
            rate(&clusters).unwrap().low
        };
        assert!(of(&[(299, 299), (0, 1)]) < 0.4 && of(&[(99, 100), (99, 100)]) < 0.4);
        for clusters in [2_usize, 5, 19, 30] {
            let mut all = vec![(10, 10); clusters];
            let mut last = of(&all);
            for at in 0..clusters {
                all[at].0 = 7;
                let low = of(&all);
                assert!(low <= last + 1e-9, "{clusters} clusters, {at} with failures: {low} after {last}");
                last = low;
            }
        }
    }

    #[test]
    fn pairs_tell_a_difference_that_the_rates_do_not() {
        let pair = |a: bool, b: bool| (Cluster { good: a.into(), of: 1 }, Cluster { good: b.into(), of: 1 });
        let mut pairs: Vec<_> = (0..50).map(|n| pair(n % 2 == 0, n % 2 == 0)).collect();
        pairs.extend((0..12).map(|_| pair(false, true)));
        let found = compare(&pairs).unwrap();
        assert!(found.difference.low > 0.05 && found.difference.high < 0.35, "{found:?}");
        near(found.difference.value, 12.0 / 62.0);
        let same: Vec<_> = (0..20).map(|_| pair(true, true)).collect();
        let found = compare(&same).unwrap();
        assert!(found.difference.low < -0.1 && found.detectable > 0.15, "20 equal pairs are no proof of equality: {found:?}");
        assert_eq!(compare(&[(Cluster::default(), Cluster { good: 1, of: 1 })]), None);
    }

    /// Bonett and Price: b = 1, c = 7, n = 50 gives about (0.01, 0.23) for the difference.
    #[test]
    fn the_interval_of_pairs_is_that_of_bonett_and_price() {
        let pair = |a: u32, b: u32| (Cluster { good: a, of: 1 }, Cluster { good: b, of: 1 });
        let mut pairs = vec![pair(1, 0)];
        pairs.extend((0..7).map(|_| pair(0, 1)));
        pairs.extend((0..42).map(|_| pair(1, 1)));
        let found = compare(&pairs).unwrap().difference;
        let (p, q, n) = (8.0 / 52.0, 2.0 / 52.0, 52.0_f64);
        let half = 1.96 * ((p + q - (p - q) * (p - q)) / n).sqrt();
        near(found.low, p - q - half);
        near(found.high, p - q + half);
    }
}
