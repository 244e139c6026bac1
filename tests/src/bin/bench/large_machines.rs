//! Machines larger than the testbed's packages make them: more builds, more header files.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use stories::{PackageFile, Root, find};
use walkdir::WalkDir;

/// Adds a file for every option of the kernel to a package of headers, as `make` leaves them and Arch packages them.
/// Arguments: the package, its name and version, the kernel's release, the file to write.
const ADD_OPTIONS: &str = r#"
    set -e
    tree=$(mktemp -d)
    bsdtar -xf "$1" -C "$tree"
    rm "$tree"/.[A-Z]*
    cd "$tree/usr/lib/modules/$4/build/include/config"
    sed -n 's/^CONFIG_\([A-Za-z0-9_]*\)=.*/\1/p' auto.conf | xargs touch
    bash /srv/pack.sh "$5" "$2" "$3" "$tree"
    rm -r "$tree"
"#;

/// The headers of `linux-1` with a file for every option; only where [`make_full_headers`] made the package.
pub(crate) fn full_headers() -> PackageFile {
    PackageFile { file: "/srv/full-headers.pkg.tar.zst".into(), ..find("linux-headers-1") }
}

/// Makes the package of [`full_headers`].
pub(crate) fn make_full_headers(root: &Root) {
    let from = find("linux-headers-1").file;
    let PackageFile { name, version, content, file } = full_headers();
    root.write("srv/pack.sh", include_str!("../../../testbed/pack.sh"));
    root.shell(&format!("set -- {from} {name} {version} {content} {file}; {ADD_OPTIONS}")).ok();
}

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
