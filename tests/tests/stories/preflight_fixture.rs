//! Machines and packages that the stories about the preflight share.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture;

/// Creates a machine with `linux-1`, its headers and these modules. Its transactions have a preflight
/// from now on.
#[track_caller]
pub(crate) fn machine(modules: &[PackageFile]) -> Root {
    let root = fixture::machine(modules);
    root.unmask_preflight();
    root
}

/// Returns the release of `linux-2`, to which most stories upgrade.
pub(crate) fn next_release() -> String {
    find("linux-2").content
}

/// A module that builds for all kernels but `linux-2`.
pub(crate) fn broken_for_the_next_kernel(name: &str) -> Recipe {
    broken_for(&next_release(), Recipe::module(name, "1.0"), &format!("{name}.c"))
}

/// Makes a module fail for a kernel: `file` of its source does not compile.
pub(crate) fn broken_for(release: &str, module: Recipe, file: &str) -> Recipe {
    let flag = format!("ccflags-$(if $(findstring {release},$(KERNELRELEASE)),y) := -DNEXT\n");
    module
        .edit("Makefile", |makefile| flag + &makefile)
        .edit(file, |code| code + "#ifdef NEXT\n#error this kernel is not supported\n#endif\n")
}

/// Lists modules as critical in the settings.
pub(crate) fn critical(root: &Root, names: &[&str]) {
    root.write("etc/dkms/alpm-dkms.toml", &format!("[preflight]\ncritical = {names:?}\n"));
}
