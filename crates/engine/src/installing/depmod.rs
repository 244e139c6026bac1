//! Runs depmod, which writes the index of a kernel's modules for modprobe.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::failure::{Failure, MAKE_ROOM};
use crate::installing::shadowed::SETTINGS;
use crate::machine::{Machine, Trees};
use crate::names::KernelRelease;
use crate::os::durable;
use crate::os::process::Program;
use crate::os::unsynced::Unsynced;

/// The files that depmod writes to a kernel's directory.
pub(crate) const WRITTEN: [&str; 13] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.weakdep",
    "modules.order.bin",
    "modules.builtin.modinfo.bin",
];

/// Runs depmod for a kernel, and syncs the index.
///
/// Returns a failure without running depmod if the disk has too little space: depmod would replace
/// the index with a truncated one, and modprobe would then find no modules.
pub(crate) fn depmod(machine: &Machine, kernel: &KernelRelease) -> Result<(), Failure> {
    if !machine.depmod {
        return Ok(());
    }
    let dir = machine.trees.kernel(kernel);
    let needed = required_space(&dir);
    if let Some(left) = durable::free_space(&dir).filter(|left| *left < needed) {
        let what = format!(
            "not enough space in {} for the module index: {} KiB free, {} KiB needed; \
             the old index stays in use",
            dir.display(),
            left / 1024,
            needed / 1024
        );
        return Err(failed(what).with_hint(MAKE_ROOM));
    }
    let mut program = Program::new(machine.tools.depmod.clone(), &machine.env);
    let temporary_root = temporary_root(&machine.trees).map_err(|why| {
        failed(format!("cannot point depmod at {}: {why}", machine.trees.install.display()))
    })?;
    let root = temporary_root.as_ref().map_or(machine.trees.root.as_path(), TempDir::path);
    if root != Path::new("/") {
        program = program.arg("-b").arg(root.as_os_str());
    }
    if machine.trees.root != Path::new("/") {
        // Otherwise depmod would read the settings of the running system.
        let settings = SETTINGS.map(|dir| machine.trees.root.join(dir));
        for dir in settings.iter().filter(|dir| dir.is_dir()) {
            program = program.arg("-C").arg(dir);
        }
    }
    let symbols = machine.trees.root.join(format!("boot/System.map-{kernel}"));
    if symbols.is_file() {
        program = program.arg("-F").arg(symbols);
    }
    let ended = program
        .args(["-a", kernel.as_str()])
        .deadline(Duration::from_secs(600))
        .run()
        .map_err(|error| failed(error.to_string()))?;
    if ended.success() {
        let mut unsynced = Unsynced::default();
        WRITTEN.iter().for_each(|name| unsynced.add_file(dir.join(name)));
        unsynced.add_dir(dir);
        return Ok(unsynced.sync()?);
    }
    Err(failed(format!(
        "depmod -a {kernel} failed ({}), so modprobe cannot find the new modules: {}",
        ended.how,
        ended.complaint()
    ))
    .with_hint(format!("run: depmod {kernel}")))
}

/// Creates a temporary root directory in which depmod finds the install tree. Returns `None` if
/// depmod needs no such directory.
fn temporary_root(trees: &Trees) -> io::Result<Option<TempDir>> {
    let real = trees.install.canonicalize()?;
    let is_it = |usual: &str| trees.root.join(usual).canonicalize().is_ok_and(|it| it == real);
    if ["usr/lib/modules", "lib/modules"].into_iter().any(is_it) {
        return Ok(None);
    }
    let root = tempfile::tempdir()?;
    // depmod searches one of these directories. The choice is made when depmod is compiled.
    for lib in ["usr/lib", "lib"].map(|lib| root.path().join(lib)) {
        fs::create_dir_all(&lib)?;
        symlink(&real, lib.join("modules"))?;
    }
    Ok(Some(root))
}

/// Returns the space, in bytes, that depmod needs: the size of the current index plus a reserve for
/// growth.
fn required_space(dir: &Path) -> u64 {
    let sizes = WRITTEN.iter().filter_map(|name| fs::metadata(dir.join(name)).ok());
    sizes.map(|file| file.len()).sum::<u64>() + 64 * 1024
}

/// Returns a transient failure, since its cause is the machine and not a module.
fn failed(message: String) -> Failure {
    Failure::transient(6, message)
}
