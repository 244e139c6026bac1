//! Entries that nobody built: copies of a real one under other names and for other releases.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use stories::{Root, find};
use walkdir::WalkDir;

/// Makes of the one module `bbswitch`, installed for one kernel, this many for that many kernels.
pub(crate) fn multiply(root: &Root, modules: usize, kernels: usize) {
    let release = find("linux-1").content;
    let version = release.split('-').next().unwrap_or_default();
    for number in 1..kernels {
        repeat(root, &release, &format!("{version}-made{number}"));
    }
    for number in 1..modules {
        repeat(root, "bbswitch", &format!("made{number}"));
    }
    let lines = root.run("dkms", &["status"]).ok().text;
    let installed = lines.lines().filter(|line| line.ends_with(": installed")).count();
    assert_eq!(installed, modules * kernels, "made-up entries, as installed:\n{lines}");
}

/// Copies everything whose path names `what`, under `other` and with `other` in its text.
fn repeat(root: &Root, what: &str, other: &str) {
    for tree in ["usr/src", "var/lib/dkms", "usr/lib/modules"] {
        let top = root.path(tree);
        let mut entries = WalkDir::new(&top).into_iter();
        while let Some(entry) = entries.next() {
            let entry = entry.expect("walk a tree");
            let below = entry.path().strip_prefix(&top).expect("a path below its top");
            let below = below.display().to_string();
            // Many files that need no copies: a link to them is enough.
            let is_headers = tree == "usr/lib/modules" && entry.file_name() == "build";
            if is_headers && entry.file_type().is_dir() {
                entries.skip_current_dir();
            }
            if !below.contains(what) {
                continue;
            }
            let copy = top.join(below.replace(what, other));
            let made = match is_headers {
                true => symlink(format!("../{what}/build"), copy),
                false => copy_as(entry.path(), &copy, what, other),
            };
            made.unwrap_or_else(|error| panic!("cannot copy {below}: {error}"));
        }
    }
}

fn copy_as(from: &Path, to: &Path, what: &str, other: &str) -> io::Result<()> {
    if let Ok(target) = fs::read_link(from) {
        return symlink(target.display().to_string().replace(what, other), to);
    }
    if from.is_dir() {
        return fs::create_dir_all(to);
    }
    match String::from_utf8(fs::read(from)?) {
        Ok(text) => fs::write(to, text.replace(what, other)),
        Err(bytes) => fs::write(to, bytes.into_bytes()),
    }
}
