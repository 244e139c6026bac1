//! The `dkms` command: adds, builds and installs kernel modules.

mod args;
mod commands;
mod output;

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use dkms_engine::failure::Failure;
use nix::sys::stat::{Mode, umask};

use args::intent::Intent;
use args::options::OptId;
use args::parsed::{Args, EarlyExit};
use args::{complete, help, machine, refusal};
use output::console::Console;
use output::verbosity::Verbosity;

/// The version of dkms that this program is compatible with, in the format that scripts parse.
const VERSION: &str = "dkms-3.4.3";

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1).peekable();
    if words.next_if(|first| first == complete::WORD).is_some() {
        complete::answer(words, &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    ExitCode::from(dkms(words))
}

fn dkms(words: impl Iterator<Item = OsString>) -> u8 {
    let (args, early_exit) = Args::parse(words);
    let mut console = Console::of_this_process(verbosity(&args), args.has(OptId::Debug));
    for option in &args.deprecated {
        console.warn(&format!("--{option}: deprecated option, ignored"));
    }
    let code = carry_out(&args, early_exit, &mut console);
    code.unwrap_or_else(|failure| {
        console.error(&failure.to_string());
        failure.code
    })
}

fn verbosity(args: &Args) -> Verbosity {
    match (args.has(OptId::Quiet), args.has(OptId::Verbose)) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    }
}

fn carry_out(
    args: &Args,
    early_exit: Option<EarlyExit>,
    console: &mut Console,
) -> Result<u8, Failure> {
    let machine = machine::of_command_line(args)?;
    if machine.settings.framework.verbose {
        console.be_verbose();
    }
    match early_exit {
        Some(EarlyExit::Version) => console.print(&format!("{VERSION}\n")),
        Some(EarlyExit::Help) => console.print(&help::text(args.command)),
        Some(exit) => {
            return refusal::of_early_exit(&exit, args.command).map_or(Ok(0), Err);
        }
        None => {
            machine.settings.problems().iter().for_each(|problem| console.warn(problem));
            let intent = Intent::read(args, &machine::context(&machine))?;
            return commands::run(intent, args, machine, console);
        }
    }
    Ok(0)
}
