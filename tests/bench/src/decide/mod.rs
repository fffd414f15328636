//! `decide`: what one decision costs, rule for rule.
//!
//! Every engine is given the same facts, from the host's own struct, and
//! translates them within the measured loop, as a host must. Before anything is
//! measured all of them must agree on every input. Rounds of all engines take
//! turns on one thread, so that noise hits all alike.

mod cedar;
mod cel;
mod inputs;
mod native;
mod rego;
mod sprag;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::{Kept, median, verdict};
use inputs::Case;

/// The most that a decision may cost, as a share of what regorus takes.
const BOUND: f64 = 0.6;

#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each engine
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Decisions in a round
    #[arg(long, default_value_t = 480)]
    decisions: usize,
    /// Only the engines whose name holds this; nothing is compared then
    #[arg(long)]
    only: Option<String>,
}

impl Default for Args {
    fn default() -> Self {
        Self { rounds: 200, decisions: 480, only: None }
    }
}

/// A verdict on one candidate, in the words that every engine has.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Allow(String),
    Abstain,
}

/// One way to run the rule, prepared once.
trait Engine {
    fn name(&self) -> &'static str;

    /// One word per candidate, in their order.
    fn decide(&mut self, case: &Case) -> Result<Vec<Word>>;
}

const SPRAG: &str = "Sprag, a new sandbox each";
const REGORUS: &str = "regorus";

pub fn run(args: &Args) -> Result<Kept> {
    let cases = inputs::cases();
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(sprag::Sprag::load()?),
        Box::new(rego::Interpreter::prepare()?),
        Box::new(rego::Machine::prepare()?),
        Box::new(cel::Cel::prepare()?),
        Box::new(cedar::Cedar::prepare()?),
        Box::new(native::Native),
    ];
    for engine in &mut engines {
        for case in &cases {
            let words = engine.decide(case)?;
            ensure!(words == case.expected, "{} says {words:?} of {case:?}", engine.name());
        }
    }
    if let Some(only) = &args.only {
        engines.retain(|engine| engine.name().contains(only.as_str()));
    }
    let rounds = measure(&mut engines, &cases, args)?;
    Ok(report(&engines, &rounds, &cases, args))
}

/// µs per decision: of each engine, of each round.
fn measure(engines: &mut [Box<dyn Engine>], cases: &[Case], args: &Args) -> Result<Vec<Vec<f64>>> {
    let mut rounds = vec![Vec::with_capacity(args.rounds); engines.len()];
    // The first tenth warms caches and is not counted.
    let warm = args.rounds / 10;
    for round in 0..args.rounds + warm {
        for (engine, rounds) in engines.iter_mut().zip(&mut rounds) {
            let start = Instant::now();
            for case in cases.iter().cycle().take(args.decisions) {
                black_box(engine.decide(black_box(case))?);
            }
            if round >= warm {
                rounds.push(start.elapsed().as_secs_f64() * 1e6 / args.decisions as f64);
            }
        }
    }
    Ok(rounds)
}

fn report(engines: &[Box<dyn Engine>], rounds: &[Vec<f64>], cases: &[Case], args: &Args) -> Kept {
    let of = |name| {
        let place = engines.iter().position(|engine| engine.name() == name);
        place.map_or(f64::NAN, |place| median(&rounds[place]))
    };
    let (ours, reference) = (of(SPRAG), of(REGORUS));
    println!("decide: {} rounds of {} decisions, {} inputs", args.rounds, args.decisions, cases.len());
    println!("{:<28} {:>10} {:>8} {:>12}", "", "median µs", "min µs", "of regorus");
    for (engine, rounds) in engines.iter().zip(rounds) {
        let middle = median(rounds);
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{:<28} {middle:>10.2} {least:>8.2} {:>12.3}", engine.name(), middle / reference);
    }
    if args.only.is_some() {
        return true;
    }
    let ratio = ours / reference;
    let kept = ratio <= BOUND;
    println!("{}: {ratio:.3} of regorus, at most {BOUND}", verdict(kept));
    kept
}
