//! The common main function of the hook binaries: arguments, logging and the exit code.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dkms_engine::failure::Failure;
use dkms_engine::os::limits::ensure_open_files;
use nix::sys::stat::{Mode, umask};

/// The arguments of a hook binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookArgs {
    /// The root of the machine: `/` except in tests, because libalpm runs hooks chrooted.
    pub root: PathBuf,
    /// Whether to print the plan and change nothing.
    pub dry_run: bool,
    /// The given flag that only this binary accepts, such as `--journal`. If several are given, the
    /// last one counts.
    pub flag: Option<&'static str>,
}

/// Runs the hook binary `name`, which accepts `flags` besides the common arguments.
///
/// Logs warnings to standard error (`RUST_LOG` selects another level), sets the umask to 022 as
/// packaged files expect, and changes the working directory to `/`. If `hook` returns an error,
/// prints it and returns a failure.
pub fn run(
    name: &str,
    flags: &[&'static str],
    hook: impl FnOnce(&HookArgs, &mut dyn BufRead) -> Result<ExitCode, Failure>,
) -> ExitCode {
    run_or(name, flags, ExitCode::FAILURE, hook)
}

/// Like [`run`], but returns `on_error` after an error.
pub fn run_or(
    name: &str,
    flags: &[&'static str],
    on_error: ExitCode,
    hook: impl FnOnce(&HookArgs, &mut dyn BufRead) -> Result<ExitCode, Failure>,
) -> ExitCode {
    log_to_stderr(name);
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let result = read_args(env::args_os().skip(1), flags, Path::new(".")).and_then(|args| {
        env::set_current_dir("/")
            .map_err(|error| Failure::new(1, format!("cannot enter /: {error}")))?;
        ensure_open_files().map_err(|problem| Failure::new(1, problem))?;
        hook(&args, &mut io::stdin().lock())
    });
    result.unwrap_or_else(|why| {
        let _ = writeln!(io::stderr(), "{name}: error: {why}");
        on_error
    })
}

/// Sends the log to standard error, with `name` at the start of each line. Omits warnings about
/// deprecated directives, because the user of a package cannot act on them.
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
    let invalid = |message: &str| Failure::new(1, message);
    let mut args = HookArgs { root: "/".into(), dry_run: false, flag: None };
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--root") => {
                let root = words
                    .next()
                    .ok_or_else(|| invalid("missing value for --root (expected a path)"))?;
                let root = here.join(root).canonicalize();
                args.root = root.map_err(|error| invalid(&format!("--root: {error}")))?;
            }
            Some("--dry-run") => args.dry_run = true,
            text => {
                let flag = flags.iter().find(|flag| text == Some(flag));
                args.flag = Some(flag.copied().ok_or_else(|| {
                    let (word, flags) = (word.to_string_lossy(), flags.join(", "));
                    invalid(&format!(
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
    fn rejects_invalid_arguments() {
        for words in [&["--root"][..], &["--root", "/no/such"], &["install"], &["--depart"]] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
