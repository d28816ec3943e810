//! Modules made to cost the compiler as much as possible. The worst of them that the scan lets pass are compiled under limits of the
//! operating system: memory and processor time are bounded, whatever tenants publish.
//!
//! `cargo xtask bombs` does with whole modules what the suite does with one function of each kind, and prints what they cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

const MAX_BODY: usize = 64 << 10;

/// Types of locals.
const I32: u8 = 0x7f;
const I64: u8 = 0x7e;
const F64: u8 = 0x7c;

fn leb(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

fn local(op: u8, index: usize) -> Vec<u8> {
    [vec![op], leb(index)].concat()
}

fn get(index: usize) -> Vec<u8> {
    local(0x20, index)
}

/// Adds one to a local.
fn bump(index: usize) -> Vec<u8> {
    [get(index), vec![0x41, 1, 0x6a], local(0x21, index)].concat()
}

/// Makes a local of two others by one instruction.
fn combine(op: u8, i: usize, locals: usize) -> Vec<u8> {
    [get(i % locals), get((i * 7 + 1) % locals), vec![op], local(0x21, (i * 13 + 5) % locals)].concat()
}

/// A function that changes its locals in many places and needs every one of them in the end.
struct Bomb {
    name: String,
    locals: usize,
    ty: u8,
    /// Blocks around all units.
    nested: usize,
    unit: Box<dyn Fn(usize, usize) -> Vec<u8>>,
}

impl Bomb {
    fn new(name: &str, locals: usize, ty: u8, unit: impl Fn(usize, usize) -> Vec<u8> + 'static) -> Self {
        Self { name: name.to_owned(), locals, ty, nested: 0, unit: Box::new(unit) }
    }

    fn within(mut self, nested: usize) -> Self {
        self.nested = nested;
        self
    }

    /// Its code with so many units.
    fn body(&self, units: usize) -> Vec<u8> {
        let store: &[u8] = match self.ty {
            I32 => &[0x36, 2],
            I64 => &[0x37, 3],
            _ => &[0x39, 3],
        };
        let mut code = [leb(1), leb(self.locals), vec![self.ty], [0x02, 0x40].repeat(self.nested)].concat();
        (0..units).for_each(|i| code.extend((self.unit)(i, self.locals)));
        code.extend(vec![0x0b; self.nested]);
        for i in 0..self.locals {
            code.extend([vec![0x41, 0], get(i), store.to_vec(), leb(i * 8)].concat());
        }
        code.push(0x0b);
        code
    }
}

fn bombs(locals: usize) -> Vec<Bomb> {
    let n = locals;
    let mut bombs = vec![
        Bomb::new("ifs", n, I32, |i, n| [get(0), vec![0x04, 0x40], bump(i % n), vec![0x0b]].concat()),
        Bomb::new("loops", n, I32, |i, n| [vec![0x03, 0x40], bump(i % n), get(0), vec![0x0d, 0, 0x0b]].concat()),
        Bomb::new("tables", n, I32, |i, n| {
            let targets: Vec<u8> = (0..20).map(|j| 1 + ((i * 7 + j * 13) % 40) as u8).collect();
            [bump(i % n), get(0), vec![0x04, 0x40], get(0), vec![0x0e, 20], targets, vec![1, 0x0b]].concat()
        })
        .within(42),
        Bomb::new("call_indirect", n, I32, |i, n| [get(i % n), vec![0x11, 0, 0]].concat()),
        Bomb::new("grow", n, I32, |i, n| [get(i % n), vec![0x40, 0], local(0x21, i % n)].concat()),
        Bomb::new("fill", n, I32, |i, n| [get(i % n), get((i * 7) % n), get((i * 3) % n), vec![0xfc, 0x0b, 0]].concat()),
        Bomb::new("call", n, I32, |_, _| vec![0x10, 0]),
        Bomb::new("add_f64", n, F64, |i, n| combine(0xa0, i, n)),
        Bomb::new("min_f64", n, F64, |i, n| combine(0xa4, i, n)),
        Bomb::new("div_i64", n, I64, |i, n| combine(0x7f, i, n)),
    ];
    for nested in [10, 40, 160, 640] {
        // Out of blocks that are nested, each time with another local changed.
        let leave = move |i: usize, n: usize| [bump(i % n), get(0), local(0x0d, i % nested)].concat();
        bombs.push(Bomb::new(&format!("leave {nested}"), n, I32, leave).within(nested));
    }
    bombs
}

fn section(id: u8, content: Vec<u8>) -> Vec<u8> {
    [vec![id], leb(content.len()), content].concat()
}

/// Modules whose beginning has so many parts: of it the compiler makes functions as well.
fn beginnings(count: usize) -> Vec<(&'static str, Vec<u8>)> {
    let head = || [b"\0asm\x01\0\0\0".to_vec(), section(1, vec![1, 0x60, 0, 0]), section(3, vec![1, 0])].concat();
    let (table, memory, code) = (section(4, vec![1, 0x70, 0, 1]), section(5, vec![1, 0, 2]), section(10, vec![1, 2, 0, 0x0b]));
    let many = |id: u8, part: &[u8]| section(id, [leb(count), part.repeat(count)].concat());
    // A function of the module in one element, and as an expression.
    let (plain, passive) = ([leb(count), vec![0; count]].concat(), [leb(count), [0xd2, 0, 0x0b].repeat(count)].concat());
    let one = |segment: Vec<u8>| section(9, [vec![1], segment].concat());
    // i32.const 1, i32.const 1, i32.add: nothing that is computed beforehand.
    let offset = [0x41, 1, 0x41, 1, 0x6a, 0x0b];
    let types: Vec<u8> = (0..count)
        .flat_map(|n| {
            [vec![0x60, 16], (0..16).map(|bit| if n >> bit & 1 == 1 { I32 } else { F64 }).collect(), vec![0]].concat()
        })
        .collect();
    vec![
        ("elements", [head(), table.clone(), one([vec![0, 0x41, 0, 0x0b], plain].concat()), code.clone()].concat()),
        ("passive", [head(), table.clone(), one([vec![5, 0x70], passive].concat()), code.clone()].concat()),
        ("segments", [head(), table, many(9, &[&[0][..], &offset, &[1, 0]].concat()), code.clone()].concat()),
        ("data", [head(), memory, code.clone(), many(11, &[&[0][..], &offset, &[1, 7]].concat())].concat()),
        ("globals", [head(), many(6, &[&[I32, 0][..], &offset].concat()), code.clone()].concat()),
        (
            "types",
            [b"\0asm\x01\0\0\0".to_vec(), section(1, [leb(count), types].concat()), section(3, vec![0]), section(10, vec![0])]
                .concat(),
        ),
    ]
}

/// Blocks of types, so many: what they take and leave is kept like locals. And functions of as many parameters as there can be.
fn typed(count: usize) -> Vec<(&'static str, u8, Vec<u8>)> {
    let zeros = [0x41, 0].repeat(32);
    let nested =
        [vec![0], zeros, [0x03, 1].repeat(count), vec![0x1a; 24], vec![0x0b; count], vec![0x1a; 8], vec![0x0b]].concat();
    let flat = [vec![0], [0x02, I32, 0x41, 0, 0x0b, 0x1a].repeat(count), vec![0x0b]].concat();
    let ifs = (0..count).flat_map(|i| [get(0), vec![0x04, 0x40], bump(i % 32), vec![0x0b]].concat());
    let params = [vec![0], ifs.collect(), vec![0x0b]].concat();
    vec![("typed blocks", 0, nested), ("block results", 0, flat), ("params", 2, params)]
}

/// A module with this function so many times.
fn module(body: &[u8], count: usize) -> Vec<u8> {
    module_of(0, body, count)
}

fn module_of(ty: u8, body: &[u8], count: usize) -> Vec<u8> {
    let function = [leb(body.len()), body.to_vec()].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(
            1,
            [vec![3, 0x60, 0, 0, 0x60, 32], vec![I32; 32], vec![8], vec![I32; 8], vec![0x60, 32], vec![I32; 32], vec![0]]
                .concat(),
        ),
        section(3, [leb(count), vec![ty; count]].concat()),
        section(4, vec![1, 0x70, 0, 10]),
        section(5, vec![1, 0, 2]),
        section(10, [leb(count), function.repeat(count)].concat()),
    ]
    .concat()
}

fn passes(module: &[u8]) -> bool {
    logline_wasm::check(module).is_ok()
}

/// The largest number up to `high` that fits.
fn most(mut high: usize, fits: impl Fn(usize) -> bool) -> usize {
    let mut low = 0;
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// Compiles within these limits; seconds, and the most memory that was seen in use, MiB.
fn compile(module: &[u8], memory: u64, seconds: u64) -> (f64, u64) {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_logline-wasm-compiler"))
        .args([memory.to_string(), seconds.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(module).unwrap();
    let mut output = child.stdout.take().unwrap();
    // Its first byte comes when all is compiled, and the process is there until the last is read.
    output.read_exact(&mut [0]).unwrap_or_else(|_| panic!("{:?} of {memory} bytes, {seconds} s", child.wait().unwrap()));
    let took = started.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    output.read_to_end(&mut Vec::new()).unwrap();
    assert!(child.wait().unwrap().success());
    (took, peak.unwrap_or(0) >> 10)
}

#[test]
fn whatever_passes_the_scan_is_compiled_within_bounds() {
    let whole = std::env::var_os("LOGLINE_BOMBS").is_some();
    let mut compiled = 0;
    for locals in if whole { &[8, 30, 100, 250, 490][..] } else { &[30, 490] } {
        for bomb in bombs(*locals) {
            let units = most(MAX_BODY / 3, |units| passes(&module(&bomb.body(units), 1)));
            if units == 0 {
                continue;
            }
            let body = bomb.body(units);
            let (count, (seconds, mib)) = if whole {
                let count = most((1 << 20) / body.len(), |count| passes(&module(&body, count)));
                (count, compile(&module(&body, count), 2 << 30, 60))
            } else {
                // A whole module may be as much as all together.
                (1, compile(&module(&body, 1), 512 << 20, 10))
            };
            compiled += 1;
            println!(
                "{:>13}, {locals:>3} locals: {count:>3} functions of {units:>5} units, {:>5} bytes each: {seconds:>5.2} s, {mib} MiB",
                bomb.name,
                body.len()
            );
        }
    }
    for kind in 0..beginnings(0).len() {
        let count = most(100_000, |count| passes(&beginnings(count)[kind].1));
        let (name, module) = &beginnings(count)[kind];
        assert!(count < 20_000, "{name}: {count}");
        let (seconds, mib) = compile(module, 512 << 20, 10);
        println!("{name:>13}, {count} of them: {seconds:>5.2} s, {mib} MiB");
    }
    for kind in 0..typed(0).len() {
        let of = |units: usize| typed(units).swap_remove(kind);
        let units = most(MAX_BODY / 3, |units| passes(&module_of(of(units).1, &of(units).2, 1)));
        let (name, ty, body) = of(units);
        let count = if whole { most((1 << 20) / body.len(), |count| passes(&module_of(ty, &body, count))) } else { 1 };
        let (memory, seconds) = if whole { (2 << 30, 60) } else { (512 << 20, 10) };
        let (seconds, mib) = compile(&module_of(ty, &body, count), memory, seconds);
        println!(
            "{name:>13}: {count:>3} functions of {units:>5} units, {:>5} bytes each: {seconds:>5.2} s, {mib} MiB",
            body.len()
        );
    }
    assert!(compiled > 20, "most kinds have some that pass: {compiled}");
}

#[test]
fn what_would_cost_more_is_refused_with_what_to_do() {
    let refusal = |module: &[u8]| logline_wasm::check(module).unwrap_err().to_string();
    let meets = ["ifs", "loops", "tables", "call_indirect", "grow", "fill"];
    for bomb in bombs(490).into_iter().filter(|bomb| meets.contains(&bomb.name.as_str())) {
        let message = refusal(&module(&bomb.body(3000), 1));
        assert!(message.contains("split it"), "{}: {message}", bomb.name);
    }
    for (name, ty, body) in typed(5_000) {
        assert!(refusal(&module_of(ty, &body, 1)).contains("split it"), "{name}");
    }
    for (name, module) in beginnings(100_000) {
        let message = refusal(&module);
        assert!(message.contains("join them") || name == "types" && message.contains("100000 types"), "{name}: {message}");
    }
    let small = bombs(490).remove(0).body(70);
    let message = refusal(&module(&small, 1000));
    assert!(message.contains("make the module smaller"), "{message}");
    assert!(refusal(&module(&[0, 0x0b], 10_001)).contains("more than 10000 functions"));
    // The one that took 26 GB: 817 KB with 5,000 locals.
    let many = Bomb::new("ifs", 5000, I32, |i, n| [get(0), vec![0x04, 0x40], bump(i % n), vec![0x0b]].concat());
    assert!(refusal(&module(&many.body(3000), 14)).contains("the limit is 65536"));
    assert!(refusal(&module(&many.body(100), 14)).contains("5000 locals, the limit is 500"));
}
