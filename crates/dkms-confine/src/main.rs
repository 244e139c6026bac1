//! Confines the programs that the engine runs, so that none of them outlives the run of alpm-dkms.
//! Also wraps `make` and `uname` in builds.
//!
//! The name by which this program is called selects its task, as with busybox. The engine creates
//! links named `make` and `uname` in a directory that comes first in PATH. This program is small
//! and does not contain the engine, because a build starts it many times.

mod arguments;
mod confine;
mod first_process;
mod make;
mod mounts;
mod program;
mod real_program;
mod uname;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = env::args_os();
    let called = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    let role = Path::new(&called).file_name().unwrap_or_default();
    if role == "make" {
        make::run(&called, words)
    } else if role == "uname" {
        uname::run(&words)
    } else {
        confine::run(&called, words)
    }
}
