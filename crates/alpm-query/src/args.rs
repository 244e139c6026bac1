//! Parses the arguments: the location of the database, and the request. From standard input,
//! `batch` reads its lookups, and `arriving` reads pacman's targets.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const USAGE: &str = "usage: alpm-query [--root DIR] [--dbpath DIR] owner PATH… | kernel RELEASE… | \
                     available NAME… | batch | arriving [--pacman PID] [FILE…]";

/// A single lookup in the database.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The package that owns a path. The path has no leading `/`, as in pacman's file lists.
    Owner(Vec<u8>),
    /// The packages that own a kernel and its headers. The value is the kernel release.
    Kernel(String),
    /// The version of a package in the sync databases. The value is the package's name.
    Available(String),
}

/// A question about a transaction that is about to install packages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The ID of the process that runs the transaction; `None` if unknown.
    pub pacman: Option<u32>,
    /// The arriving package files. If empty, alpm-query finds the files that contain the targets.
    pub files: Vec<PathBuf>,
    /// The paths, without a leading `/`, that pacman passed to the hook.
    pub targets: BTreeSet<Vec<u8>>,
}

/// The requested answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The results of these lookups.
    Lookups(Vec<Lookup>),
    /// The packages that a transaction is about to install.
    Arriving(Transaction),
}

/// The parsed arguments of alpm-query.
#[derive(Debug)]
pub struct QueryArgs {
    /// The root directory of the machine.
    pub root: PathBuf,
    /// pacman's database directory; `None` for the one in `pacman.conf`.
    pub dbpath: Option<PathBuf>,
    /// The requested answer.
    pub request: Request,
}

impl QueryArgs {
    /// Parses the arguments. Reads the lookups or targets from `input`.
    ///
    /// # Errors
    /// A one-line message if the arguments are invalid or `input` cannot be read.
    pub fn read(
        mut words: impl Iterator<Item = OsString>,
        input: &mut dyn BufRead,
    ) -> Result<Self, String> {
        let (mut root, mut dbpath) = ("/".into(), None);
        let request = loop {
            let word = words.next().ok_or(USAGE)?;
            match word.to_str() {
                Some("--root") => root = words.next().ok_or(USAGE)?.into(),
                Some("--dbpath") => dbpath = Some(words.next().ok_or(USAGE)?.into()),
                Some(kind @ ("owner" | "kernel" | "available")) => {
                    let subjects = words.filter_map(|subject| lookup(kind, &subject));
                    break Request::Lookups(subjects.collect());
                }
                Some("batch") => {
                    let lines = lines(input)?;
                    break Request::Lookups(
                        lines.iter().filter_map(|it| lookup_line(it)).collect(),
                    );
                }
                Some("arriving") => break Request::Arriving(transaction(words, input)?),
                _ => return Err(format!("unknown argument: {}; {USAGE}", word.to_string_lossy())),
            }
        };
        Ok(Self { root, dbpath, request })
    }
}

/// Parses the arguments of `arriving`. Reads the targets from `input` if no files are given.
fn transaction(
    words: impl Iterator<Item = OsString>,
    input: &mut dyn BufRead,
) -> Result<Transaction, String> {
    let mut words = words.peekable();
    let mut transaction = Transaction::default();
    if words.next_if(|word| word == "--pacman").is_some() {
        let pid = words.next().ok_or(USAGE)?;
        let number = pid.to_str().and_then(|pid| pid.parse().ok());
        transaction.pacman = Some(number.ok_or_else(|| {
            let pid = pid.to_string_lossy();
            format!("invalid value for --pacman: \"{pid}\" (expected a process ID)")
        })?);
    }
    for word in words {
        let path = std::path::absolute(&word);
        transaction.files.push(path.map_err(|why| format!("{}: {why}", word.to_string_lossy()))?);
    }
    if transaction.files.is_empty() {
        transaction.targets = lines(input)?.into_iter().filter(|line| !line.is_empty()).collect();
    }
    Ok(transaction)
}

fn lines(input: &mut dyn BufRead) -> Result<Vec<Vec<u8>>, String> {
    let lines: io::Result<_> = input.split(b'\n').collect();
    lines.map_err(|why| format!("cannot read standard input: {why}"))
}

fn lookup_line(line: &[u8]) -> Option<Lookup> {
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let kind = String::from_utf8_lossy(parts.next()?);
    lookup(&kind, OsStr::from_bytes(parts.next()?))
}

/// Parses a lookup. Returns `None` if `kind` is unknown or `subject` is not valid for this kind.
fn lookup(kind: &str, subject: &OsStr) -> Option<Lookup> {
    if subject.is_empty() || subject.as_bytes().contains(&0) {
        return None;
    }
    match kind {
        "owner" => {
            let path = subject.as_bytes();
            Some(Lookup::Owner(path.strip_prefix(b"/").unwrap_or(path).to_owned()))
        }
        "kernel" => subject
            .to_str()
            .filter(|name| !name.contains('/'))
            .map(|name| Lookup::Kernel(name.to_owned())),
        "available" => subject.to_str().map(|name| Lookup::Available(name.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], input: &str) -> Result<QueryArgs, String> {
        QueryArgs::read(words.iter().map(OsString::from), &mut input.as_bytes())
    }

    #[test]
    fn batch_reads_lines() {
        let args =
            read(&["--root", "/r", "batch"], "owner /usr/a b\nkernel 7.2\nwhat x\nowner\n\n")
                .expect("good arguments");
        assert_eq!(args.root, PathBuf::from("/r"));
        assert_eq!(
            args.request,
            Request::Lookups(vec![
                Lookup::Owner(b"usr/a b".to_vec()),
                Lookup::Kernel("7.2".into())
            ])
        );
    }

    #[test]
    fn ignores_invalid_lookups() {
        let args = read(&["batch"], "owner a\0b\nkernel ../etc\n").expect("good arguments");
        assert_eq!(args.request, Request::Lookups(Vec::new()));
    }

    #[test]
    fn arriving_reads_targets() {
        let args = read(&["arriving", "--pacman", "12"], "usr/b\n\nusr/a").expect("good arguments");
        let targets = [b"usr/a".to_vec(), b"usr/b".to_vec()].into();
        let expected = Transaction { pacman: Some(12), targets, ..Transaction::default() };
        assert_eq!(args.request, Request::Arriving(expected));
    }

    #[test]
    fn arriving_ignores_targets_if_files_are_given() {
        let args = read(&["arriving", "/a", "--pacman"], "usr/b\n").expect("good arguments");
        let files = vec!["/a".into(), std::path::absolute("--pacman").expect("a directory")];
        let expected = Transaction { files, ..Transaction::default() };
        assert_eq!(args.request, Request::Arriving(expected));
    }

    #[test]
    fn rejects_invalid_arguments() {
        for words in [&["arriving", "--pacman"][..], &["arriving", "--pacman", "-1"]] {
            assert!(read(words, "").is_err(), "{words:?}");
        }
        assert!(read(&["remove"], "").is_err());
        assert!(read(&["--root"], "").is_err());
        assert!(read(&[], "").is_err());
    }
}
