//! A policy that fails in each of the ways that an author's may; which one, the
//! workspace's id says. The host's tests ask it.

use std::collections::BTreeMap;
use std::hint::black_box;

use sprag_policy::prelude::*;

pub struct Panics;

impl Policy for Panics {
    const NAME: &'static str = "panics";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Fails in the way that the workspace's id names.";
    type Settings = ();
}

impl Guard for Panics {
    fn decide(request: &Request, _: Status) -> Verdict {
        fail(&request.workspace.id);
        Verdict::Abstain
    }
}

#[inline(never)]
fn fail(how: &str) {
    match how {
        "unwrap" => drop(black_box(None::<u8>).unwrap()),
        "expect" => black_box(Err::<(), _>("no such box")).expect("a boot has a box"),
        "index" => drop(black_box([1, 2, 3])[black_box(3)]),
        "divides" => drop(black_box(1) / black_box(0)),
        "borrow" => drop(BTreeMap::from([(1, 2)])[&black_box(3)]),
        "words" => panic!("the fleet of {how} has no name"),
        "long" => panic!("{}", "é".repeat(1_000)),
        "escapes" => panic!("\u{1b}[31mred\u{1b}[0m\r\nERROR forged\u{202e}\0"),
        "larger" => panic!("{}", "x".repeat(100_000)),
        "spent" => drop(black_box(vec![0_u8; 200_000])),
        "clock" => drop(std::time::Instant::now()),
        "own-hook" => {
            std::panic::set_hook(Box::new(|_| panic!("a panic in the hook of a panic")));
            panic!("the first");
        }
        "spins" => spin(),
        _ => {}
    }
}

#[inline(never)]
fn spin() {
    while black_box(true) {}
}

sprag_policy::export!(Panics);
