//! Reads the kernel versions that a module's source declares as supported.

use std::fs;
use std::path::Path;

use dkms_engine::names::KernelRelease;

/// The option with which OpenZFS's `configure` accepts kernels that the source does not support.
const OVERRIDE: &str = "linux-experimental";

/// The size in bytes of the largest script or conf that is searched for [`OVERRIDE`].
const LARGEST_SCRIPT: u64 = 64 << 10;

/// Returns why the source in the directory `source` does not support `kernel`; `None` if it
/// supports the kernel or declares no limit. `overrides` is the directory that contains the
/// overrides of dkms.conf files, and `built` are the kernels for which the module is installed.
///
/// Recognises only OpenZFS. The file `META` of OpenZFS names the latest supported kernel series,
/// and its `configure` fails for any later series unless a conf or a script passes [`OVERRIDE`].
/// Also returns `None` if the module is already installed for a kernel of a later series.
pub(crate) fn refusal<'a>(
    source: &Path,
    overrides: &Path,
    kernel: &KernelRelease,
    mut built: impl Iterator<Item = &'a KernelRelease>,
) -> Option<String> {
    let meta = fs::read_to_string(source.join("META")).ok()?;
    let latest = meta.lines().find_map(|line| line.strip_prefix("Linux-Maximum:"))?.trim();
    let limit = series(latest)?;
    let is_later = |kernel: &KernelRelease| series(kernel.as_str()).is_some_and(|it| it > limit);
    if !is_later(kernel) || built.any(is_later) || !contains_override(&source.join("configure")) {
        return None;
    }
    let scripts = [source, overrides].into_iter().flat_map(|dir| fs::read_dir(dir).into_iter());
    let mut scripts = scripts.flatten().flatten().filter(|entry| {
        let is_small = entry.metadata().is_ok_and(|meta| meta.len() <= LARGEST_SCRIPT);
        is_small && entry.file_name() != "configure"
    });
    let is_overridden = scripts.any(|entry| contains_override(&entry.path()));
    (!is_overridden)
        .then(|| format!("its source supports Linux up to {latest} (Linux-Maximum in META)"))
}

fn contains_override(file: &Path) -> bool {
    let text = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&text).contains(OVERRIDE)
}

/// Returns true if `dkms.conf` in the directory `source` seems to look at the kernel's own files,
/// such as its modules. Before the transaction, an arriving kernel does not have these files.
pub(crate) fn looks_at_kernel(source: &Path) -> bool {
    let conf = fs::read(source.join("dkms.conf")).unwrap_or_default();
    let conf = String::from_utf8_lossy(&conf);
    ["ver/kernel", "ver}/kernel", "-r)/kernel", "vmlinuz"].iter().any(|text| conf.contains(text))
}

/// Returns the first two numbers of a version, such as 6 and 18 of `6.18.1-arch1-1`.
fn series(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    const META: &str = "Name: zfs\nLinux-Maximum: 6.18\nLinux-Minimum: 4.18\n";
    const CHECKS: &str = "--enable-linux-experimental)";

    #[rstest]
    #[case::supported(META, CHECKS, "6.18.9-arch1-1", false)]
    #[case::earlier(META, CHECKS, "5.20.1-lts", false)]
    #[case::later(META, CHECKS, "6.19.0-rc1", true)]
    #[case::next_major(META, CHECKS, "7.0", true)]
    #[case::without_check(META, "no such option", "7.0", false)]
    #[case::without_statement("Name: zfs\n", CHECKS, "7.0", false)]
    #[case::not_a_number("Linux-Maximum: any\n", CHECKS, "7.0", false)]
    fn openzfs_refuses_later_kernels(
        #[case] meta: &str,
        #[case] configure: &str,
        #[case] kernel: &str,
        #[case] expected: bool,
    ) {
        let root = TestRoot::new();
        root.write("zfs/META", meta);
        root.write("zfs/configure", configure);
        assert_eq!(is_refused(&root, kernel, &[]), expected);
    }

    #[rstest]
    #[case::nothing("zfs/other", &[], true)]
    #[case::conf("zfs/dkms.conf", &[], false)]
    #[case::script("zfs/pre.sh", &[], false)]
    #[case::override_of_the_conf("etc/zfs.conf", &[], false)]
    #[case::built_before("zfs/other", &["6.18", "6.19.1"], false)]
    #[case::built_for_supported("zfs/other", &["6.18"], true)]
    fn openzfs_can_be_told_to_accept_later_kernels(
        #[case] file: &str,
        #[case] built: &[&str],
        #[case] expected: bool,
    ) {
        let root = TestRoot::new();
        root.write("zfs/META", META);
        root.write("zfs/configure", CHECKS);
        let text = if file.ends_with("other") { "text" } else { CHECKS };
        root.write(file, text);
        assert_eq!(is_refused(&root, "7.0", built), expected);
    }

    fn is_refused(root: &TestRoot, kernel: &str, built: &[&str]) -> bool {
        let built: Vec<KernelRelease> =
            built.iter().map(|it| it.parse().expect("a release")).collect();
        let kernel = kernel.parse().expect("a release");
        let [source, overrides] = ["zfs", "etc"].map(|dir| root.path().join(dir));
        refusal(&source, &overrides, &kernel, built.iter()).is_some()
    }

    #[rstest]
    #[case::object("[ -e /lib/modules/$kernelver/kernel/fs/a.ko.zst ] || exit", true)]
    #[case::braces("ls /usr/lib/modules/${kernelver}/kernel/drivers", true)]
    #[case::image("strings /lib/modules/$kernelver/vmlinuz", true)]
    #[case::destination("DEST_MODULE_LOCATION=/kernel/drivers/net", false)]
    #[case::headers("MAKE='make -C /lib/modules/$kernelver/build'", false)]
    fn some_confs_look_at_the_kernel(#[case] conf: &str, #[case] expected: bool) {
        let root = TestRoot::new();
        root.write("dkms.conf", conf);
        assert_eq!(looks_at_kernel(root.path()), expected);
    }

    #[test]
    fn most_sources_say_nothing() {
        assert!(!is_refused(&TestRoot::new(), "7.0", &[]));
    }
}
