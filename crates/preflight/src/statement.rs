//! Reads what a source says about kernels, without building it.

use std::fs;
use std::path::Path;

use dkms_engine::names::KernelRelease;

/// Returns why the source in the directory `source` refuses to be built for `kernel`; `None` if it
/// does not, or does not say so.
///
/// Knows OpenZFS. Its file `META` names the latest kernel series, and its `configure` fails for any
/// later one, unless dkms.conf passes `--enable-linux-experimental`.
pub(crate) fn refusal(source: &Path, kernel: &KernelRelease) -> Option<String> {
    let meta = fs::read_to_string(source.join("META")).ok()?;
    let latest = meta.lines().find_map(|line| line.strip_prefix("Linux-Maximum:"))?.trim();
    let is_later = series(kernel.as_str())? > series(latest)?;
    let flag = "linux-experimental";
    let contains_flag = |file: &str| {
        let text = fs::read(source.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(flag)
    };
    let refuses = is_later && contains_flag("configure") && !contains_flag("dkms.conf");
    refuses.then(|| format!("its source supports Linux up to {latest} (Linux-Maximum in META)"))
}

/// Returns true if `dkms.conf` in the directory `source` seems to look at the kernel's own files, such
/// as its modules. An arriving kernel does not have them before the transaction.
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
    #[case::supported(META, CHECKS, "", "6.18.9-arch1-1", false)]
    #[case::earlier(META, CHECKS, "", "5.20.1-lts", false)]
    #[case::later(META, CHECKS, "", "6.19.0-rc1", true)]
    #[case::next_major(META, CHECKS, "", "7.0", true)]
    #[case::experimental(META, CHECKS, "MAKE='x --enable-linux-experimental'", "7.0", false)]
    #[case::without_check(META, "no such option", "", "7.0", false)]
    #[case::without_statement("Name: zfs\n", CHECKS, "", "7.0", false)]
    #[case::not_a_number("Linux-Maximum: any\n", CHECKS, "", "7.0", false)]
    fn openzfs_refuses_later_kernels(
        #[case] meta: &str,
        #[case] configure: &str,
        #[case] conf: &str,
        #[case] kernel: &str,
        #[case] expected: bool,
    ) {
        let root = TestRoot::new();
        for (file, text) in [("META", meta), ("configure", configure), ("dkms.conf", conf)] {
            root.write(file, text);
        }
        let kernel = kernel.parse().expect("a release");
        assert_eq!(refusal(root.path(), &kernel).is_some(), expected);
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
        assert_eq!(refusal(TestRoot::new().path(), &"7.0".parse().expect("a release")), None);
    }
}
