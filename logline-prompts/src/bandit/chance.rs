//! Chance that is the same on every machine: ChaCha12 from a seed of 32 bytes, and arithmetic that `libm` does in software.

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use logline_core::Hash;

/// A stream of random numbers. The same seed gives the same numbers, to the bit, on every platform.
#[derive(Debug)]
pub struct Chance {
    stream: ChaCha12Rng,
}

/// 2^-53: the distance between neighbouring numbers of [`Chance::uniform`].
const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;

/// How often a gamma variate is tried. More than 95 of 100 tries succeed.
const TRIES: u32 = 1_000;

impl Chance {
    /// The stream of this seed: ChaCha with 12 rounds, key = seed, nonce and counter zero.
    #[must_use]
    pub fn new(seed: &Hash) -> Self {
        Self { stream: ChaCha12Rng::from_seed(*seed.as_bytes()) }
    }

    /// A number in [0, 1): the upper 53 bits of the next 64, as a fraction.
    pub fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = (self.stream.next_u64() >> 11) as f64;
        bits * STEP
    }

    /// A normal variate, by Box and Muller: the cosine half of a pair, the other half is not used.
    pub fn normal(&mut self) -> f64 {
        // In (0, 1], so that its logarithm exists.
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(2.0 * std::f64::consts::PI * self.uniform())
    }

    /// A gamma variate of scale 1 for a shape of at least 1, by Marsaglia and Tsang (2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        for _ in 0..TRIES {
            let x = self.normal();
            let t = 1.0 + c * x;
            if t <= 0.0 {
                continue;
            }
            let v = t * t * t;
            // In (0, 1].
            let u = 1.0 - self.uniform();
            if libm::log(u) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
        d
    }

    /// A beta variate. Both parameters must be at least 1.
    pub fn beta(&mut self, alpha: f64, beta: f64) -> f64 {
        let a = self.gamma(alpha.max(1.0));
        let b = self.gamma(beta.max(1.0));
        a / (a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of `docs/bandit.md`, which another implementation computed as well.
    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let seed = Hash::of(b"logline");
        let mut chance = Chance::new(&seed);
        let uniform: Vec<u64> = (0..3).map(|_| chance.uniform().to_bits()).collect();
        let normal: Vec<u64> = (0..3).map(|_| chance.normal().to_bits()).collect();
        let beta: Vec<u64> = (0..3).map(|n| chance.beta(1.0 + f64::from(n), 3.0).to_bits()).collect();
        let found = [uniform, normal, beta];
        assert_eq!(found, VECTORS, "{found:#x?}");
    }

    const VECTORS: [[u64; 3]; 3] = [
        [0x3fd8_7eb1_6018_8fc6, 0x3fa3_14c8_f3ce_8040, 0x3fb9_704e_d1e3_7a70],
        [0x3fe2_59c4_8633_6d46, 0x3fca_d44d_f619_6301, 0x3fd9_f3d9_fedc_62c2],
        [0x3fa6_303b_08a6_ee31, 0x3fb7_6f3d_af67_ce4b, 0x3fd7_9b48_18a5_4e22],
    ];

    #[test]
    fn variates_have_their_mean_and_spread() {
        let mut chance = Chance::new(&Hash::of(b"moments"));
        let n = 40_000;
        let mut moments = |mut draw: Box<dyn FnMut(&mut Chance) -> f64>| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..n {
                let x = draw(&mut chance);
                sum += x;
                squares += x * x;
            }
            let mean = sum / f64::from(n);
            (mean, squares / f64::from(n) - mean * mean)
        };
        let near = |(mean, variance): (f64, f64), wanted: (f64, f64)| {
            assert!((mean - wanted.0).abs() < 0.02 && (variance - wanted.1).abs() < 0.02, "{mean} {variance}, not {wanted:?}");
        };
        near(moments(Box::new(Chance::uniform)), (0.5, 1.0 / 12.0));
        near(moments(Box::new(Chance::normal)), (0.0, 1.0));
        for (a, b) in [(1.0, 1.0), (2.0, 5.0), (30.0, 10.0), (700.0, 300.0)] {
            let variance = a * b / ((a + b) * (a + b) * (a + b + 1.0));
            near(moments(Box::new(move |chance| chance.beta(a, b))), (a / (a + b), variance));
        }
    }
}
