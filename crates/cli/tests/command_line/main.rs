//! Tests of the program from the command line, on small roots where modules "compile" in
//! milliseconds.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod bad_input;
mod commands;
mod complaints;
mod fixture;
mod foreign_sources;
mod kernels;
mod lint;
mod overrides;
mod restricted;
mod signing;
mod sources;
mod threads;
