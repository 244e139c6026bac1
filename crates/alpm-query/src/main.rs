//! Prints the packages that own paths and kernels, as JSON. This is the only program that links
//! libalpm.
//!
//! ```text
//! alpm-query [--root DIR] [--dbpath DIR] owner PATH…
//! alpm-query [--root DIR] [--dbpath DIR] kernel RELEASE…
//! alpm-query [--root DIR] [--dbpath DIR] batch          lines "owner PATH", "kernel RELEASE"
//! ```
//!
//! libalpm depends on about 35 libraries, and a transaction that upgrades one of them can keep this
//! program from starting. The hooks are separate programs, so they run nevertheless. This program
//! takes no lock, so it works while pacman holds the database lock.

mod answers;
mod args;
mod database;

use std::io::{self, Write};
use std::process::ExitCode;

use answers::Answers;
use args::QueryArgs;
use database::Database;

fn main() -> ExitCode {
    match answer() {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_closed_pipe) => ExitCode::FAILURE,
        },
        Err(why) => {
            let _ = writeln!(io::stderr(), "alpm-query: {}", why.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<String, String> {
    let args = QueryArgs::read(std::env::args_os().skip(1), &mut io::stdin().lock())?;
    let database = Database::open(&args)?;
    let answers = Answers::find(&args.lookups, &database);
    serde_json::to_string(&answers).map(|text| text + "\n").map_err(|why| why.to_string())
}
