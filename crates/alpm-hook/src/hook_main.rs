//! The edge of a hook binary: arguments, logging and surroundings in, an exit code out.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};

/// How a hook binary was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Where the machine's `/` is. libalpm has changed its root before it runs a hook, so this
    /// is `/` except in tests.
    pub root: PathBuf,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// The flag of the binary's own that was given, the last one if there are several.
    pub flag: Option<&'static str>,
}

/// What ends a hook early. Whatever the engine or the system says.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs a hook binary called `name` on the lines that pacman tells it: reads the arguments, where
/// `flags` are those that this binary alone has; sets up logging (`RUST_LOG`, warnings without it, to
/// stderr), the umask 022 that packaged files expect, and `/` as working directory; renders an
/// error that comes back.
pub fn run(
    name: &str,
    flags: &[&'static str],
    hook: impl FnOnce(&Call, &mut dyn BufRead) -> Result<ExitCode, Failure>,
) -> ExitCode {
    log_to_stderr(name);
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let result = call(env::args_os().skip(1), flags, Path::new(".")).and_then(|call| {
        env::set_current_dir("/")?;
        hook(&call, &mut io::stdin().lock())
    });
    result.unwrap_or_else(|why| {
        let _ = writeln!(io::stderr(), "{name}: {}", chain(why.as_ref()));
        ExitCode::FAILURE
    })
}

/// Sends what the engine logs to stderr, each line starting with `name`.
pub fn log_to_stderr(name: &str) {
    let name = name.to_owned();
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .parse_default_env()
        .format(move |line, record| writeln!(line, "{name}: {}", record.args()))
        .try_init();
}

/// An error with its causes, in one line; a cause that its effect already quotes is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

fn call(
    mut words: impl Iterator<Item = OsString>,
    flags: &[&'static str],
    here: &Path,
) -> Result<Call, Failure> {
    let mut call = Call { root: "/".into(), dry_run: false, flag: None };
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--root") => {
                let root = words.next().ok_or("--root needs a directory")?;
                call.root =
                    here.join(root).canonicalize().map_err(|why| format!("--root: {why}"))?;
            }
            Some("--dry-run") => call.dry_run = true,
            text => {
                let flag = flags.iter().find(|flag| text == Some(flag));
                call.flag = Some(flag.copied().ok_or_else(|| {
                    let (word, flags) = (word.to_string_lossy(), flags.join(", "));
                    format!("{word}: not understood; this takes --root DIR, --dry-run, {flags}")
                })?);
            }
        }
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Call, Failure> {
        call(words.iter().map(OsString::from), &["--journal", "--other"], Path::new("/"))
    }

    #[test]
    fn reads_arguments() {
        let plain = Call { root: "/".into(), dry_run: false, flag: None };
        assert_eq!(read(&[]).expect("no arguments"), plain);
        assert_eq!(
            read(&["--journal", "--root", "usr", "--dry-run"]).expect("good arguments"),
            Call { root: "/usr".into(), dry_run: true, flag: Some("--journal") }
        );
    }

    #[test]
    fn refuses_other_arguments() {
        for words in [&["--root"][..], &["--root", "/no/such"], &["install"], &["--depart"]] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn renders_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read {0}")]
        struct Cannot(&'static str, #[source] io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("no facts: {0}")]
        struct NoFacts(#[source] Cannot);

        let error = NoFacts(Cannot("usr/src", io::Error::other("it is on fire")));
        assert_eq!(chain(&error), "no facts: cannot read usr/src: it is on fire");
    }
}
