//! Measures how long things take, our engine and the real dkms in turns, beside what the compilers alone need.
//!
//! `bench [--rounds N] [--out FILE] [--ours] [--simulation FILE] [ROW]...`: the rows are those of [`rows::ROWS`], all of
//! them if none is named. The page of results goes to standard output, or to FILE. `--ours` leaves out the others, to try
//! a change. What a simulation of larger machines said is put into the page as it is.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that cannot go on fails by panicking; what it finds is printed"
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
    let wanted = Wanted::read(std::env::args().skip(1));
    let mut machines = Machines::default();
    let mut results = Results::default();
    for round in 1..=wanted.rounds {
        machines.next_round();
        for row in &wanted.rows {
            eprintln!("round {round} of {}: {}", wanted.rounds, row.what);
            row.measure(&wanted.sides, &mut machines, &mut results);
        }
    }
    let page = page::page(&wanted, &mut machines, &results);
    match &wanted.out {
        Some(file) => fs::write(file, page).expect("write the page of results"),
        None => print!("{page}"),
    }
}

/// What the command line asks for.
struct Wanted {
    rounds: usize,
    rows: Vec<&'static Row>,
    sides: Vec<Side>,
    out: Option<String>,
    simulation: Option<String>,
}

impl Wanted {
    fn read(mut args: impl Iterator<Item = String>) -> Self {
        let mut wanted = Self {
            rounds: 3,
            rows: Vec::new(),
            sides: vec![Side::Ours, Side::Dkms, Side::Nobody],
            out: None,
            simulation: None,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--rounds" => {
                    let rounds = args.next().and_then(|rounds| rounds.parse().ok());
                    wanted.rounds = rounds.expect("--rounds wants a number");
                }
                "--ours" => wanted.sides = vec![Side::Ours],
                "--out" => wanted.out = Some(args.next().expect("--out wants a file")),
                "--simulation" => {
                    let text = args.next().and_then(|file| fs::read_to_string(file).ok());
                    wanted.simulation = Some(text.expect("--simulation wants a file"));
                }
                name => {
                    let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
                    let row = ROWS.iter().find(|row| row.name == name);
                    let row =
                        row.unwrap_or_else(|| panic!("`{name}` is none of the rows {known:?}"));
                    wanted.rows.push(row);
                }
            }
        }
        if wanted.rows.is_empty() {
            wanted.rows = ROWS.iter().collect();
        }
        wanted
    }
}
