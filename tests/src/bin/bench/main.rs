//! Measures alpm-dkms and the real dkms in turn, and the time that the compilers alone need.
//!
//! Usage: `bench [--rounds N] [--out FILE] [--ours] [--simulation FILE] [ROW]...`
//!
//! The rows are those of [`rows::ROWS`], by default all. The page of results is written to
//! standard output or to FILE. `--ours` measures only alpm-dkms. `--simulation` inserts the output
//! of `make simulate` into the page.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement fails by panicking, and prints its results"
)]

mod compilers_alone;
mod large_machines;
mod machine;
mod measure;
mod page;
mod results;
mod rows;

use std::fs;

use crate::machine::{Machines, Side};
use crate::results::Results;
use crate::rows::{ROWS, Row};

fn main() {
    let options = Options::read(std::env::args().skip(1));
    let mut machines = Machines::default();
    let mut results = Results::default();
    for round in 1..=options.rounds {
        machines.next_round();
        for row in &options.rows {
            eprintln!("round {round} of {}: {}", options.rounds, row.title);
            row.measure(&options.sides, &mut machines, &mut results);
        }
    }
    let page = page::page(&options, &mut machines, &results);
    match &options.out {
        Some(file) => fs::write(file, page).expect("write the page of results"),
        None => print!("{page}"),
    }
}

/// The options of the command line.
struct Options {
    rounds: usize,
    rows: Vec<&'static Row>,
    sides: Vec<Side>,
    out: Option<String>,
    simulation: Option<String>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            rounds: 3,
            rows: Vec::new(),
            sides: vec![Side::Ours, Side::Dkms, Side::PacmanOnly],
            out: None,
            simulation: None,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--rounds" => {
                    let rounds = args.next().and_then(|rounds| rounds.parse().ok());
                    options.rounds =
                        rounds.expect("invalid value for --rounds (expected a number)");
                }
                "--ours" => options.sides = vec![Side::Ours],
                "--out" => options.out = Some(args.next().expect("missing value for --out")),
                "--simulation" => {
                    let text = args.next().and_then(|file| fs::read_to_string(file).ok());
                    options.simulation = Some(text.expect("cannot read the file of --simulation"));
                }
                name => {
                    let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
                    let row = ROWS.iter().find(|row| row.name == name);
                    let row = row.unwrap_or_else(|| {
                        panic!("unknown row: {name} (expected one of {known:?})")
                    });
                    options.rows.push(row);
                }
            }
        }
        if options.rows.is_empty() {
            options.rows = ROWS.iter().collect();
        }
        options
    }
}
