//! Whether a variant does not do today what it did before.

/// The fewest results on each side of a change.
const LEAST: usize = 30;

/// The chance of seeing a change where there is none, about: one in 500 looks.
const ALPHA: f64 = 0.002;

/// Where the results, oldest first, begin to be of the present: the place after the last change of their success rate, or 0 if none is
/// seen. Older results say nothing about the next one.
///
/// The newest part is compared with what stands before it, for parts of a half, a quarter, an eighth and so on, by the bound that
/// ADWIN uses (Bifet and Gavaldà 2007, with the variance of the results).
#[must_use]
pub fn since_change(results: &[bool]) -> usize {
    let mut begin = 0;
    while let Some(rest) = results.get(begin..) {
        match change(rest) {
            Some(at) => begin += at,
            None => break,
        }
    }
    begin
}

fn change(results: &[bool]) -> Option<usize> {
    let total = results.len();
    let mut splits = Vec::new();
    let mut newest = total / 2;
    while newest >= LEAST && total - newest >= LEAST {
        splits.push(total - newest);
        newest /= 2;
    }
    let rate = rate(results)?;
    let looks = float(splits.len().max(1));
    let log = libm::log(2.0 * looks / ALPHA);
    splits.into_iter().find(|&at| {
        let (before, after) = results.split_at(at);
        let harmonic = 1.0 / (1.0 / float(before.len()) + 1.0 / float(after.len()));
        let bound = (2.0 / harmonic * rate * (1.0 - rate) * log).sqrt() + 2.0 / (3.0 * harmonic) * log;
        let difference = self::rate(before).zip(self::rate(after)).map(|(a, b)| (a - b).abs());
        difference.is_some_and(|difference| difference > bound)
    })
}

fn rate(results: &[bool]) -> Option<f64> {
    let good = results.iter().filter(|result| **result).count();
    (!results.is_empty()).then(|| float(good) / float(results.len()))
}

#[expect(clippy::cast_precision_loss, reason = "there are at most some thousand results")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use logline_core::Hash;

    use super::super::Chance;
    use super::*;

    fn results(rates: &[(f64, usize)], seed: u32) -> Vec<bool> {
        let mut chance = Chance::new(&Hash::of(&seed.to_be_bytes()));
        rates.iter().flat_map(|&(rate, n)| std::iter::repeat_n(rate, n)).map(|rate| chance.uniform() < rate).collect()
    }

    #[test]
    fn a_change_is_found_near_where_it_was() {
        let found: Vec<usize> = (0..50).map(|seed| since_change(&results(&[(0.9, 500), (0.4, 300)], seed))).collect();
        let near = found.iter().filter(|at| (400..=700).contains(*at)).count();
        assert!(near >= 48, "{found:?}");
    }

    #[test]
    fn where_nothing_changed_nothing_is_forgotten() {
        for rate in [0.05, 0.5, 0.95] {
            let false_alarms = (0..200).filter(|&seed| since_change(&results(&[(rate, 1_000)], seed)) > 0).count();
            assert!(false_alarms <= 4, "{rate}: {false_alarms} of 200");
        }
    }

    #[test]
    fn few_results_are_no_change() {
        assert_eq!(since_change(&[]), 0);
        assert_eq!(since_change(&[true]), 0);
        let few: Vec<bool> = (0..59).map(|n| n < 30).collect();
        assert_eq!(since_change(&few), 0);
    }
}
