//! Prints JSON: the packages that own paths and kernels, or the packages that a transaction is
//! about to install. This is the only program that links libalpm.
//!
//! ```text
//! alpm-query [--root DIR] [--dbpath DIR] owner PATH…
//! alpm-query [--root DIR] [--dbpath DIR] kernel RELEASE…
//! alpm-query [--root DIR] [--dbpath DIR] available NAME…
//! alpm-query [--root DIR] [--dbpath DIR] batch          lines such as "owner PATH"
//! alpm-query [--root DIR] [--dbpath DIR] arriving [--pacman PID] [FILE…]
//! ```
//!
//! `arriving` reads pacman's targets from standard input, as a PreTransaction hook gets them, and
//! finds the package files that contain them (see `arriving.rs`). PID is the process that runs the
//! transaction. With FILEs, alpm-query describes these files and does not read standard input. In
//! that case, the targets are the paths in the files that would trigger the hooks.
//!
//! libalpm depends on about 35 libraries, and a transaction that upgrades one of them can keep this
//! program from starting. The hooks are separate programs, so they run nevertheless. This program
//! takes no lock, so it works while pacman holds the database lock.

mod answers;
mod args;
mod arriving;
mod command_line;
mod configuration;
mod database;
mod no_extract;
mod package_files;
mod relations;
mod toolchain;

use std::io::{self, Write};
use std::process::ExitCode;

use answers::Answers;
use args::{Lookup, QueryArgs, Request};
use arriving::Arriving;
use configuration::Configuration;
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
    let json = match &args.request {
        Request::Lookups(lookups) => {
            let mut database = Database::open(&args.root, args.dbpath.as_deref())?;
            if lookups.iter().any(|lookup| matches!(lookup, Lookup::Available(_))) {
                database.configure(&Configuration::read(&args.root, None));
            }
            serde_json::to_string(&Answers::find(lookups, &database))
        }
        Request::Arriving(transaction) => {
            serde_json::to_string(&Arriving::find(&args.root, args.dbpath.as_deref(), transaction)?)
        }
    };
    json.map(|text| text + "\n").map_err(|why| why.to_string())
}
