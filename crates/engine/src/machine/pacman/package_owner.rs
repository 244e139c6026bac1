//! Finds the package that owns a file.

use std::io::ErrorKind;
use std::path::Path;

use super::{DATABASE, owners};
use crate::machine::Trees;

/// Returns the name of the package that owns `file`; `None` if no package does. `file` need not
/// exist. If pacman's database cannot be read, the file counts as owned.
///
/// Reads the lists of all packages. Call it only for a file whose origin is unknown.
pub(crate) fn owner_of(trees: &Trees, file: &Path) -> Option<String> {
    let path = file.strip_prefix(&trees.root).ok()?.to_str()?.to_owned();
    match owners(&trees.inside(Path::new(DATABASE)), &[path].into()) {
        Ok(owners) => owners.into_values().next(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("(unknown: {error})")),
    }
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
}
