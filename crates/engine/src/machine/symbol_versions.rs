//! The symbols that a kernel and its own modules export.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::Kernel;

/// The file of depmod that lists the exported symbols of all modules of a kernel.
const MODULE_SYMBOLS: &str = "modules.symbols";

/// Returns those of `names` that `kernel` exports, each with its CRC. The CRC is 0 if the kernel
/// does not check CRCs. Returns `None` if the kernel's headers contain no `Module.symvers`.
///
/// Each line of `Module.symvers` has the form `CRC SYMBOL MODULE TYPE NAMESPACE`, separated by tabs
/// (see `Documentation/kbuild/modules.rst` in the kernel's source).
pub(crate) fn exported_by_kernel<'a>(
    kernel: &Kernel,
    names: &HashSet<&'a str>,
) -> Option<HashMap<&'a str, u32>> {
    let text = fs::read(kernel.headers.as_ref()?.join("Module.symvers")).ok()?;
    let symbol = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b'\t');
        let (crc, name) = (fields.next()?, std::str::from_utf8(fields.next()?).ok()?);
        let name = *names.get(name)?;
        let crc = std::str::from_utf8(crc).ok()?.strip_prefix("0x")?;
        Some((name, u32::from_str_radix(crc, 16).ok()?))
    };
    Some(text.split(|byte| *byte == b'\n').filter_map(symbol).collect())
}

/// Returns those of `names` that a module in the kernel's directory `dir` exports, according to
/// depmod's list. The modules may belong to any package.
pub(crate) fn exported_by_modules<'a>(dir: &Path, names: &HashSet<&'a str>) -> HashSet<&'a str> {
    if names.is_empty() {
        return HashSet::new();
    }
    let text = fs::read_to_string(dir.join(MODULE_SYMBOLS)).unwrap_or_default();
    let exported = text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("alias symbol:")?.split_once(' ')?;
        names.get(name).copied()
    });
    exported.collect()
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;
    use crate::machine::{Kernels, Trees};

    #[test]
    fn finds_exported_symbols() {
        let root = TestRoot::new();
        root.kernel("7.2").headers();
        let dir = root.at("usr/lib/modules/7.2");
        root.write(
            "usr/lib/modules/7.2/build/Module.symvers",
            "0x0000002a\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n\
             0x00000000\tkfree\tvmlinux\tEXPORT_SYMBOL\t\nno line\n",
        );
        root.write("usr/lib/modules/7.2/modules.symbols", "# Aliases\nalias symbol:foo_get foo\n");
        let kernels = Kernels::read(&Trees::under(root.path())).unwrap();
        let names = HashSet::from(["printk", "kfree", "missing"]);
        let found = exported_by_kernel(&kernels.all[0], &names).unwrap();
        assert_eq!(found, HashMap::from([("printk", 42), ("kfree", 0)]));
        let of_modules = exported_by_modules(&dir, &HashSet::from(["foo_get", "foo"]));
        assert_eq!(of_modules, HashSet::from(["foo_get"]));
        root.remove("usr/lib/modules/7.2/build/Module.symvers");
        assert_eq!(exported_by_kernel(&kernels.all[0], &names), None);
    }
}
