//! Reads mount tables in the format of fstab(5): `/etc/fstab` and `/proc/self/mounts`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A row of a mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount point. For swap space, this is not a path.
    pub dir: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The options, separated by commas.
    pub options: String,
}

/// Reads the mount table `file`. Omits comments and incomplete rows.
///
/// # Errors
/// An I/O error if the file cannot be read.
pub fn read(file: &Path) -> io::Result<Vec<Mount>> {
    let table = fs::read(file)?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(row).collect())
}

fn row(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.next().filter(|device| !device.starts_with(b"#"))?;
    let dir = unescaped(words.next()?);
    let [kind, options] = [words.next()?, words.next()?].map(String::from_utf8_lossy);
    Some(Mount { dir, kind: kind.into_owned(), options: options.into_owned() })
}

/// Returns the path that a field contains. Replaces octal escapes such as `\040`, which stands for
/// a space.
fn unescaped(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field);
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::mount(b"tmp /tmp tmpfs rw,nosuid 0 0", b"/tmp", "tmpfs", "rw,nosuid")]
    #[case::short(b"UUID=1\t/boot\tvfat\tnoauto", b"/boot", "vfat", "noauto")]
    #[case::escaped(b"x /a\\040b\\134\\011c ext4 rw", b"/a b\\\tc", "ext4", "rw")]
    #[case::not_utf8(b"x /\xff\\04 ext4 rw", b"/\xff\\04", "ext4", "rw")]
    fn reads_a_row(
        #[case] line: &[u8],
        #[case] dir: &[u8],
        #[case] kind: &str,
        #[case] options: &str,
    ) {
        let dir = OsStr::from_bytes(dir).into();
        let expected = Mount { dir, kind: kind.to_owned(), options: options.to_owned() };
        assert_eq!(row(line), Some(expected));
    }

    #[test]
    fn ignores_comments_and_incomplete_rows() {
        for line in ["", "# x / ext4 rw", " #x / ext4 rw", "x / ext4"] {
            assert_eq!(row(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn missing_table_is_an_error() {
        assert!(read(Path::new("/nonexistent")).is_err());
        assert!(!read(Path::new("/proc/self/mounts")).expect("the mounts").is_empty());
    }
}
