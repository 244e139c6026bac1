//! The texts of refusals that several commands share.

use super::Note;
use crate::facts::Facts;
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId};

pub(super) fn refuse(code: u8, message: String) -> Failure {
    Failure::new(code, message)
}

/// The refusal of a module whose source is gone (dkms's 4).
pub(super) fn broken(id: &ModuleId) -> Failure {
    let message = format!(
        "{id} is broken: its source is gone and no copy of it was kept; bring the source back to \
         /usr/src/{}, or delete /var/lib/dkms/{id}",
        id.source_dir()
    );
    refuse(4, message)
}

/// The refusal of a kernel without headers (dkms's 21).
pub(super) fn no_headers(facts: &Facts, kernel: &KernelRelease) -> Failure {
    refuse(21, headers_note(facts, kernel).to_string())
}

/// The refusal where none of the kernels has headers (dkms's 21). Names the kernels that do.
pub(super) fn no_headers_at_all(facts: &Facts, kernels: &[&KernelRelease]) -> Failure {
    let notes = kernels.iter().map(|kernel| headers_note(facts, kernel).to_string());
    let lines: Vec<String> = notes.chain(headers_elsewhere(facts)).collect();
    if lines.is_empty() {
        return refuse(21, "no installed kernel has headers".into());
    }
    refuse(21, lines.join("\n  "))
}

/// Says which installed kernels have headers, and how to install modules for them.
pub(super) fn headers_elsewhere(facts: &Facts) -> Option<String> {
    let others: Vec<&str> = facts
        .kernels
        .iter()
        .filter(|(_, about)| about.kernel.alive && about.owned && about.has_headers())
        .map(|(release, _)| release.as_str())
        .collect();
    match others.as_slice() {
        [] => None,
        [one] => Some(format!("{one} has headers; run: dkms autoinstall -k {one}")),
        all => Some(format!("{} have headers; run: dkms autoinstall --all", all.join(", "))),
    }
}

/// Says which package brings the headers of a kernel.
pub(super) fn headers_note(facts: &Facts, kernel: &KernelRelease) -> Note {
    let pkgbase = facts.kernels.get(kernel).and_then(|k| k.kernel.pkgbase.clone());
    let other = facts
        .kernels
        .iter()
        .find(|(release, k)| {
            // Headers without a kernel keep no pkgbase; Arch's release names carry it instead.
            *release != kernel
                && k.kernel.headers.is_some()
                && (!k.kernel.alive && same_flavour(release, kernel))
        })
        .map(|(release, _)| release.clone());
    Note::NoHeaders { kernel: kernel.clone(), pkgbase, other }
}

/// Returns true if two releases look like versions of one kernel package: `7.2.12-arch1-1` and
/// `7.2.13-arch1-1` do, `6.12.8-1-lts` does not.
fn same_flavour(one: &KernelRelease, other: &KernelRelease) -> bool {
    let flavour = |release: &KernelRelease| -> String {
        release.as_str().chars().filter(|c| c.is_ascii_alphabetic()).collect()
    };
    flavour(one) == flavour(other)
}
