//! Finds the kernel that the machine boots by default.

use std::path::Path;
use std::time::Duration;

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::process::Program;
use dkms_initramfs::release_of_kernel_file;
use serde::Deserialize;

/// The time limit of bootctl, which reads the EFI system partition.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A boot entry, as printed by `bootctl list --json=short` (bootctl(1)).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BootEntry {
    is_default: bool,
    /// The kernel release, if the entry states it.
    version: Option<String>,
    /// The path of the kernel below `root`; `None` for a unified kernel image.
    linux: Option<String>,
    /// The mount point of the partition that contains the entry.
    root: Option<String>,
}

/// Returns the kernel that the machine boots by default, or `None` if it is unknown.
///
/// systemd-boot states its default entry. With another boot loader, assumes that the machine boots
/// the package of the running kernel: an upgrade changes the kernel's release, but not its boot
/// entry.
pub(crate) fn default_kernel<'a>(
    machine: &Machine,
    kernels: &'a [Kernel],
    running: Option<&KernelRelease>,
) -> Option<&'a Kernel> {
    running?;
    of_systemd_boot(machine, kernels).or_else(|| of_running(kernels, running?))
}

fn of_systemd_boot<'a>(machine: &Machine, kernels: &'a [Kernel]) -> Option<&'a Kernel> {
    let list = Program::new("bootctl", &machine.env).args(["list", "--json=short"]);
    let list = list.deadline(TIMEOUT);
    let ended = list.run().ok()?;
    of_entries(kernels, ended.success().then_some(&ended.output)?)
}

/// Returns the kernel of the default entry in `entries`, a JSON list.
fn of_entries<'a>(kernels: &'a [Kernel], entries: &[u8]) -> Option<&'a Kernel> {
    let entries: Vec<BootEntry> = serde_json::from_slice(entries).ok()?;
    let entry = entries.into_iter().find(|entry| entry.is_default)?;
    let of_release = |release: &str| kernels.iter().find(|it| it.release.as_str() == release);
    if let Some(kernel) = entry.version.as_deref().and_then(of_release) {
        return Some(kernel);
    }
    let (root, linux) = (entry.root?, entry.linux?);
    let file = Path::new(&root).join(linux.trim_start_matches('/'));
    if let Some(kernel) = release_of_kernel_file(&file).as_deref().and_then(of_release) {
        return Some(kernel);
    }
    // The file may be unreadable, or belong to a release whose modules have been replaced.
    let package = file.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
    kernels.iter().find(|kernel| kernel.pkgbase.as_ref() == Some(&package))
}

/// Returns the running kernel or, if it has been upgraded, the newest kernel of the same package.
///
/// The package of a removed kernel is unknown, so only the letters of the releases are compared.
fn of_running<'a>(kernels: &'a [Kernel], running: &KernelRelease) -> Option<&'a Kernel> {
    let is_running = |kernel: &&Kernel| kernel.release == *running;
    let is_same = |kernel: &&Kernel| kernel.release.is_same_flavour(running);
    kernels.iter().find(is_running).or_else(|| kernels.iter().rfind(is_same))
}

#[cfg(test)]
mod tests {
    use dkms_engine::machine::{Kernels, Trees};
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    fn kernels(root: &TestRoot) -> Vec<Kernel> {
        root.kernel("6.12.8-1-lts").pkgbase("linux-lts");
        root.kernel("7.2.13-arch1-1").pkgbase("linux");
        Kernels::read(&Trees::under(root.path())).expect("kernels").all
    }

    #[rstest]
    #[case::version(
        r#"[{"version": "7.2.13-arch1-1"}, {"isDefault": true, "version": "6.12.8-1-lts"}]"#,
        Some("6.12.8-1-lts")
    )]
    #[case::file(
        r#"[{"isDefault": true, "root": "/no", "linux": "/vmlinuz-linux"}]"#,
        Some("7.2.13-arch1-1")
    )]
    #[case::other(r#"[{"isDefault": true, "root": "/no", "linux": "/vmlinuz-own"}]"#, None)]
    #[case::none(r#"[{"version": "7.2.13-arch1-1"}]"#, None)]
    #[case::not_json("no boot loader", None)]
    fn reads_the_entries_of_systemd_boot(#[case] entries: &str, #[case] want: Option<&str>) {
        let root = TestRoot::new();
        let kernels = kernels(&root);
        let found = of_entries(&kernels, entries.as_bytes());
        assert_eq!(found.map(|kernel| kernel.release.as_str()), want);
    }

    #[rstest]
    #[case::installed("6.12.8-1-lts", Some("6.12.8-1-lts"))]
    #[case::upgraded("7.2.12-arch1-1", Some("7.2.13-arch1-1"))]
    #[case::unknown("7.2.12-own", None)]
    fn assumes_the_package_of_the_running_kernel(
        #[case] running: &str,
        #[case] want: Option<&str>,
    ) {
        let root = TestRoot::new();
        let kernels = kernels(&root);
        let found = of_running(&kernels, &running.parse().expect("a release"));
        assert_eq!(found.map(|kernel| kernel.release.as_str()), want);
    }
}
