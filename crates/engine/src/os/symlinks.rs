//! Symbolic links as the machine under a root sees them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows before it says ELOOP.
const MOST_LINKS: usize = 40;

/// Follows every link of `path`, which lies below `root`, taking `/` in a link to mean `root`:
/// `T/M/V/source` says `/usr/src/…`, whatever directory the machine is mounted at.
///
/// # Errors
/// The system's error, e.g. [`ErrorKind::NotFound`]; a path that is not below `root` or that goes round
/// in circles is an error too.
pub fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let outside = || io::Error::new(ErrorKind::InvalidInput, "outside of the root");
    let mut todo = steps(path.strip_prefix(root).map_err(|_| outside())?);
    let mut found = root.to_owned();
    let mut followed = 0;
    while let Some(step) = todo.pop_front() {
        if step == ".." {
            // As in the real root: `/..` is `/`.
            if found != root {
                found.pop();
            }
            continue;
        }
        let next = found.join(&step);
        if !fs::symlink_metadata(&next)?.is_symlink() {
            found = next;
            continue;
        }
        followed += 1;
        if followed > MOST_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            found = root.to_owned();
        }
        let mut ahead = steps(&target);
        ahead.append(&mut todo);
        todo = ahead;
    }
    Ok(found)
}

/// Returns true if `path`, which lies below `root`, is a directory or a link that leads to one, see
/// [`resolve`].
#[must_use]
pub(crate) fn leads_to_dir(root: &Path, path: &Path) -> bool {
    resolve(root, path).is_ok_and(|found| found.is_dir())
}

/// What a link must say to name `path` on the machine under `root`: `/usr/src/zfs-2.4` for
/// `ROOT/usr/src/zfs-2.4`. Paths outside of `root` stay as they are.
#[must_use]
pub(crate) fn text_for(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(root) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path.to_owned(),
    }
}

/// The names to step through, with `..` kept and `/` and `.` left out.
fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir))
        .map(|step| step.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    #[rstest]
    #[case::no_link("usr/src/a", Some("usr/src/a"))]
    #[case::absolute("absolute", Some("usr/src/a"))]
    #[case::relative("usr/relative", Some("usr/src/a"))]
    #[case::through_a_linked_directory("lib/src/a", Some("usr/src/a"))]
    #[case::above_the_root("escape", Some("usr/src/a"))]
    #[case::dangling("dangling", None)]
    #[case::circle("circle", None)]
    fn resolves_as_inside_the_root(#[case] path: &str, #[case] want: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/src/a")).unwrap();
        symlink("/usr/src/a", root.join("absolute")).unwrap();
        symlink("./src/b/../a", root.join("usr/relative")).unwrap();
        fs::create_dir(root.join("usr/src/b")).unwrap();
        symlink("usr", root.join("lib")).unwrap();
        symlink("../../../../../usr/src/a", root.join("escape")).unwrap();
        symlink("/usr/src/none", root.join("dangling")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        let found = resolve(root, &root.join(path)).ok();
        assert_eq!(found, want.map(|path| root.join(path)));
    }

    #[test]
    fn writes_links_as_the_machine_reads_them() {
        let text = text_for(Path::new("/mnt"), Path::new("/mnt/usr/src/a-1"));
        assert_eq!(text, Path::new("/usr/src/a-1"));
        assert_eq!(text_for(Path::new("/"), Path::new("/usr/src/a-1")), text);
        assert_eq!(text_for(Path::new("/mnt"), Path::new("/srv/a")), Path::new("/srv/a"));
    }

    #[test]
    fn refuses_a_path_outside() {
        assert!(resolve(Path::new("/mnt"), Path::new("/etc")).is_err());
    }
}
