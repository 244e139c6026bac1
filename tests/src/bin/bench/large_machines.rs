//! Creates machines larger than the testbed's: more builds, and headers of full size.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use stories::{PackageFile, Root, find};
use walkdir::WalkDir;

/// A script that adds a file for every kernel option to a headers package, as `make` creates them
/// and Arch packages them. Its arguments are the package, its name, its version, the kernel release
/// and the file to write.
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

/// The headers of `linux-1` with a file for every option. Exists only after
/// [`make_full_headers`].
pub(crate) fn full_headers() -> PackageFile {
    PackageFile { file: "/srv/full-headers.pkg.tar.zst".into(), ..find("linux-headers-1") }
}

/// Builds the package of [`full_headers`].
pub(crate) fn make_full_headers(root: &Root) {
    let from = find("linux-headers-1").file;
    let PackageFile { name, version, content, file } = full_headers();
    root.write("srv/pack.sh", include_str!("../../../testbed/pack.sh"));
    root.shell(&format!("set -- {from} {name} {version} {content} {file}; {ADD_OPTIONS}")).ok();
}

/// Copies the build of `bbswitch` for `linux-1` until `modules` are installed for `kernels`.
pub(crate) fn multiply(root: &Root, modules: usize, kernels: usize) {
    let release = find("linux-1").content;
    let version = release.split('-').next().unwrap_or_default();
    for number in 1..kernels {
        copy_renamed(root, &release, &format!("{version}-made{number}"));
    }
    for number in 1..modules {
        copy_renamed(root, "bbswitch", &format!("made{number}"));
    }
    let lines = root.run("dkms", &["status"]).ok().text;
    let installed = lines.lines().filter(|line| line.ends_with(": installed")).count();
    assert_eq!(installed, modules * kernels, "generated builds:\n{lines}");
}

/// Copies every path that contains `old`, with `new` in place of it in the path and the text.
fn copy_renamed(root: &Root, old: &str, new: &str) {
    for tree in ["usr/src", "var/lib/dkms", "usr/lib/modules"] {
        let top = root.path(tree);
        let mut entries = WalkDir::new(&top).into_iter();
        while let Some(entry) = entries.next() {
            let entry = entry.expect("walk a tree");
            let below = entry.path().strip_prefix(&top).expect("a path in the tree");
            let below = below.display().to_string();
            // A symlink replaces the many files of the headers.
            let is_headers = tree == "usr/lib/modules" && entry.file_name() == "build";
            if is_headers && entry.file_type().is_dir() {
                entries.skip_current_dir();
            }
            if !below.contains(old) {
                continue;
            }
            let copy = top.join(below.replace(old, new));
            let made = match is_headers {
                true => symlink(format!("../{old}/build"), copy),
                false => copy_file(entry.path(), &copy, old, new),
            };
            made.unwrap_or_else(|error| panic!("cannot copy {below}: {error}"));
        }
    }
}

fn copy_file(from: &Path, to: &Path, old: &str, new: &str) -> io::Result<()> {
    if let Ok(target) = fs::read_link(from) {
        return symlink(target.display().to_string().replace(old, new), to);
    }
    if from.is_dir() {
        return fs::create_dir_all(to);
    }
    match String::from_utf8(fs::read(from)?) {
        Ok(text) => fs::write(to, text.replace(old, new)),
        Err(bytes) => fs::write(to, bytes.into_bytes()),
    }
}
