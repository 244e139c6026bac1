//! The user's permission for one transaction in which modules are lost.

use std::path::PathBuf;

use dkms_engine::machine::Trees;
use dkms_engine::os::durable::{self, FileError};

/// The name of the file in the dkms tree whose existence is the permission.
const ALLOWED: &str = ".preflight-allowed";

/// Allows the next transaction with a preflight to go on, regardless of the verdict.
///
/// # Errors
/// [`FileError`] if the dkms tree is not writable.
pub fn grant(trees: &Trees) -> Result<(), FileError> {
    durable::create_dirs(&trees.dkms)?;
    durable::write(&file(trees), b"")
}

/// Returns true if the user has allowed one transaction, and withdraws that permission.
pub(crate) fn take(trees: &Trees) -> bool {
    durable::remove_file_if_there(&file(trees)).unwrap_or(false)
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
        assert!(take(&trees));
        assert!(!take(&trees));
    }
}
