//! Parses the file list that makepkg adds to a package, in mtree(5) format.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The regular files of a package, by their paths without a leading slash.
pub(super) type ListedFiles = HashMap<PathBuf, ListedFile>;

/// A regular file of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedFile {
    pub(super) size: u64,
    /// The SHA-256 digest of the content.
    pub(super) sha256: [u8; 32],
}

/// The error for text that is not a list of files as makepkg writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0}: not a valid mtree entry")]
pub(super) struct Malformed(usize);

/// The relevant keywords of an entry. All others, such as the owner, are ignored.
#[derive(Debug, Clone, Copy, Default)]
struct Keywords<'t> {
    kind: Option<&'t [u8]>,
    size: Option<u64>,
    sha256: Option<[u8; 32]>,
}

/// Parses the file list `text`. Returns the regular files in the directory `below` and its
/// subdirectories.
///
/// Omits files without a size or SHA-256 digest. `below` has no leading slash.
///
/// # Errors
/// [`Malformed`] if any line is invalid, even for a file outside `below`, or if a file in `below`
/// is listed twice.
pub(super) fn files(text: &[u8], below: &Path) -> Result<ListedFiles, Malformed> {
    let mut files = ListedFiles::new();
    let mut lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    if lines.next().is_none_or(|(_, line)| line != b"#mtree") {
        return Err(Malformed(1));
    }
    let mut defaults = Keywords::default();
    for (number, line) in lines {
        let malformed = || Malformed(number);
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        match words.next() {
            None => {}
            Some(word) if word.starts_with(b"#") => {}
            Some(b"/set") => defaults.set(words).ok_or_else(malformed)?,
            Some(b"/unset") => defaults.unset(words),
            Some(path) => {
                let path = path_of(path).ok_or_else(malformed)?;
                let mut keywords = defaults;
                keywords.set(words).ok_or_else(malformed)?;
                let path = Path::new(OsStr::from_bytes(&path));
                if let Some(file) = keywords.file().filter(|_| path.starts_with(below))
                    && files.insert(path.to_owned(), file).is_some()
                {
                    return Err(malformed());
                }
            }
        }
    }
    Ok(files)
}

impl<'t> Keywords<'t> {
    /// Sets the keywords in `words`. Returns `None` if one of them is invalid.
    fn set(&mut self, words: impl Iterator<Item = &'t [u8]>) -> Option<()> {
        for word in words {
            let mut halves = word.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next()?, halves.next());
            match name {
                b"type" => self.kind = Some(value?),
                b"size" => self.size = Some(str::from_utf8(value?).ok()?.parse().ok()?),
                b"sha256" | b"sha256digest" => self.sha256 = Some(sha256(value?)?),
                _ => {}
            }
        }
        Some(())
    }

    /// Removes the keywords in `words`.
    fn unset(&mut self, words: impl Iterator<Item = &'t [u8]>) {
        for word in words {
            match word {
                b"type" => self.kind = None,
                b"size" => self.size = None,
                b"sha256" | b"sha256digest" => self.sha256 = None,
                b"all" => *self = Self::default(),
                _ => {}
            }
        }
    }

    /// Returns the file that the keywords describe. Returns `None` if it is not a regular file, or
    /// has no size or digest.
    fn file(&self) -> Option<ListedFile> {
        self.kind.filter(|kind| *kind == b"file")?;
        Some(ListedFile { size: self.size?, sha256: self.sha256? })
    }
}

/// Parses `word`, the first word of an entry, as a path and removes the leading `./`. Returns
/// `None` if the word is invalid.
fn path_of(word: &[u8]) -> Option<Cow<'_, [u8]>> {
    unescape(if word == b"." { b"" } else { word.strip_prefix(b"./")? })
}

/// Replaces octal escapes such as `\040`. Returns `None` if an escape is invalid.
fn unescape(word: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !word.contains(&b'\\') {
        return Some(Cow::Borrowed(word));
    }
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(3)?;
        let digits = digits.iter().all(|it| (b'0'..=b'7').contains(it)).then_some(digits)?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?);
        rest = after;
    }
    Some(Cow::Owned(bytes))
}

/// Parses a SHA-256 digest of 64 hexadecimal digits.
fn sha256(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut bytes = [0; 32];
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const HEADERS: &str = "usr/lib/modules/7.2/build/include";

    /// The SHA-256 digest of `0x01` repeated.
    const DIGEST: &str = "0101010101010101010101010101010101010101010101010101010101010101";

    fn parse(text: &str) -> Result<Vec<(String, u64)>, Malformed> {
        let text = text.replace("BUILD", "./usr/lib/modules/7.2/build").replace("DIGEST", DIGEST);
        let files = files(text.as_bytes(), Path::new(HEADERS))?;
        assert!(files.values().all(|file| file.sha256 == [1; 32]));
        let below = |path: &Path| path.strip_prefix(HEADERS).unwrap().to_str().unwrap().to_owned();
        let mut found: Vec<_> = files.iter().map(|(path, it)| (below(path), it.size)).collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn finds_the_files_of_a_directory() {
        let found = parse(
            "#mtree
/set type=file uid=0 gid=0 mode=644
./.PKGINFO time=1795927768.982727901 size=226 sha256digest=DIGEST
/set mode=755
./usr time=1795927766.422727808 type=dir
BUILD time=1795927754.526754563 type=dir
BUILD/.config time=1795927754.526754563 mode=644 size=297777 sha256digest=DIGEST
BUILD/include time=1792698803.0 type=dir
BUILD/include/linkage.h time=1792698803.0 mode=644 size=3 sha256digest=DIGEST
BUILD/include/dt-bindings/clock/qcom,dispcc-sm8150.h time=1.0 mode=777 type=link link=qcom.h
BUILD/include/a\\040b\\134.h time=1.0 size=4 sha256digest=DIGEST
BUILD/include/old.h time=1.0 size=5 md5digest=d41d8cd98f00b204e9800998ecf8427e
BUILD/include/queue time=1.0 type=fifo
BUILD/include-2/a.h time=1.0 size=6 sha256digest=DIGEST
",
        );
        let want = [("a b\\.h", 4), ("linkage.h", 3)];
        assert_eq!(found, Ok(want.map(|(path, size)| (path.to_owned(), size)).into()));
    }

    #[rstest]
    #[case::type_of_the_line("/set type=dir\nBUILD/include/a size=1 sha256=DIGEST type=file", true)]
    #[case::type_set("/set type=dir\nBUILD/include/a size=1 sha256=DIGEST", false)]
    #[case::replaced("/set type=dir\n/set type=file\nBUILD/include/a size=1 sha256=DIGEST", true)]
    #[case::unset("/set type=file\n/unset type\nBUILD/include/a size=1 sha256=DIGEST", false)]
    #[case::all_unset("/set type=file\n/unset all\nBUILD/include/a size=1 sha256=DIGEST", false)]
    #[case::other_unset("/set type=file\n/unset uid\nBUILD/include/a size=1 sha256=DIGEST", true)]
    #[case::digest_set("/set type=file size=1 sha256=DIGEST\nBUILD/include/a nochange", true)]
    fn keeps_the_values_that_were_set(#[case] lines: &str, #[case] is_file: bool) {
        let found = parse(&format!("#mtree\n\n# comment\n{lines}\n"));
        assert_eq!(found, Ok(Vec::from_iter(is_file.then(|| ("a".to_owned(), 1)))));
    }

    #[rstest]
    #[case::empty("", 1)]
    #[case::no_heading("./usr type=dir", 1)]
    #[case::relative("#mtree\nusr type=dir", 2)]
    #[case::unknown_command("#mtree\n/usr type=dir", 2)]
    #[case::short_escape("#mtree\n./a\\04 type=dir", 2)]
    #[case::large_escape("#mtree\n./a\\400 type=dir", 2)]
    #[case::signed_escape("#mtree\n./a\\+12 type=dir", 2)]
    #[case::other_escape("#mtree\n./a\\s11 type=dir", 2)]
    #[case::continued("#mtree\n./usr \\\n type=dir", 3)]
    #[case::size("#mtree\n./a type=file size=x", 2)]
    #[case::no_value("#mtree\n./a type", 2)]
    #[case::short_digest("#mtree\n./a sha256digest=01", 2)]
    #[case::digest_of_odd_length("#mtree\n./a sha256digest=DIGEST0", 2)]
    #[case::digest_of_other_text("#mtree\n./a sha256digest=DIGESg", 2)]
    #[case::twice(
        "#mtree\n/set type=file size=1 sha256=DIGEST\nBUILD/include/a\nBUILD/include/a",
        4
    )]
    fn rejects_malformed_lines(#[case] text: &str, #[case] line: usize) {
        assert_eq!(parse(text), Err(Malformed(line)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = files(&bytes, Path::new(""));
            let _ = files(&[b"#mtree\n", &*bytes].concat(), Path::new(""));
        }

        #[test]
        fn no_entry_makes_it_panic(line in r"(\./|/set )?[a\\0-9/]{0,8}( (type|size|sha256)=?[0-9a-f\\]{0,65}){0,3}") {
            let _ = files(format!("#mtree\n{line}\n").as_bytes(), Path::new(""));
        }
    }
}
