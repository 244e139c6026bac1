//! Detects how a kernel's own objects are compressed. Built objects are compressed in the same way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Kernel, KernelConfig, Trees};
use crate::names::KernelRelease;
use crate::objects::{Compression, ObjectName};

/// The number of objects to examine. A single one is not enough, because it may have been
/// compressed or decompressed by hand.
const SAMPLE: usize = 9;

/// The number of names in modules.order to look up. If none of these objects exists, the others
/// probably do not either.
const LOOKED_UP: usize = 100;

/// Returns the compression of the kernel's own objects.
///
/// Examines the objects that modules.order names. If none of them is on disk, examines the file
/// list of the kernel's package and, as a last resort, the configuration in the headers. Other
/// objects in the kernel's directory do not count. dkms, in contrast, searches the whole directory
/// before every build, and a single foreign object changes the compression of all later builds
/// (dkms-behaviour 4.4).
pub(super) fn of_kernel(trees: &Trees, kernel: &Kernel) -> Compression {
    most_common(on_disk(kernel))
        .or_else(|| most_common(in_package(trees, kernel)))
        .or_else(|| configured(kernel))
        .unwrap_or(Compression::None)
}

/// Returns the most common compression of the kernel's own objects in `files`, a list of paths
/// relative to the root. Returns `None` if the list contains no such object.
pub(super) fn of_files(
    trees: &Trees,
    kernel: &KernelRelease,
    files: &[String],
) -> Option<Compression> {
    most_common(listed(trees, &trees.kernel(kernel), files.iter().map(String::as_str)))
}

/// Returns the compressions of the existing objects that modules.order names.
fn on_disk(kernel: &Kernel) -> Vec<Compression> {
    let named = fs::read_to_string(kernel.dir.join("modules.order")).unwrap_or_default();
    let stems = named.lines().filter_map(|line| line.strip_suffix(".ko")).take(LOOKED_UP);
    let exists =
        |stem: &str, it: Compression| kernel.dir.join(format!("{stem}{}", it.suffix())).is_file();
    let found = stems.map(|stem| Compression::ALL.map(|it| exists(stem, it).then_some(it)));
    let found = found.filter(|variants| variants.iter().any(Option::is_some)).take(SAMPLE);
    found.flatten().flatten().collect()
}

/// Returns the compressions of the kernel's objects according to pacman's local database. Returns
/// an empty list if the database does not contain the kernel's package.
fn in_package(trees: &Trees, kernel: &Kernel) -> Vec<Compression> {
    let Some(package) = &kernel.package else { return Vec::new() };
    let entries = fs::read_dir(trees.root.join("var/lib/pacman/local")).into_iter().flatten();
    // The name of an entry is `NAME-VERSION-RELEASE`.
    let is_package = |name: &str| name.rsplitn(3, '-').nth(2) == Some(package);
    let entries = entries.flatten().filter(|it| it.file_name().to_str().is_some_and(is_package));
    let files = entries.filter_map(|entry| fs::read_to_string(entry.path().join("files")).ok());
    files.flat_map(|text| listed(trees, &kernel.dir, text.lines())).collect()
}

/// Returns the compressions of the kernel's own objects in `files`, a list of paths relative to the
/// root. Stops after [`SAMPLE`] objects. `dir` is the kernel's directory.
fn listed<'a>(trees: &Trees, dir: &Path, files: impl Iterator<Item = &'a str>) -> Vec<Compression> {
    let objects = dir.join("kernel");
    let Ok(objects) = objects.strip_prefix(&trees.root) else { return Vec::new() };
    let compression = |file: &str| {
        let path = Path::new(file);
        let name = path.starts_with(objects).then(|| path.file_name()?.to_str()).flatten()?;
        Some(ObjectName::parse(name)?.compression)
    };
    files.filter_map(compression).take(SAMPLE).collect()
}

/// Returns the compression that the kernel's configuration names; `None` if it names none.
fn configured(kernel: &Kernel) -> Option<Compression> {
    let config = KernelConfig::read(&kernel.config_file()?).ok()?;
    let options = [
        ("CONFIG_MODULE_COMPRESS_ZSTD", Compression::Zstd),
        ("CONFIG_MODULE_COMPRESS_XZ", Compression::Xz),
        ("CONFIG_MODULE_COMPRESS_GZIP", Compression::Gzip),
    ];
    options.into_iter().find_map(|(option, kind)| config.is_enabled(option).then_some(kind))
}

/// Returns the most common element, or `None` if `found` is empty. If several are equally common,
/// prefers zst to xz and xz to gz, as dkms does.
fn most_common(found: Vec<Compression>) -> Option<Compression> {
    let mut counts: BTreeMap<Compression, usize> = BTreeMap::new();
    found.into_iter().for_each(|it| *counts.entry(it).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(compression, _)| compression)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;
    use crate::machine::Machine;

    /// Returns a root with a kernel of the package `linux`, and its trees. The kernel's only
    /// objects are `objects`. Its modules.order lists `names`, which have no suffix.
    fn root(names: &[&str], objects: &[&str], config: &str) -> (TestRoot, Trees) {
        let root = TestRoot::new();
        let order: String = names.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
        let kernel = root.kernel("6.1").pkgbase("linux").file("modules.order", &order);
        let kernel = objects.iter().fold(kernel, |kernel, object| kernel.file(object, ""));
        kernel.headers().file("build/include/config/auto.conf", config);
        root.remove("usr/lib/modules/6.1/kernel/fs/fake.ko");
        let trees = Trees::under(root.path());
        (root, trees)
    }

    fn compression(trees: &Trees) -> Compression {
        of_kernel(trees, &Kernel::of_release(trees, "6.1".parse().unwrap()))
    }

    const XZ: &str = "CONFIG_MODULE_COMPRESS_XZ=y\n";

    #[rstest]
    #[case::own(&["fs/a"], &["kernel/fs/a.ko.zst", "updates/b.ko.xz"], XZ, Compression::Zstd)]
    #[case::uncompressed(&["fs/a"], &["kernel/fs/a.ko"], XZ, Compression::None)]
    #[case::stray(&["fs/z"], &["kernel/a/a.ko", "kernel/fs/z.ko.zst"], "", Compression::Zstd)]
    #[case::only_a_stray(&["fs/z"], &["kernel/a/a.ko.gz"], XZ, Compression::Xz)]
    #[case::decompressed_by_hand(
        &["a", "b", "c"],
        &["kernel/a.ko", "kernel/b.ko.gz", "kernel/c.ko.gz"],
        "",
        Compression::Gzip
    )]
    #[case::both_variants(&["a"], &["kernel/a.ko", "kernel/a.ko.zst"], "", Compression::Zstd)]
    #[case::configured(&[], &["updates/a.ko.zst"], XZ, Compression::Xz)]
    #[case::foreign(&[], &["updates/dkms/a.ko.gz", "extra/b.ko.gz"], "", Compression::None)]
    #[case::nothing(&[], &[], "", Compression::None)]
    fn follows_the_objects_that_modules_order_names(
        #[case] names: &[&str],
        #[case] objects: &[&str],
        #[case] config: &str,
        #[case] want: Compression,
    ) {
        let (_root, trees) = root(names, objects, config);
        assert_eq!(compression(&trees), want);
    }

    #[rstest]
    #[case::own("linux-6.1-1", "6.1/kernel/fs/b.ko.zst", Compression::Zstd)]
    #[case::other_package("linux-lts-6.1-1", "6.1/kernel/fs/b.ko.zst", Compression::Xz)]
    #[case::other_kernel("linux-6.2-1", "6.2/kernel/fs/b.ko.zst", Compression::Xz)]
    #[case::not_of_the_kernel("linux-6.1-1", "6.1/extramodules/b.ko.zst", Compression::Xz)]
    fn follows_the_package_before_its_objects_are_on_disk(
        #[case] entry: &str,
        #[case] object: &str,
        #[case] want: Compression,
    ) {
        let (root, trees) = root(&["fs/b"], &[], XZ);
        let files = format!("%FILES%\nusr/\nusr/lib/modules/{object}\n");
        root.write(format!("var/lib/pacman/local/{entry}/files"), files);
        assert_eq!(compression(&trees), want);
        root.write("usr/lib/modules/6.1/kernel/fs/b.ko.gz", "");
        assert_eq!(compression(&trees), Compression::Gzip);
    }
    #[rstest]
    #[case::own(&["kernel/fs/a.ko.zst", "kernel/fs/b.ko.zst", "kernel/c.ko.xz"], Compression::Zstd)]
    #[case::foreign(&["extramodules/a.ko.zst", "kernel/a.txt.zst"], Compression::Xz)]
    #[case::uncompressed(&["modules.order", "kernel/fs/a.ko"], Compression::None)]
    #[case::empty(&[], Compression::Xz)]
    fn follows_the_files_of_a_package_that_arrives(
        #[case] files: &[&str],
        #[case] want: Compression,
    ) {
        let (root, trees) = root(&["fs/a"], &[], XZ);
        let machine = Machine::for_hook(root.path());
        let files: Vec<String> =
            files.iter().map(|file| format!("usr/lib/modules/6.1/{file}")).collect();
        let kernel = Kernel::of_release(&trees, "6.1".parse().unwrap());
        machine.set_compression_from(&"6.2".parse().unwrap(), &files);
        assert_eq!(machine.compression(&kernel), Compression::Xz, "of another kernel");
        machine.set_compression_from(&kernel.release, &files);
        assert_eq!(machine.compression(&kernel), want);
    }
}
