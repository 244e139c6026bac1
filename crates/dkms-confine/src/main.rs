//! Runs a program so that it cannot outlive the run of alpm-dkms that started it; in builds, also
//! stands in front of `make` and `uname`.
//!
//! Like busybox, the program takes its role from the name by which it is called. The engine puts
//! links named `make` and `uname` first in PATH. It is one small executable without the engine,
//! because a build starts it many times.

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
