//! The wrapper of `make`, which joins the run's jobserver. It ignores options such as `-j8`,
//! because eight jobs for each module would overload the machine, but respects `-j1`.
//!
//! All other arguments and variables reach the real make unchanged. A conf that calls make by its
//! path (`/usr/bin/make -j8`) bypasses the wrapper.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::program::{cannot_run, command, not_found};
use crate::real_program::real_program;

/// The variable with the path of the jobserver's FIFO. The engine sets it for builds, but not
/// while it evaluates a dkms.conf.
const JOBSERVER: &str = "ALPM_DKMS_JOBSERVER";

/// The option in MAKEFLAGS by which make finds its jobserver.
const AUTH: &str = "--jobserver-auth=";

/// Runs the real make with the arguments `words`. `called` is the name by which make was called,
/// which make passes to recipes as `$(MAKE)`.
pub(crate) fn run(called: &OsStr, words: Vec<OsString>) -> ExitCode {
    let Some(program) = real_program("make") else {
        return not_found("make");
    };
    let flags = env::var("MAKEFLAGS").unwrap_or_default();
    let is_top = env::var_os("MAKELEVEL").is_none_or(|level| level.is_empty());
    let call = match env::var_os(JOBSERVER).filter(|path| !path.is_empty()) {
        Some(fifo) => Call::joining(Path::new(&fifo), words, &flags, is_top),
        None => Call::unchanged(words),
    };
    let mut make = command(&program, &call.words);
    make.arg0(called);
    if let Some(flags) = call.flags {
        make.env("MAKEFLAGS", flags);
    }
    // The descriptors in `call.ends` must stay open until here, so that make inherits them.
    let error = make.exec();
    drop(call.ends);
    cannot_run(&program, &error)
}

/// The call of the real make.
#[derive(Debug, Default)]
struct Call {
    words: Vec<OsString>,
    /// The new value of MAKEFLAGS; `None` leaves it unchanged.
    flags: Option<String>,
    /// The descriptors of the jobserver that `flags` names.
    ends: Option<(File, File)>,
}

impl Call {
    fn unchanged(words: Vec<OsString>) -> Self {
        Self { words, ..Self::default() }
    }

    /// Returns a call that uses the jobserver `fifo`, given the arguments and the MAKEFLAGS of the
    /// original call. `is_top` is true if no make started this one.
    fn joining(fifo: &Path, words: Vec<OsString>, flags: &str, is_top: bool) -> Self {
        // A conf may set MAKEFLAGS, for example to `-j8`, without naming a jobserver.
        let joins = is_top && !flags.contains(AUTH);
        let (words, jobs) = without_jobs(words);
        let (other_flags, jobs_in_flags) =
            without_jobs(if joins { options(flags) } else { vec![] });
        let other_flags = other_flags.join(OsStr::new(" ")).to_string_lossy().into_owned();
        if jobs.or(jobs_in_flags).as_deref() == Some("1") {
            let words = std::iter::once("-j1".into()).chain(words).collect();
            return Self { words, flags: joins.then_some(other_flags), ends: None };
        }
        let other_flags = format!(" {other_flags}");
        let (before, after) = match jobserver_in(flags) {
            _ if joins => ("-j ", other_flags.trim_end()),
            Some((before, value, after)) if is_closed(value) => (before, after),
            _ => return Self::unchanged(words),
        };
        let Ok((read, write)) = open(fifo) else { return Self::unchanged(words) };
        let flags = format!("{before}{AUTH}{},{}{after}", read.as_raw_fd(), write.as_raw_fd());
        Self { words, flags: Some(flags), ends: Some((read, write)) }
    }
}

/// Splits MAKEFLAGS into options, in which blanks keep their backslashes. The first word may lack
/// its dash: `kj8` means `-kj8`.
fn options(flags: &str) -> Vec<OsString> {
    let mut options: Vec<String> = Vec::new();
    for word in flags.split_whitespace() {
        match options.last_mut().filter(|last| last.ends_with('\\')) {
            Some(last) => *last = format!("{last} {word}"),
            None => options.push(word.to_owned()),
        }
    }
    if let Some(first) = options.first_mut()
        && !first.starts_with('-')
        && !first.contains('=')
    {
        first.insert(0, '-');
    }
    options.into_iter().map(OsString::from).collect()
}

/// Splits `flags` at the last option that names a jobserver. Returns the text before the option,
/// the option's value and the text after it, or `None` if there is no such option.
///
/// If there are several such options, the last one applies: make 4.4 appends another one for
/// recipes that do not use `$(MAKE)`.
fn jobserver_in(flags: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = flags.rsplit_once(AUTH)?;
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    Some((before, &rest[..end], &rest[end..]))
}

/// Returns true if at least one of a jobserver's two descriptors is not open. `value` is `R,W`, the
/// numbers of these descriptors.
///
/// make closes both descriptors for recipes that call `make` instead of `$(MAKE)`. From version 4.4
/// on, make also replaces their numbers with negative ones. The descriptors of another program's
/// jobserver are open.
fn is_closed(value: &str) -> bool {
    let is_open = |number: &str| Path::new("/proc/self/fd").join(number).exists();
    value.split_once(',').is_some_and(|(read, write)| !is_open(read) || !is_open(write))
}

/// Opens the two ends of the jobserver, which the real make inherits.
///
/// Opening a FIFO for reading and writing never blocks, even if the engine has been killed.
fn open(fifo: &Path) -> io::Result<(File, File)> {
    let open = || {
        let end = File::options().read(true).write(true).open(fifo)?;
        fcntl(&end, FcntlArg::F_SETFD(FdFlag::empty()))?;
        io::Result::Ok(end)
    };
    Ok((open()?, open()?))
}

/// Removes the options `-jN`, `-j N` and `--jobs=N`. Returns the remaining words, and the number of
/// the last option that was removed: an empty string if that option has no number, and `None` if no
/// option was removed.
fn without_jobs(words: Vec<OsString>) -> (Vec<OsString>, Option<String>) {
    let (mut others, mut jobs) = (Vec::new(), None);
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            others.push(word);
            others.extend(words);
            break;
        }
        let Some((letters, number)) = word.to_str().and_then(jobs_option) else {
            others.push(word);
            continue;
        };
        if !letters.is_empty() {
            others.push(format!("-{letters}").into());
        }
        let mut number = number.to_owned();
        // The number may be a separate word.
        if number.is_empty() && !word.to_string_lossy().ends_with('=') {
            let next = words.next_if(|next| next.to_str().is_some_and(is_number));
            number = next.map(|next| next.to_string_lossy().into_owned()).unwrap_or_default();
        }
        jobs = Some(number);
    }
    (others, jobs)
}

/// Splits an option that sets the number of jobs into its other letters and the number: `-kj8` into
/// `k` and `8`. Returns `None` for other words.
fn jobs_option(word: &str) -> Option<(&str, &str)> {
    /// The one-letter options of make that have no argument.
    const LETTERS: &str = "BbdehikmnpqRrSstvw";
    let is_count = |text: &str| text.is_empty() || is_number(text);
    if let Some(number) = word.strip_prefix("--jobs") {
        let number = number.strip_prefix('=').unwrap_or(number);
        return is_count(number).then_some(("", number));
    }
    let (letters, number) = word.strip_prefix('-')?.split_once('j')?;
    let is_option = letters.chars().all(|letter| LETTERS.contains(letter)) && is_count(number);
    is_option.then_some((letters, number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    /// Returns the call of a make that no other make started, and the directory of its jobserver.
    fn joining(line: &str, flags: &str) -> (Call, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("jobserver");
        File::create(&fifo).unwrap();
        (Call::joining(&fifo, words(line), flags, true), dir)
    }

    #[rstest]
    #[case::plain("all", "", "all", "")]
    #[case::number("-j8 all", "", "all", "")]
    #[case::two_words("-j 8 all", "", "all", "")]
    #[case::no_number("-j all", "", "all", "")]
    #[case::long("--jobs=8 V=1", "", "V=1", "")]
    #[case::long_two_words("--jobs 8 -C a", "", "-C a", "")]
    #[case::among_others("-kj8 all", "", "-k all", "")]
    #[case::not_an_option("-C jobs -f j.mk -Ij8 -- -j8", "", "-C jobs -f j.mk -Ij8 -- -j8", "")]
    #[case::flags("all", "-j8", "all", "")]
    #[case::flags_without_dash("all", "kj8", "all", " -k")]
    #[case::flags_with_a_variable("-C a", "-j8 -- A=b", "-C a", " -- A=b")]
    #[case::flags_with_a_blank("all", r"j8 -- A=b\ -j9", "all", r" -- A=b\ -j9")]
    #[case::variable_with_a_blank("all", r"A=-Db\ -Dc", "all", r" A=-Db\ -Dc")]
    fn make_joins_the_jobserver(
        #[case] line: &str,
        #[case] flags: &str,
        #[case] want: &str,
        #[case] others: &str,
    ) {
        let (call, _dir) = joining(line, flags);
        assert_eq!(call.words, words(want));
        let (read, write) = call.ends.unwrap();
        let flags =
            format!("-j --jobserver-auth={},{}{others}", read.as_raw_fd(), write.as_raw_fd());
        assert_eq!(call.flags.unwrap(), flags);
    }

    #[rstest]
    #[case::one_job("-j1 all", "")]
    #[case::last_option_is_one_job("-j8 all -j 1", "")]
    #[case::one_job_in_flags("all", "-j1")]
    fn make_with_one_job_has_no_jobserver(#[case] line: &str, #[case] flags: &str) {
        let (call, _dir) = joining(line, flags);
        assert_eq!((call.words, call.flags), (words("-j1 all"), Some(String::new())));
        assert!(call.ends.is_none());
    }

    #[test]
    fn a_nested_make_joins_only_a_jobserver_that_its_parent_closed() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("jobserver");
        let file = File::create(&fifo).unwrap();
        let nested = |flags: &str| Call::joining(&fifo, words("-j4 all"), flags, false);
        let open = format!("k -j --jobserver-auth={0},{0} -- A=b", file.as_raw_fd());
        assert_eq!((nested(&open).words, nested(&open).flags), (words("all"), None));
        for before in ["k -j ", &format!("{open} ")] {
            let call = nested(&format!("{before}--jobserver-auth=-2,-2 -- A=b"));
            let (read, write) = call.ends.unwrap();
            let (read, write) = (read.as_raw_fd(), write.as_raw_fd());
            let flags = format!("{before}--jobserver-auth={read},{write} -- A=b");
            assert_eq!((call.words, call.flags), (words("all"), Some(flags)));
        }
        assert_eq!(nested("k").flags, None);
        assert_eq!(nested("--jobserver-auth=fifo:/tmp/x").flags, None);
    }

    #[test]
    fn without_a_jobserver_the_call_is_unchanged() {
        let call = Call::joining(Path::new("/no/jobserver"), words("-k all"), "", true);
        assert_eq!((call.words, call.flags), (words("-k all"), None));
    }
}
