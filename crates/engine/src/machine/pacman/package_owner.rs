//! Finds the package that owns a file.

use std::io::ErrorKind;
use std::path::Path;

use super::{DATABASE, owners, owners_among};
use crate::machine::Trees;

/// Returns the name of the package that owns `file`; `None` if no package does. `file` need not
/// exist. If pacman's database cannot be read, the file counts as owned.
///
/// Call this function only for a file whose origin is unknown, because it reads the file lists of
/// all packages.
pub(crate) fn owner_of(trees: &Trees, file: &Path) -> Option<String> {
    let path = file.strip_prefix(&trees.root).ok()?.to_str()?.to_owned();
    match owners(&trees.inside(Path::new(DATABASE)), &[path].into()) {
        Ok(owners) => owners.into_values().next(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("(unknown: {error})")),
    }
}

/// Returns the name of the package that contains the kernel in the directory `dir`. Returns `None`
/// if no package does, or if the package cannot be determined.
///
/// Reads only the file lists of packages whose names begin with `linux`, as the names of kernel
/// packages do.
pub(crate) fn package_of_kernel(trees: &Trees, dir: &Path) -> Option<String> {
    let order = dir.join("modules.order");
    let path = order.strip_prefix(&trees.root).ok()?.to_str()?.to_owned();
    let database = trees.inside(Path::new(DATABASE));
    let owners = owners_among(&database, "linux", &[path].into());
    owners.ok()?.into_values().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs;

    #[rstest]
    #[case::owned("usr/lib/modules/7.2/updates/dkms/foo.ko.zst", Some("foo-bin"))]
    #[case::beginning_of_a_path("usr/lib/modules/7.2/updates/dkms/foo.ko", None)]
    fn finds_the_owner_of_a_file(#[case] path: &str, #[case] want: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        assert_eq!(owner_of(&trees, &dir.path().join(path)), None);
        let package = dir.path().join("var/lib/pacman/local/foo-bin-1.0-1");
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("desc"), "%NAME%\nfoo-bin\n").unwrap();
        let list = "usr/lib/modules/7.2/updates/dkms/foo.ko.zst";
        fs::write(package.join("files"), format!("%FILES%\nusr/\n{list}\n")).unwrap();
        assert_eq!(owner_of(&trees, &dir.path().join(path)).as_deref(), want);
    }

    #[rstest]
    #[case::kernel("linux-aarch64", "7.2-1-aarch64", Some("linux-aarch64"))]
    #[case::other_kernel("linux-aarch64", "7.3-1-aarch64", None)]
    #[case::no_kernel("my-files", "7.2-1-aarch64", None)]
    fn finds_the_package_of_a_kernel(
        #[case] package: &str,
        #[case] release: &str,
        #[case] want: Option<&str>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let kernel = trees.install.join("7.2-1-aarch64");
        assert_eq!(package_of_kernel(&trees, &kernel), None, "there is no database");
        let entry = dir.path().join(format!("var/lib/pacman/local/{package}-7.2-1"));
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("desc"), format!("%NAME%\n{package}\n")).unwrap();
        let list = format!("%FILES%\nusr/\nusr/lib/modules/{release}/modules.order\n");
        fs::write(entry.join("files"), list).unwrap();
        assert_eq!(package_of_kernel(&trees, &kernel).as_deref(), want);
    }
}
