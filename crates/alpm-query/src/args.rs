//! Parses the arguments: the location of the database, and the lookups. `batch` reads the lookups
//! from standard input.

use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const USAGE: &str =
    "usage: alpm-query [--root DIR] [--dbpath DIR] owner PATH… | kernel RELEASE… | batch";

/// A single lookup in the database.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The package that owns a path. The path has no leading `/`, as in pacman's file lists.
    Owner(Vec<u8>),
    /// The packages that own a kernel and its headers. The value is the kernel release.
    Kernel(String),
}

/// The parsed arguments of alpm-query.
#[derive(Debug)]
pub struct QueryArgs {
    /// The root directory of the machine.
    pub root: PathBuf,
    /// pacman's database directory; `None` for the one in `pacman.conf`.
    pub dbpath: Option<PathBuf>,
    /// The lookups, in the given order.
    pub lookups: Vec<Lookup>,
}

impl QueryArgs {
    /// Parses the arguments. Reads the lookups of `batch` from `input`.
    ///
    /// # Errors
    /// A one-line message if the arguments are invalid or `input` cannot be read.
    pub fn read(
        mut words: impl Iterator<Item = OsString>,
        input: &mut dyn BufRead,
    ) -> Result<Self, String> {
        let mut args = Self { root: "/".into(), dbpath: None, lookups: Vec::new() };
        loop {
            let word = words.next().ok_or(USAGE)?;
            match word.to_str() {
                Some("--root") => args.root = words.next().ok_or(USAGE)?.into(),
                Some("--dbpath") => args.dbpath = Some(words.next().ok_or(USAGE)?.into()),
                Some(kind @ ("owner" | "kernel")) => {
                    args.lookups = words.filter_map(|subject| lookup(kind, &subject)).collect();
                    return Ok(args);
                }
                Some("batch") => {
                    args.lookups = lines(input)?;
                    return Ok(args);
                }
                _ => return Err(format!("unknown argument: {}; {USAGE}", word.to_string_lossy())),
            }
        }
    }
}

fn lines(input: &mut dyn BufRead) -> Result<Vec<Lookup>, String> {
    let mut lookups = Vec::new();
    for line in input.split(b'\n') {
        let line =
            OsString::from_vec(line.map_err(|why| format!("cannot read standard input: {why}"))?);
        let mut parts = line.as_bytes().splitn(2, |byte| *byte == b' ');
        if let (Some(kind), Some(subject)) = (parts.next(), parts.next()) {
            lookups.extend(lookup(&String::from_utf8_lossy(kind), OsStr::from_bytes(subject)));
        }
    }
    Ok(lookups)
}

/// Parses a lookup. Returns `None` if `kind` is unknown or `subject` is not a valid path or kernel
/// release.
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
            args.lookups,
            [Lookup::Owner(b"usr/a b".to_vec()), Lookup::Kernel("7.2".into())]
        );
    }

    #[test]
    fn ignores_invalid_lookups() {
        let args = read(&["batch"], "owner a\0b\nkernel ../etc\n").expect("good arguments");
        assert_eq!(args.lookups, []);
    }

    #[test]
    fn rejects_invalid_arguments() {
        assert!(read(&["remove"], "").is_err());
        assert!(read(&["--root"], "").is_err());
        assert!(read(&[], "").is_err());
    }
}
