//! What is asked, read from the arguments or from standard input.

use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const USAGE: &str =
    "usage: alpm-query [--root DIR] [--dbpath DIR] owner PATH… | kernel RELEASE… | batch";

/// One thing to look up.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Which package owns this path? Without a leading `/`, as pacman's file lists have it.
    Owner(Vec<u8>),
    /// Which packages are this kernel release's, and its headers'?
    Kernel(String),
}

/// All that is asked in one call.
#[derive(Debug)]
pub struct Asked {
    /// Where the machine's `/` is.
    pub root: PathBuf,
    /// pacman's database directory, if it is not the one that `pacman.conf` names.
    pub dbpath: Option<PathBuf>,
    /// The questions, in order.
    pub questions: Vec<Question>,
}

impl Asked {
    /// Reads the arguments, and `input` if they say `batch`.
    ///
    /// # Errors
    /// A line for the user: what is wrong with the arguments, or that `input` cannot be read.
    pub fn read(
        mut words: impl Iterator<Item = OsString>,
        input: &mut dyn BufRead,
    ) -> Result<Self, String> {
        let mut asked = Self { root: "/".into(), dbpath: None, questions: Vec::new() };
        loop {
            let word = words.next().ok_or(USAGE)?;
            match word.to_str() {
                Some("--root") => asked.root = words.next().ok_or(USAGE)?.into(),
                Some("--dbpath") => asked.dbpath = Some(words.next().ok_or(USAGE)?.into()),
                Some(kind @ ("owner" | "kernel")) => {
                    asked.questions = words.filter_map(|of| question(kind, &of)).collect();
                    return Ok(asked);
                }
                Some("batch") => {
                    asked.questions = lines(input)?;
                    return Ok(asked);
                }
                _ => return Err(format!("{}: {USAGE}", word.to_string_lossy())),
            }
        }
    }
}

fn lines(input: &mut dyn BufRead) -> Result<Vec<Question>, String> {
    let mut questions = Vec::new();
    for line in input.split(b'\n') {
        let line = OsString::from_vec(line.map_err(|why| format!("standard input: {why}"))?);
        let mut parts = line.as_bytes().splitn(2, |byte| *byte == b' ');
        if let (Some(kind), Some(of)) = (parts.next(), parts.next()) {
            questions.extend(question(&String::from_utf8_lossy(kind), OsStr::from_bytes(of)));
        }
    }
    Ok(questions)
}

/// `None` for what no package can own and no kernel can be called.
fn question(kind: &str, of: &OsStr) -> Option<Question> {
    if of.is_empty() || of.as_bytes().contains(&0) {
        return None;
    }
    match kind {
        "owner" => {
            let path = of.as_bytes();
            Some(Question::Owner(path.strip_prefix(b"/").unwrap_or(path).to_owned()))
        }
        "kernel" => of
            .to_str()
            .filter(|name| !name.contains('/'))
            .map(|name| Question::Kernel(name.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], input: &str) -> Result<Asked, String> {
        Asked::read(words.iter().map(OsString::from), &mut input.as_bytes())
    }

    #[test]
    fn reads_lines() {
        let asked =
            read(&["--root", "/r", "batch"], "owner /usr/a b\nkernel 7.2\nwhat x\nowner\n\n")
                .expect("good arguments");
        assert_eq!(asked.root, PathBuf::from("/r"));
        assert_eq!(
            asked.questions,
            [Question::Owner(b"usr/a b".to_vec()), Question::Kernel("7.2".into())]
        );
    }

    #[test]
    fn drops_what_cannot_be_asked() {
        let asked = read(&["batch"], "owner a\0b\nkernel ../etc\n").expect("good arguments");
        assert_eq!(asked.questions, []);
    }

    #[test]
    fn refuses_other_words() {
        assert!(read(&["remove"], "").is_err());
        assert!(read(&["--root"], "").is_err());
        assert!(read(&[], "").is_err());
    }
}
