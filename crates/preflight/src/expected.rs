//! The modules that the next upgrade would lose, according to the last preflight of an upgrade.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;

use dkms_engine::machine::{Machine, Trees};
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::journal::{self, Priority};
use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// The name of the file in the dkms tree.
const FILE: &str = ".preflight-expected";

/// The identifier of the journal entry (systemd.journal-fields(7)).
const MESSAGE_ID: &str = "7272cba1a0d547e2a9db2046a608a6a2";

/// A module that the next upgrade would lose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExpectedLoss {
    /// The module that is installed now.
    pub module: ModuleId,
    /// The arriving kernel for which the module would not be installed.
    pub kernel: KernelRelease,
}

/// Returns the modules that the next upgrade would lose. Omits modules that have been removed since
/// the last preflight of an upgrade, and losses for kernels that have been installed since.
#[must_use]
pub fn read(trees: &Trees) -> BTreeSet<ExpectedLoss> {
    let text = fs::read(file(trees)).unwrap_or_default();
    let mut losses: BTreeSet<ExpectedLoss> = serde_json::from_slice(&text).unwrap_or_default();
    losses.retain(|loss| {
        let ModuleId { name, version } = &loss.module;
        let is_added = trees.dkms.join(name.as_str()).join(version.as_str()).is_dir();
        is_added && !trees.install.join(&loss.kernel).exists()
    });
    losses
}

/// Returns the losses in one line.
#[must_use]
pub fn message(losses: &BTreeSet<ExpectedLoss>) -> String {
    let losses = losses.iter().map(|loss| format!("{} for {}", loss.module, loss.kernel));
    let losses: Vec<String> = losses.collect();
    format!("the next upgrade would lose {}; see: dkms preflight --upgrade", losses.join(", "))
}

/// Stores the modules that would be lost according to `verdict`, replacing the earlier list.
pub(crate) fn store(trees: &Trees, verdict: &Verdict) -> Result<(), FileError> {
    let losses = losses(verdict);
    let file = file(trees);
    if losses.is_empty() {
        return durable::remove_file_if_there(&file).map(|_| ());
    }
    let text = serde_json::to_vec(&losses).map_err(std::io::Error::from);
    durable::write(&file, &text.map_err(FileError::when("write", &file))?)
}

/// Adds an entry to the journal if modules would be lost and a systemd unit runs this command.
/// Ignores errors.
pub(crate) fn announce(machine: &Machine, verdict: &Verdict) {
    let losses = losses(verdict);
    if losses.is_empty() || env::var_os("JOURNAL_STREAM").is_none() {
        return;
    }
    let _ = journal::log(&machine.env, &message(&losses), MESSAGE_ID, Priority::Warning);
}

fn losses(verdict: &Verdict) -> BTreeSet<ExpectedLoss> {
    let losses = verdict.regressions.iter().map(|regression| ExpectedLoss {
        module: regression.installed.id.clone(),
        kernel: regression.kernel.clone(),
    });
    losses.collect()
}

fn file(trees: &Trees) -> PathBuf {
    trees.dkms.join(FILE)
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;
    use crate::installed::InstalledModule;
    use crate::verdict::{Regression, RegressionCause};

    #[test]
    fn the_catalogue_explains_the_journal_entry() {
        let catalogue = include_str!("../../../packaging/alpm-dkms.catalog");
        assert!(catalogue.contains(&format!("-- {MESSAGE_ID}\nSubject: ")));
    }

    #[test]
    fn a_loss_is_expected_until_its_kernel_is_installed() {
        let root = TestRoot::new();
        root.dir("var/lib/dkms/zfs/2.4");
        let trees = Trees::under(root.path());
        assert!(read(&trees).is_empty());
        let lost = Regression {
            installed: InstalledModule {
                id: "zfs/2.4".parse().expect("a module"),
                objects: [].into(),
            },
            works_for: "7.1".parse().expect("a release"),
            kernel: "7.2".parse().expect("a release"),
            package: "linux".into(),
            why: RegressionCause::NoHeaders,
            critical: None,
        };
        let verdict = Verdict { regressions: vec![lost], ..Verdict::default() };
        store(&trees, &verdict).expect("a file");
        let expected = "the next upgrade would lose zfs/2.4 for 7.2; see: dkms preflight --upgrade";
        assert_eq!(message(&read(&trees)), expected);
        root.remove("var/lib/dkms/zfs");
        assert!(read(&trees).is_empty());
        root.dir("var/lib/dkms/zfs/2.4");
        assert!(!read(&trees).is_empty());
        root.dir("usr/lib/modules/7.2");
        assert!(read(&trees).is_empty());
        store(&trees, &Verdict::default()).expect("no file");
        assert!(!file(&trees).exists());
    }
}
