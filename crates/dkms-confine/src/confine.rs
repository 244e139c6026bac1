//! Makes a program end with its parent, and gives the program its own namespaces.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::arguments::Arguments;
use crate::first_process;
use crate::mounts::mount_all;
use crate::program::{cannot_run, command, complain, exit_code};

/// The exit code if the program cannot be confined, as with env(1).
const NOT_CONFINED: u8 = 125;

/// Confines and runs the program in the command line `words`. `this` is the path by which
/// dkms-confine was called.
pub(crate) fn run(this: &OsStr, words: Vec<OsString>) -> ExitCode {
    let Some(arguments) = Arguments::read(words) else {
        complain("dkms-confine: only alpm-dkms calls this program; run: dkms --help");
        return ExitCode::from(NOT_CONFINED);
    };
    confine(this, &arguments).unwrap_or_else(|error| {
        complain(&format!("cannot confine {}: {error}", arguments.program.display()));
        ExitCode::from(NOT_CONFINED)
    })
}

fn confine(this: &OsStr, arguments: &Arguments) -> io::Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // If the parent has already ended, no death signal is sent.
    let parent = if arguments.is_first { outer_parent() } else { Some(getppid().as_raw()) };
    if arguments.parent.zip(parent).is_some_and(|(expected, parent)| parent != expected) {
        return Err(io::Error::other("the run of alpm-dkms has ended"));
    }
    if arguments.is_first {
        return first_process::run(arguments);
    }
    if !arguments.pid_namespace {
        let error = command(&arguments.program, &arguments.words).exec();
        return Ok(cannot_run(&arguments.program, &error));
    }
    unshare(CloneFlags::CLONE_NEWPID)?;
    if arguments.own_mounts {
        mount_all(arguments)?;
    }
    // Only children of this process are in the new pid namespace. The first child must mount /proc
    // in that namespace, so it is this program again.
    let first = command(this, &arguments.of_first_process(outer_pid())).status()?;
    Ok(exit_code(first))
}

/// Returns the pid of this process in the pid namespace of /proc; `None` without /proc.
fn outer_pid() -> Option<i32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// Returns the parent's pid in the pid namespace of /proc; `None` without /proc.
///
/// In the first process of a pid namespace, getppid(2) always returns 0, so it does not show
/// whether the parent has ended.
fn outer_parent() -> Option<i32> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The parent is the second field after the name in parentheses (proc_pid_stat(5)).
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
