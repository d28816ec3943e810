//! One choice.

use logline_core::Hash;
use serde::{Deserialize, Serialize};

use super::chance::Chance;

/// A variant that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// How many results are known of it.
    pub known: u64,
    /// In how many of [`DRAWS`](super::DRAWS) draws it is the best.
    pub share: u32,
}

/// Why a variant was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// There was no other.
    Only,
    /// Too few results were known of it.
    Exploring,
    /// By its share.
    Share,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The place of the arm in the list.
    pub arm: usize,
    /// How likely this choice was.
    pub propensity: f64,
    /// Why it was made.
    pub why: Why,
}

/// Chooses an arm. As long as an arm has fewer than `min_samples` results, one of those arms is chosen, each as likely as the others.
/// Then each arm is chosen with the likelihood `floor`, and what is left is divided by the shares.
///
/// `None`: there are no arms.
#[must_use]
pub fn choose(arms: &[Arm], floor: f64, min_samples: u64, seed: &Hash) -> Option<Choice> {
    let likely = likelihoods(arms, floor, min_samples);
    let mut left = Chance::new(seed).uniform();
    let mut chosen = None;
    for (arm, (likelihood, why)) in likely.into_iter().enumerate() {
        if likelihood <= 0.0 {
            continue;
        }
        // If rounding leaves something over, the last arm gets it.
        chosen = Some(Choice { arm, propensity: likelihood, why });
        if left < likelihood {
            break;
        }
        left -= likelihood;
    }
    chosen
}

fn likelihoods(arms: &[Arm], floor: f64, min_samples: u64) -> Vec<(f64, Why)> {
    if arms.len() == 1 {
        return vec![(1.0, Why::Only)];
    }
    let is_new = |arm: &Arm| arm.known < min_samples;
    let new = arms.iter().filter(|arm| is_new(arm)).count();
    if new > 0 {
        let each = 1.0 / float(new);
        return arms.iter().map(|arm| (if is_new(arm) { each } else { 0.0 }, Why::Exploring)).collect();
    }
    // The shares of the arms that are left may not add up to all draws, if others have been taken out.
    let all: u32 = arms.iter().map(|arm| arm.share).fold(0, u32::saturating_add);
    let floor = floor.clamp(0.0, 1.0 / float(arms.len()));
    let rest = 1.0 - floor * float(arms.len());
    let share = |arm: &Arm| if all == 0 { 1.0 / float(arms.len()) } else { f64::from(arm.share) / f64::from(all) };
    arms.iter().map(|arm| (floor + rest * share(arm), Why::Share)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "there are at most some arms")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(known: u64, share: u32) -> Arm {
        Arm { known, share }
    }

    fn often(arms: &[Arm], floor: f64) -> Vec<usize> {
        let mut chosen = vec![0; arms.len()];
        for n in 0..10_000_u32 {
            chosen[choose(arms, floor, 10, &Hash::of(&n.to_be_bytes())).unwrap().arm] += 1;
        }
        chosen
    }

    #[test]
    fn arms_are_chosen_as_often_as_their_propensity_says() {
        let arms = [arm(100, 3_072), arm(100, 1_024), arm(50, 0)];
        let chosen = often(&arms, 0.05);
        let expected = [0.05 + 0.85 * 0.75, 0.05 + 0.85 * 0.25, 0.05];
        for (chosen, expected) in chosen.iter().zip(expected) {
            assert!((f64::from(u32::try_from(*chosen).unwrap()) / 10_000.0 - expected).abs() < 0.02, "{chosen} {expected}");
        }
        for n in 0..200_u32 {
            let choice = choose(&arms, 0.05, 10, &Hash::of(&n.to_be_bytes())).unwrap();
            assert!((choice.propensity - expected[choice.arm]).abs() < 1e-12 && choice.why == Why::Share);
        }
    }

    #[test]
    fn arms_of_which_little_is_known_come_first() {
        let arms = [arm(100, 4_096), arm(9, 0), arm(0, 0)];
        let chosen = often(&arms, 0.05);
        assert_eq!(chosen[0], 0);
        assert!(chosen[1] > 4_500 && chosen[2] > 4_500, "{chosen:?}");
        let choice = choose(&arms, 0.05, 10, &Hash::of(b"x")).unwrap();
        assert_eq!((choice.propensity, choice.why), (0.5, Why::Exploring));
    }

    #[test]
    fn without_a_floor_what_has_no_share_is_never_chosen() {
        assert_eq!(often(&[arm(20, 4_096), arm(20, 0)], 0.0)[1], 0);
        assert_eq!(choose(&[], 0.1, 1, &Hash::of(b"x")), None);
        let only = choose(&[arm(0, 0)], 0.1, 10, &Hash::of(b"x")).unwrap();
        assert_eq!((only.arm, only.propensity, only.why), (0, 1.0, Why::Only));
    }

    #[test]
    fn shares_of_which_some_were_taken_out_are_shared_out_again() {
        let choice = choose(&[arm(20, 512), arm(20, 512)], 0.0, 10, &Hash::of(b"x")).unwrap();
        assert!((choice.propensity - 0.5).abs() < 1e-12);
        let none = choose(&[arm(20, 0), arm(20, 0)], 0.0, 10, &Hash::of(b"x")).unwrap();
        assert!((none.propensity - 0.5).abs() < 1e-12);
        let absurd = choose(&[arm(20, 1), arm(20, 1)], f64::NAN, 10, &Hash::of(b"x"));
        assert!(absurd.is_none_or(|choice| choice.arm < 2));
    }
}
