//! What is lost by not always playing the best arm: the library's choices beside textbook ones, in games whose rates are known.
//!
//! `cargo bench -p logline-benches --bench regret` prints a table and writes `docs/images/regret.svg`. It measures no time, so it gives the
//! same numbers everywhere. With `--test` it plays a few rounds only.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench")]

use std::fmt::Write as _;

use logline_core::Hash;
use logline_prompts::bandit::{Arm, Chance, Counts, choose, shares, since_change};
use rayon::prelude::*;

/// Rates of the arms, from the first pull and from the middle of the game.
struct Game {
    name: &'static str,
    first: Vec<f64>,
    then: Vec<f64>,
}

fn games() -> Vec<Game> {
    let steady = |name, rates: Vec<f64>| Game { name, first: rates.clone(), then: rates };
    let mut ten = vec![0.45; 10];
    ten[0] = 0.5;
    vec![
        steady("two arms, .7 .6", vec![0.7, 0.6]),
        steady("three arms, .9 .8 .8", vec![0.9, 0.8, 0.8]),
        steady("ten arms, .5 and nine .45", ten),
        Game { name: "two arms that swap, .7 .5", first: vec![0.7, 0.5], then: vec![0.5, 0.7] },
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The library, with its floor of 0.05.
    Ours,
    /// The library without a floor.
    OursNoFloor,
    /// A draw of each arm for each pull.
    Thompson,
    Ucb1,
    /// Nine times of ten the best so far.
    Greedy,
    Uniform,
}

const WAYS: [(Way, &str); 6] = [
    (Way::Ours, "ours"),
    (Way::OursNoFloor, "ours, floor 0"),
    (Way::Thompson, "Thompson"),
    (Way::Ucb1, "UCB1"),
    (Way::Greedy, "epsilon-greedy"),
    (Way::Uniform, "uniform"),
];

/// The pulls after which the loss is noted.
const POINTS: [usize; 9] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 7_500, 10_000];

/// Draws for shares. The library uses 4,096; a quarter changes nothing that can be seen here.
const DRAWS: u32 = 1_024;

struct Player {
    way: Way,
    counts: Vec<Counts>,
    results: Vec<Vec<bool>>,
    shares: Vec<u32>,
    /// The pull at which the shares are renewed.
    due: usize,
    known: Vec<Counts>,
}

impl Player {
    fn new(way: Way, arms: usize) -> Self {
        let none = vec![Counts::default(); arms];
        let shares = vec![0; arms];
        Self { way, counts: none.clone(), results: vec![Vec::new(); arms], shares, due: 0, known: none }
    }

    fn pull(&mut self, pulled: usize, seed: &Hash, chance: &mut Chance) -> usize {
        let arms = self.counts.len();
        let best = |value: &mut dyn FnMut(usize) -> f64| {
            (0..arms).map(|arm| (arm, value(arm))).fold((0, f64::MIN), |a, b| if b.1 > a.1 { b } else { a }).0
        };
        let (good, all) = (|c: &Counts| c.good as f64, |c: &Counts| c.total() as f64);
        match self.way {
            Way::Ours | Way::OursNoFloor => {
                if pulled >= self.due {
                    self.known = self.results.iter().map(|results| recent(results)).collect();
                    self.shares = shares(&self.known, seed, DRAWS);
                    self.due = pulled + (pulled / 50).max(20);
                }
                let known = self.known.iter().zip(&self.shares);
                let arms: Vec<Arm> = known.map(|(known, share)| Arm { known: known.total(), share: *share }).collect();
                let floor = if self.way == Way::Ours { 0.05 } else { 0.0 };
                choose(&arms, floor, 10, seed).unwrap().arm
            }
            Way::Thompson => best(&mut |arm| {
                chance.beta(1.0 + good(&self.counts[arm]), 1.0 + all(&self.counts[arm]) - good(&self.counts[arm]))
            }),
            Way::Ucb1 => best(&mut |arm| {
                let n = all(&self.counts[arm]);
                if n == 0.0 { f64::MAX } else { good(&self.counts[arm]) / n + (2.0 * (pulled as f64).ln() / n).sqrt() }
            }),
            Way::Greedy if chance.uniform() >= 0.1 => best(&mut |arm| {
                let n = all(&self.counts[arm]);
                if n == 0.0 { f64::MAX } else { good(&self.counts[arm]) / n }
            }),
            Way::Greedy | Way::Uniform => (chance.uniform() * arms as f64) as usize,
        }
    }
}

/// What a posterior counts: the newest 2,000 results since the last change.
fn recent(results: &[bool]) -> Counts {
    let results = &results[results.len().saturating_sub(2_000)..];
    let mut counts = Counts::default();
    results[since_change(results)..].iter().for_each(|&is_good| counts.add(is_good));
    counts
}

/// The loss at each point.
fn play(game: &Game, way: Way, run: u32, pulls: usize) -> Vec<f64> {
    let seed = |n: usize| Hash::of(format!("{}/{run}/{n}", game.name).as_bytes());
    let mut chance = Chance::new(&seed(usize::MAX));
    let mut player = Player::new(way, game.first.len());
    let (mut loss, mut noted) = (0.0, Vec::new());
    for pulled in 0..pulls {
        let rates = if pulled < pulls / 2 { &game.first } else { &game.then };
        let arm = player.pull(pulled, &seed(pulled), &mut chance);
        let is_good = chance.uniform() < rates[arm];
        player.counts[arm].add(is_good);
        player.results[arm].push(is_good);
        loss += rates.iter().copied().fold(f64::MIN, f64::max) - rates[arm];
        if POINTS.contains(&(pulled + 1)) {
            noted.push(loss);
        }
    }
    noted
}

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (runs, pulls) = if is_test { (2, 1_000) } else { (400, 10_000) };
    let mut plots = Vec::new();
    for game in games() {
        println!("\n{} ({runs} games)\n\n| | after 1,000 pulls | after 10,000 |\n|---|---|---|", game.name);
        let mut lines = Vec::new();
        for (way, name) in WAYS {
            let all: Vec<Vec<f64>> = (0..runs).into_par_iter().map(|run| play(&game, way, run, pulls)).collect();
            let mean: Vec<f64> =
                (0..all[0].len()).map(|at| all.iter().map(|one| one[at]).sum::<f64>() / f64::from(runs)).collect();
            let last = if is_test { f64::NAN } else { mean[8] };
            println!("| {name} | {:.1} | {last:.1} |", mean[4]);
            lines.push((name, mean));
        }
        plots.push((game.name, lines));
    }
    if !is_test {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images/regret.svg");
        std::fs::write(path, svg(&plots)).unwrap();
    }
}

type Line = (&'static str, Vec<f64>);

const COLOURS: [&str; 6] = ["#0b6", "#083", "#36c", "#c60", "#a3a", "#888"];

/// Four plots of the mean loss over pulls.
fn svg(plots: &[(&str, Vec<Line>)]) -> String {
    let (width, height) = (380.0, 240.0);
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 560\" font-family=\"sans-serif\" font-size=\"12\">\n",
    );
    out.push_str("<rect width=\"800\" height=\"560\" fill=\"#fff\"/>\n");
    for (n, (name, lines)) in plots.iter().enumerate() {
        let (left, top) = (10.0 + (n % 2) as f64 * 400.0, 24.0 + (n / 2) as f64 * 270.0);
        // What is lost by chance alone does not fit beside the others.
        let shown = lines.iter().filter(|(name, _)| *name != "uniform");
        let most = shown.flat_map(|(_, mean)| mean).copied().fold(1.0, f64::max);
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\">{name}: loss, up to {most:.0}, over 10,000 pulls</text>", top - 6.0);
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#ccc\"/>"
        );
        for ((_, mean), colour) in lines.iter().zip(COLOURS) {
            let point = |(at, loss): (&usize, &f64)| {
                let y = (top + height - height * (loss / most)).max(top);
                format!("{:.1},{y:.1}", left + width * (*at as f64) / 10_000.0)
            };
            let points: Vec<_> = POINTS.iter().zip(mean).map(point).collect();
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
                points.join(" ")
            );
        }
    }
    for (n, ((_, name), colour)) in WAYS.iter().zip(COLOURS).enumerate() {
        let x = 10.0 + n as f64 * 130.0;
        let _ = writeln!(out, "<text x=\"{x}\" y=\"552\" fill=\"{colour}\">{name}</text>");
    }
    out.push_str("</svg>\n");
    out
}
