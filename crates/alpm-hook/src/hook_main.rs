//! The main function of a hook binary: reads the arguments, sets up logging, and returns an exit code.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dkms_engine::failure::Failure;
use nix::sys::stat::{Mode, umask};

/// The arguments of a hook binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookArgs {
    /// The root of the machine. libalpm changes its root before it runs a hook, so this is `/` except in tests.
    pub root: PathBuf,
    /// Whether to print what would be done, and do nothing.
    pub dry_run: bool,
    /// The given flag of this binary, the last one if there are several.
    pub flag: Option<&'static str>,
}

/// Runs the hook binary `name` on the targets from pacman. Reads the arguments, of which `flags` are specific to this
/// binary; sets up logging to stderr (`RUST_LOG`, by default warnings), the umask 022 that packaged files expect, and `/` as
/// working directory; prints an error that `hook` returns.
pub fn run(
    name: &str,
    flags: &[&'static str],
    hook: impl FnOnce(&HookArgs, &mut dyn BufRead) -> Result<ExitCode, Failure>,
) -> ExitCode {
    log_to_stderr(name);
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let result = read_args(env::args_os().skip(1), flags, Path::new(".")).and_then(|args| {
        env::set_current_dir("/")
            .map_err(|error| Failure::new(1, format!("cannot change to /: {error}")))?;
        hook(&args, &mut io::stdin().lock())
    });
    result.unwrap_or_else(|why| {
        let _ = writeln!(io::stderr(), "{name}: error: {why}");
        ExitCode::FAILURE
    })
}

/// Sends the log to stderr, with `name` before each line, but no warnings about deprecated
/// directives: the user of a package cannot act on them.
pub fn log_to_stderr(name: &str) {
    let name = name.to_owned();
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module(dkms_engine::DEPRECATED, log::LevelFilter::Off)
        .parse_default_env()
        .format(move |line, record| {
            let severity = match record.level() {
                log::Level::Warn => "warning".into(),
                level => level.as_str().to_lowercase(),
            };
            writeln!(line, "{name}: {severity}: {}", record.args())
        })
        .try_init();
}

fn read_args(
    mut words: impl Iterator<Item = OsString>,
    flags: &[&'static str],
    here: &Path,
) -> Result<HookArgs, Failure> {
    let refuse = |message: &str| Failure::new(1, message);
    let mut args = HookArgs { root: "/".into(), dry_run: false, flag: None };
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--root") => {
                let root = words.next().ok_or_else(|| refuse("--root needs a directory"))?;
                let root = here.join(root).canonicalize();
                args.root = root.map_err(|error| refuse(&format!("--root: {error}")))?;
            }
            Some("--dry-run") => args.dry_run = true,
            text => {
                let flag = flags.iter().find(|flag| text == Some(flag));
                args.flag = Some(flag.copied().ok_or_else(|| {
                    let (word, flags) = (word.to_string_lossy(), flags.join(", "));
                    refuse(&format!(
                        "unknown argument: {word} (expected --root DIR, --dry-run, {flags})"
                    ))
                })?);
            }
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<HookArgs, Failure> {
        read_args(words.iter().map(OsString::from), &["--journal", "--other"], Path::new("/"))
    }

    #[test]
    fn reads_arguments() {
        let plain = HookArgs { root: "/".into(), dry_run: false, flag: None };
        assert_eq!(read(&[]).expect("no arguments"), plain);
        assert_eq!(
            read(&["--journal", "--root", "usr", "--dry-run"]).expect("good arguments"),
            HookArgs { root: "/usr".into(), dry_run: true, flag: Some("--journal") }
        );
    }

    #[test]
    fn refuses_other_arguments() {
        for words in [&["--root"][..], &["--root", "/no/such"], &["install"], &["--depart"]] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
