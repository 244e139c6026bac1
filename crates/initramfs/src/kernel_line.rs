//! The final line of output for a kernel: its installed and missing modules, and the images that
//! contain installed modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use dkms_engine::facts::{self, Scope};
use dkms_engine::machine::Machine;
use dkms_engine::names::{KernelRelease, ModuleName};

use crate::assess::KernelAssessment;
use crate::decide::CurrentImage;
use crate::image::KmodName;

/// The modules that should be installed for each kernel but are not.
pub(crate) type MissingModules = BTreeMap<KernelRelease, BTreeSet<ModuleName>>;

/// Returns the modules that should be installed for each of `kernels` but are not. The reason may
/// be a failed build, a full disk, an invalid dkms.conf or missing headers.
pub(crate) fn missing_modules<'a>(
    machine: &Machine,
    kernels: impl Iterator<Item = &'a KernelRelease>,
) -> MissingModules {
    let kernels: BTreeSet<KernelRelease> = kernels.cloned().collect();
    let scope = Scope { kernels: Some(kernels.clone()), trusts_packages: true, ..Scope::default() };
    let facts = facts::read(machine, &scope);
    let missing = |kernel: KernelRelease| {
        let names = facts.missing(&kernel).into_iter().cloned().collect();
        (kernel, names)
    };
    kernels.into_iter().map(missing).collect()
}

/// Returns the final line of output for a kernel, such as `7.2.13-arch1-1 (linux): 4 modules
/// installed, zfs in /boot/initramfs-linux.img`. If an image is missing or outdated, or a module is
/// missing, the line ends with the command that fixes the problem.
///
/// `missing` contains the modules that should be installed for the kernel and are not.
pub(crate) fn kernel_line(kernel: &KernelAssessment, missing: &MissingModules) -> String {
    let count = kernel.modules.installed;
    let plural = if count == 1 { "" } else { "s" };
    let mut line = format!("{}: {count} module{plural} installed", kernel.name());
    let mut images_by_modules: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    let mut images_by_state: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for it in &kernel.images {
        let path = it.image.path.display().to_string();
        if it.is_outdated {
            let state = match &it.facts.current {
                _ if kernel.unmounted.is_some() => "not checked",
                CurrentImage::Missing => "missing images",
                CurrentImage::Unreadable(_) => "damaged",
                CurrentImage::Holds(_) => "outdated",
            };
            images_by_state.entry(state).or_default().push(path);
        } else if let CurrentImage::Holds(contents) = &it.facts.current {
            let held = kernel.modules.placed.iter().filter(|name| contents.modules.contains(*name));
            let held: Vec<&str> = held.map(KmodName::as_str).collect();
            if !held.is_empty() {
                images_by_modules.entry(held).or_default().push(path);
            }
        }
    }
    for (held, images) in images_by_modules {
        let _ = write!(line, ", {} in {}", held.join(" "), images.join(" and "));
    }
    for (state, images) in &images_by_state {
        let _ = write!(line, "; {state}: {}", images.join(", "));
    }
    if !images_by_state.is_empty() || kernel.hidden().is_some() {
        let _ = write!(line, "; run: {}", kernel.remedy());
    }
    let release = &kernel.kernel.release;
    let missing = missing.get(release).into_iter().flatten();
    // A module that is not installed automatically may have failed, too.
    let missing: BTreeSet<&str> =
        missing.chain(kernel.modules.failed.values()).map(ModuleName::as_str).collect();
    if !missing.is_empty() {
        let modules = missing.into_iter().collect::<Vec<_>>().join(", ");
        let _ = write!(line, "; missing: {modules}; run: dkms autoinstall -k {release}");
    }
    line
}

#[cfg(test)]
mod tests {
    use dkms_engine::machine::{Kernels, Trees};
    use testroot::TestRoot;

    use super::*;
    use crate::assess::ImageAssessment;
    use crate::decide::{Decision, ImageFacts};
    use crate::image::{Contents, Image, ImageKind};
    use crate::managed_modules::ManagedModules;

    #[test]
    fn distinguishes_missing_images_from_outdated_ones() {
        let root = TestRoot::new();
        root.kernel("7.2").pkgbase("linux");
        let [kernel] = &Kernels::read(&Trees::under(root.path())).unwrap().all[..] else {
            panic!()
        };
        let image = |file: &str, current: CurrentImage| ImageAssessment {
            image: Image {
                path: format!("/boot/{file}").into(),
                kind: ImageKind::Initramfs,
                kernel: kernel.release.clone(),
                preset: None,
                kernel_file: None,
            },
            facts: ImageFacts {
                kernel: kernel.release.clone(),
                installed: BTreeSet::new(),
                existed: true,
                changed: BTreeSet::new(),
                placed: BTreeSet::new(),
                failed: BTreeSet::new(),
                configured: None,
                earlier: None,
                current,
            },
            decision: Decision::UpToDate,
            is_outdated: true,
        };
        let images = vec![
            image("old.img", CurrentImage::Holds(Contents::default())),
            image("absent.img", CurrentImage::Missing),
            image("broken.img", CurrentImage::Unreadable("no archive".into())),
        ];
        let modules = ManagedModules::default();
        let kernel = KernelAssessment { kernel: kernel.clone(), images, modules, unmounted: None };
        assert_eq!(
            kernel_line(&kernel, &MissingModules::new()),
            "7.2 (linux): 0 modules installed; damaged: /boot/broken.img; \
             missing images: /boot/absent.img; outdated: /boot/old.img; run: dkms initramfs"
        );
    }

    #[test]
    fn lists_every_missing_module_whatever_the_reason() {
        let root = TestRoot::new();
        root.kernel("7.2").pkgbase("linux").headers();
        root.kernel("6.12").pkgbase("linux-lts");
        root.source("not-built", "1");
        root.source("bad-conf", "2").conf("PACKAGE_VERSION=2\n");
        root.source("no-dependency", "1").conf_line("BUILD_DEPENDS=absent");
        root.source("old", "1").conf_line("BUILD_EXCLUSIVE_KERNEL_MAX=5.0");
        root.source("manual", "1").conf_line("AUTOINSTALL=no");
        let machine = Machine::for_hook(root.path());
        let kernels = Kernels::read(&machine.trees).unwrap().all;
        let missing = missing_modules(&machine, kernels.iter().map(|kernel| &kernel.release));
        let line = |kernel: &dkms_engine::machine::Kernel| {
            let modules = ManagedModules::read(&machine, &kernel.release);
            let kernel = KernelAssessment {
                kernel: kernel.clone(),
                images: Vec::new(),
                modules,
                unmounted: None,
            };
            kernel_line(&kernel, &missing)
        };
        let lines: Vec<String> = kernels.iter().map(line).collect();
        let modules = "bad-conf, no-dependency, not-built";
        assert_eq!(
            lines,
            ["6.12 (linux-lts)", "7.2 (linux)"].map(|name| {
                let release = name.split_once(' ').map_or(name, |(release, _)| release);
                format!(
                    "{name}: 0 modules installed; missing: {modules}; \
                     run: dkms autoinstall -k {release}"
                )
            })
        );
    }
}
