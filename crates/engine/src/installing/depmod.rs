//! Indexing a kernel's modules with depmod, by which modprobe finds them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::failure::{Failure, MAKE_ROOM};
use crate::machine::{Machine, Trees};
use crate::names::KernelRelease;
use crate::os::durable;
use crate::os::process::Program;

/// What depmod writes into a kernel's directory.
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

/// Runs depmod for a kernel, unless the disk is too full for it: depmod puts even a truncated index
/// in place of the old one, and then modprobe finds no module at all.
pub(crate) fn depmod(machine: &Machine, kernel: &KernelRelease) -> Result<(), Failure> {
    if !machine.depmod {
        return Ok(());
    }
    let dir = machine.trees.kernel(kernel);
    let needed = size(&dir);
    if let Some(left) = durable::room(&dir).filter(|left| *left < needed) {
        let what = format!(
            "not enough space for the module index of {}: needs {} KiB, {} KiB free; modprobe uses the old one",
            dir.display(),
            needed / 1024,
            left / 1024
        );
        return Err(failed(what).with_hint(MAKE_ROOM));
    }
    let mut program = Program::new(machine.tools.depmod.clone(), &machine.env);
    let stand_in = stand_in(&machine.trees).map_err(|why| {
        failed(format!("cannot point depmod at {}: {why}", machine.trees.install.display()))
    })?;
    let root = stand_in.as_ref().map_or(machine.trees.root.as_path(), TempDir::path);
    if root != Path::new("/") {
        program = program.arg("-b").arg(root.as_os_str());
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
        return Ok(());
    }
    Err(failed(format!(
        "depmod -a {kernel} failed ({}): {}\nmodprobe does not find the new modules until it has \
         run: depmod {kernel}",
        ended.how,
        ended.complaint()
    )))
}

/// A root for depmod in which the kernels are where it looks for them, if they are elsewhere.
fn stand_in(trees: &Trees) -> io::Result<Option<TempDir>> {
    let real = trees.install.canonicalize()?;
    let is_it = |usual: &str| trees.root.join(usual).canonicalize().is_ok_and(|it| it == real);
    if ["usr/lib/modules", "lib/modules"].into_iter().any(is_it) {
        return Ok(None);
    }
    let root = tempfile::tempdir()?;
    // Where depmod looks is up to who compiled it.
    for lib in ["usr/lib", "lib"].map(|lib| root.path().join(lib)) {
        fs::create_dir_all(&lib)?;
        symlink(&real, lib.join("modules"))?;
    }
    Ok(Some(root))
}

/// How large the index is now, with something to grow by, in bytes.
fn size(dir: &Path) -> u64 {
    let sizes = WRITTEN.iter().filter_map(|name| fs::metadata(dir.join(name)).ok());
    sizes.map(|file| file.len()).sum::<u64>() + 64 * 1024
}

/// depmod fails because of the machine, not because of a module.
fn failed(message: String) -> Failure {
    Failure::transient(6, message)
}
