//! The arguments: the lookups, in words or on standard input, and where the database is.

use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const USAGE: &str =
    "usage: alpm-query [--root DIR] [--dbpath DIR] owner PATH… | kernel RELEASE… | batch";

/// One thing to look up.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The package that owns this path, without a leading `/`, as in pacman's file lists.
    Owner(Vec<u8>),
    /// The packages of this kernel release and of its headers.
    Kernel(String),
}

/// The parsed arguments.
#[derive(Debug)]
pub struct QueryArgs {
    /// The root directory.
    pub root: PathBuf,
    /// pacman's database directory, if not the one that `pacman.conf` names.
    pub dbpath: Option<PathBuf>,
    pub lookups: Vec<Lookup>,
}

impl QueryArgs {
    /// Parses the arguments; `batch` reads the lookups from `input`.
    ///
    /// # Errors
    /// A one-line message if the arguments are wrong or `input` cannot be read.
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
                    args.lookups = words.filter_map(|of| lookup(kind, &of)).collect();
                    return Ok(args);
                }
                Some("batch") => {
                    args.lookups = lines(input)?;
                    return Ok(args);
                }
                _ => return Err(format!("{}: {USAGE}", word.to_string_lossy())),
            }
        }
    }
}

fn lines(input: &mut dyn BufRead) -> Result<Vec<Lookup>, String> {
    let mut lookups = Vec::new();
    for line in input.split(b'\n') {
        let line = OsString::from_vec(line.map_err(|why| format!("standard input: {why}"))?);
        let mut parts = line.as_bytes().splitn(2, |byte| *byte == b' ');
        if let (Some(kind), Some(of)) = (parts.next(), parts.next()) {
            lookups.extend(lookup(&String::from_utf8_lossy(kind), OsStr::from_bytes(of)));
        }
    }
    Ok(lookups)
}

/// Returns `None` if no package can own the path or no kernel can have the name.
fn lookup(kind: &str, of: &OsStr) -> Option<Lookup> {
    if of.is_empty() || of.as_bytes().contains(&0) {
        return None;
    }
    match kind {
        "owner" => {
            let path = of.as_bytes();
            Some(Lookup::Owner(path.strip_prefix(b"/").unwrap_or(path).to_owned()))
        }
        "kernel" => of
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
    fn reads_lines() {
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
    fn ignores_impossible_lookups() {
        let args = read(&["batch"], "owner a\0b\nkernel ../etc\n").expect("good arguments");
        assert_eq!(args.lookups, []);
    }

    #[test]
    fn refuses_other_words() {
        assert!(read(&["remove"], "").is_err());
        assert!(read(&["--root"], "").is_err());
        assert!(read(&[], "").is_err());
    }
}
