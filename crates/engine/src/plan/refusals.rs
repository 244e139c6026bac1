//! The refusals and notes that several commands share.

use super::{Note, Plan};
use crate::facts::{BadHeaders, Facts};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId};

impl Plan {
    /// Adds a note for each kernel without headers, even if no module is missing for the kernel.
    /// Called for the transaction that installs alpm-dkms, because a module that is installed later
    /// would not be built.
    pub fn note_missing_headers(&mut self, facts: &Facts) {
        let kernels = facts.kernels.iter();
        let without = kernels
            .filter(|(_, about)| about.kernel.alive && about.owned && !about.has_headers())
            .map(|(kernel, _)| headers_note(facts, kernel));
        let new: Vec<Note> = without.filter(|note| !self.notes.contains(note)).collect();
        self.notes.extend(new);
    }
}

pub(super) fn refuse(code: u8, message: String) -> Failure {
    Failure::new(code, message)
}

/// Returns the refusal to add a module again.
pub(super) fn already_added(code: u8, id: &ModuleId) -> Failure {
    refuse(code, format!("{id}: already added")).with_hint(format!("run: dkms install {id}"))
}

/// Returns the refusal for a module whose source is missing, with dkms's exit code 4.
pub(super) fn broken(id: &ModuleId) -> Failure {
    let hint = format!("restore /usr/src/{}, or run: rm -r /var/lib/dkms/{id}", id.source_dir());
    refuse(4, format!("{id}: broken: source missing")).with_hint(hint)
}

/// Returns the refusal for a module with a source but without a source link, with dkms's exit code
/// 4.
pub(super) fn unlinked_source(id: &ModuleId) -> Failure {
    refuse(4, format!("{id}: broken: source link missing")).with_hint(format!("run: dkms add {id}"))
}

/// Returns the refusal for a kernel without headers, with dkms's exit code 21.
pub(super) fn no_headers(facts: &Facts, kernel: &KernelRelease) -> Failure {
    refuse(21, headers_note(facts, kernel).to_string())
}

/// Returns the failure of a module for a kernel without headers, with dkms's exit code 21. The
/// message omits the kernel, which the failed step names.
pub(super) fn no_headers_for_module(facts: &Facts, kernel: &KernelRelease) -> Failure {
    let note = headers_note(facts, kernel).to_string();
    let message = note.strip_prefix(&format!("{kernel}: ")).unwrap_or(&note);
    refuse(21, message.to_owned())
}

/// Returns the refusal for a command if none of the `kernels` has headers, with dkms's exit code
/// 21.
///
/// The message lists the installed kernels that do have headers.
pub(super) fn no_headers_at_all(facts: &Facts, kernels: &[&KernelRelease]) -> Failure {
    let notes = kernels.iter().map(|kernel| headers_note(facts, kernel).to_string());
    let lines: Vec<String> = notes.chain(headers_elsewhere(facts)).collect();
    if lines.is_empty() {
        return refuse(21, "no kernel headers installed".into());
    }
    refuse(21, lines.join("\n  "))
}

/// Returns a message that lists the installed kernels with headers and the command to install
/// modules for them. Returns `None` if no installed kernel has headers.
pub(super) fn headers_elsewhere(facts: &Facts) -> Option<String> {
    let others: Vec<&str> = facts
        .kernels
        .iter()
        .filter(|(_, about)| about.kernel.alive && about.owned && about.has_headers())
        .map(|(release, _)| release.as_str())
        .collect();
    match others.as_slice() {
        [] => None,
        [one] => Some(format!("headers are installed for {one}\n  run: dkms autoinstall -k {one}")),
        all => {
            let all = all.join(", ");
            Some(format!("headers are installed for {all}\n  run: dkms autoinstall --all"))
        }
    }
}

/// Returns the failure of a module for a kernel whose headers are those of another release, with
/// dkms's exit code 21. Returns `None` for other kernels.
pub(super) fn headers_of_another(facts: &Facts, kernel: &KernelRelease) -> Option<Failure> {
    let about = facts.kernels.get(kernel)?;
    let Some(bad @ BadHeaders::OfRelease(dir, _)) = &about.bad_headers else { return None };
    let failure = refuse(21, format!("{bad}, not of {kernel}"));
    let package = about.kernel.package.as_ref();
    Some(match package.filter(|_| dir.starts_with(&about.kernel.dir)) {
        Some(package) => failure.with_hint(format!("run: pacman -S {package} {package}-headers")),
        None => failure,
    })
}

/// Returns the note about a kernel without headers, or about a release for which there is no
/// kernel.
pub(crate) fn headers_note(facts: &Facts, kernel: &KernelRelease) -> Note {
    let about = facts.kernels.get(kernel);
    if let Some(bad @ BadHeaders::None(_)) = about.and_then(|about| about.bad_headers.as_ref()) {
        return Note::Problem(format!("{kernel}: {bad}"));
    }
    let package = about.and_then(|k| k.kernel.package.clone());
    if let Some(target) = about.and_then(|about| about.dangling.clone()) {
        return Note::DanglingHeaders { kernel: kernel.clone(), target, package };
    }
    if facts.kernels_known && !facts.is_alive(kernel) && package.is_none() {
        let installed = facts.kernels.iter().filter(|(_, about)| about.kernel.alive);
        let installed = installed.map(|(release, _)| release.clone()).collect();
        let running = facts.running.as_ref() == Some(kernel);
        return Note::NoKernel { kernel: kernel.clone(), running, installed };
    }
    let other = facts
        .kernels
        .iter()
        .find(|(release, k)| {
            // Headers without a kernel have no package, so compare the releases.
            *release != kernel
                && k.kernel.headers.is_some()
                && (!k.kernel.alive && release.is_same_flavour(kernel))
        })
        .map(|(release, _)| release.clone());
    Note::NoHeaders { kernel: kernel.clone(), package, other }
}
