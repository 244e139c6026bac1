//! The kernel modules and other files in an image, parsed from the output of the generator's
//! listing program.

use std::collections::BTreeSet;
use std::path::Path;

use dkms_engine::names::KernelRelease;
use serde::{Deserialize, Serialize};

use super::kmod_name::KmodName;

/// The files in an image, and the kernels that it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) modules: BTreeSet<KmodName>,
    /// The kernels whose module directories are in the image: usually one; empty if the image
    /// contains no modules.
    pub(crate) kernels: BTreeSet<KernelRelease>,
    /// The paths of the files that are not kernel modules. Each version number in them is replaced
    /// with `#`, so that an upgraded library counts as the same file.
    pub(crate) files: BTreeSet<String>,
}

impl Contents {
    /// Returns a file of this image that is missing from a later image with the contents `now`;
    /// `None` if no file is missing.
    pub(crate) fn lost_file<'a>(&'a self, now: &'a Self) -> Option<&'a str> {
        self.files.difference(&now.files).next().map(String::as_str)
    }

    /// Returns true if the image can be used with `kernel`. An image without modules can be used
    /// with every kernel.
    pub(crate) fn is_for(&self, kernel: &KernelRelease) -> bool {
        self.kernels.is_empty() || self.kernels.contains(kernel)
    }
}

/// A parser of a listing with one file per line: a plain path (`lsinitcpio -l`, `booster ls`) or a
/// line of `ls -l` (`lsinitrd`).
#[derive(Debug, Default)]
pub(crate) struct Listing {
    contents: Contents,
    /// Whether at least one line named a file of an image.
    names_files: bool,
}

impl Listing {
    /// Parses one line. Ignores lines that do not name a file.
    pub(crate) fn line(&mut self, line: &str) {
        let path = line.split(" -> ").next().unwrap_or(line);
        let Some(path) = path.split_whitespace().next_back() else { return };
        let path = path.trim_start_matches('/');
        // Every image contains an `init`. Any other path may be part of an error message.
        self.names_files |= ["init", "usr/bin/init", "usr/lib/systemd/systemd"].contains(&path);
        let path = Path::new(path);
        let below =
            ["usr/lib/modules", "lib/modules"].iter().find_map(|top| path.strip_prefix(top).ok());
        let Some(below) = below else {
            self.contents.files.extend(is_entry(line).then(|| without_versions(path)));
            return;
        };
        self.names_files = true;
        let release = below.iter().next().and_then(|name| name.to_str()?.parse().ok());
        self.contents.kernels.extend(release);
        self.contents.modules.extend(KmodName::of_file(path));
    }

    /// Returns true if the listing has named at least one file of the image. The listing program
    /// may still fail later.
    pub(crate) fn has_begun(&self) -> bool {
        self.names_files
    }

    /// Returns the contents. Returns `None` if no line names an init program or a kernel module:
    /// the lines then do not describe an image.
    pub(crate) fn end(self) -> Option<Contents> {
        self.names_files.then_some(self.contents)
    }
}

/// Returns true if a line of a listing describes a file: a plain path, or a line of `ls -l`.
fn is_entry(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    let is_mode = first.len() >= 10 && first.chars().all(|c| "-dlcbpsrwxStT.+".contains(c));
    let is_path = first.len() == line.len() && first.chars().any(char::is_alphanumeric);
    is_mode || is_path
}

/// Returns a path in which each version number is replaced with `#`.
fn without_versions(path: &Path) -> String {
    let text = path.to_string_lossy();
    let (mut short, mut is_in_number) = (String::new(), false);
    for c in text.chars() {
        let is_digit = c.is_ascii_digit();
        if is_digit && !is_in_number {
            short.push('#');
        }
        is_in_number = is_digit || (is_in_number && c == '.');
        if !is_in_number {
            short.push(c);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_lost_unless_only_its_version_changes() {
        let old =
            read("init\nusr/lib/libcrypto.so.3\nusr/lib/libzfs.so.4.1.0\netc/crypt.key\n").unwrap();
        let new = read("init\nusr/lib/libcrypto.so.4\nusr/lib/libzfs.so.5.0\n").unwrap();
        assert_eq!(old.lost_file(&new), Some("etc/crypt.key"));
        assert_eq!(new.lost_file(&old), None);
    }

    fn read(listing: &str) -> Option<Contents> {
        let mut reading = Listing::default();
        listing.lines().for_each(|line| reading.line(line));
        reading.end()
    }

    fn names(contents: &Contents) -> Vec<&str> {
        contents.modules.iter().map(KmodName::as_str).collect()
    }

    #[test]
    fn reads_a_list_of_paths() {
        let listing = "init\nusr/lib/modules/7.2.1-arch1-1/updates/dkms/zfs.ko.zst\n\
                       usr/lib/modules/7.2.1-arch1-1/kernel/fs/ext4.ko\nusr/bin/kmod\n";
        let contents = read(listing).unwrap();
        assert_eq!(names(&contents), ["ext4", "zfs"]);
        assert_eq!(contents.kernels, ["7.2.1-arch1-1".parse().unwrap()].into());
    }

    #[test]
    fn reads_a_long_list() {
        let listing = "Image: /boot/initramfs-linux.img: 12M\nArguments: --force\n\
                       lrwxrwxrwx   1 root root 7 Jan 1 00:00 bin -> usr/bin\n\
                       -rw-r--r--   1 root root 9 Jan 1 00:00 usr/lib/modules/7.2.1/extra/tp_smapi.ko.xz\n\
                       lrwxrwxrwx   1 root root 9 Jan 1 00:00 usr/lib/modules/7.2.1/build -> /usr/src/linux.ko\n";
        assert_eq!(names(&read(listing).unwrap()), ["tp_smapi"]);
    }

    #[test]
    fn a_listing_without_files_is_not_an_image() {
        assert_eq!(read(""), None);
        assert_eq!(read("lsinitcpio: not an image\n"), None);
    }
}
