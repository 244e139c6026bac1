//! The user's permission for one transaction in which modules are lost.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dkms_engine::machine::Trees;
use dkms_engine::os::durable::{self, FileError};

/// The name of the file in the dkms tree whose existence is the permission.
const ALLOWED: &str = ".preflight-allowed";

/// The time for which a permission is valid. A permission that the user has forgotten must not
/// cause surprises later.
const VALID_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Permits one transaction that a preflight would otherwise abort. The permission is valid for a
/// day.
///
/// # Errors
/// [`FileError`] if the dkms tree is not writable.
pub fn grant(trees: &Trees) -> Result<(), FileError> {
    durable::create_dirs(&trees.dkms)?;
    durable::write(&file(trees), b"")
}

/// Returns true if there is a valid permission.
pub(crate) fn is_granted(trees: &Trees) -> bool {
    let granted = fs::metadata(file(trees)).and_then(|meta| meta.modified());
    let age = granted.ok().and_then(|granted| SystemTime::now().duration_since(granted).ok());
    age.is_some_and(|age| age < VALID_FOR)
}

/// Returns true if there is a valid permission. Withdraws the permission, even if it has expired.
pub(crate) fn take(trees: &Trees) -> bool {
    let is_granted = is_granted(trees);
    durable::remove_file_if_there(&file(trees)).is_ok_and(|removed| removed && is_granted)
}

fn file(trees: &Trees) -> PathBuf {
    trees.dkms.join(ALLOWED)
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    #[test]
    fn a_permission_is_used_up() {
        let root = TestRoot::new();
        let trees = Trees::under(root.path());
        assert!(!take(&trees));
        grant(&trees).expect("a permission");
        grant(&trees).expect("the same permission");
        assert!(is_granted(&trees));
        assert!(take(&trees));
        assert!(!is_granted(&trees) && !take(&trees));
    }

    #[test]
    fn a_permission_expires_after_a_day() {
        let root = TestRoot::new();
        let trees = Trees::under(root.path());
        let hour = Duration::from_secs(60 * 60);
        for (age, expected) in [(23 * hour, true), (25 * hour, false)] {
            grant(&trees).expect("a permission");
            let file = fs::File::options().write(true).open(file(&trees)).expect("a file");
            file.set_modified(SystemTime::now() - age).expect("another time");
            assert_eq!(take(&trees), expected, "{age:?}");
        }
        assert!(!file(&trees).exists());
    }
}
