//! Tests of digests that come from the package of a kernel's headers.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::*;

/// Creates a kernel with headers from a package. Returns the package's directory in pacman's
/// database.
///
/// The package lists a wrong digest for `sub/a.h`, which shows whether hooks use the list.
fn packaged_headers(trees: &Trees) -> PathBuf {
    let include = trees.install.join("6.1/build/include");
    fs::create_dir_all(include.join("sub")).unwrap();
    fs::create_dir_all(include.join("config")).unwrap();
    fs::write(trees.install.join("6.1/pkgbase"), "linux\n").unwrap();
    fs::write(include.join("config/auto.conf"), "CONFIG_SMP=y\n").unwrap();
    fs::write(include.join("sub/a.h"), "int a;").unwrap();
    fs::write(include.join("b c.h"), "int b;").unwrap();
    symlink("a.h", include.join("sub/link.h")).unwrap();
    let package = trees.root.join("var/lib/pacman/local/linux-headers-6.1-1");
    fs::create_dir_all(&package).unwrap();
    let wrong = hex(&sha256_of_file(&include.join("b c.h")).unwrap());
    let lines = [
        "sub type=dir".to_owned(),
        format!("sub/a.h size=6 sha256digest={wrong}"),
        "sub/link.h type=link link=a.h".to_owned(),
        format!("not-extracted.h size=6 sha256digest={wrong}"),
    ];
    let lines = lines.map(|line| format!("./usr/lib/modules/6.1/build/include/{line}\n"));
    write_list(&package, &format!("#mtree\n/set type=file\n{}", lines.concat()));
    fs::write(package.join("desc"), "%NAME%\nlinux-headers\n").unwrap();
    fs::write(package.join("files"), "%FILES%\n").unwrap();
    settle();
    package
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_list(package: &Path, list: &str) {
    let file = File::create(package.join("mtree")).unwrap();
    let mut gzip = GzEncoder::new(file, Compression::fast());
    gzip.write_all(list.as_bytes()).unwrap();
    gzip.finish().unwrap();
}

/// Returns the digest of the first kernel's headers, as a new run without stored digests computes
/// it.
fn headers(trees: &Trees, trusts_packages: bool) -> Digest {
    let kernels = Kernels::read(trees).unwrap();
    let mut digests = Fingerprints::open(trees).trusting_packages(trusts_packages);
    digests.kernel_identity(&kernels.all[0]).unwrap().headers.unwrap()
}

#[test]
fn hooks_take_the_digests_of_headers_from_their_package() {
    let (_dir, trees) = machine();
    let package = packaged_headers(&trees);
    let on_disk = headers(&trees, IN_A_COMMAND);
    assert_ne!(headers(&trees, IN_A_HOOK), on_disk, "the hook read the header");
    // With the right digests in the list, hooks and commands get the same result.
    let include = trees.install.join("6.1/build/include");
    let lines = ["sub/a.h", "b c.h", "config/auto.conf"].map(|path| {
        let file = include.join(path);
        let (size, sha256) = (fs::metadata(&file).unwrap().len(), sha256_of_file(&file).unwrap());
        let path = path.replace(' ', "\\040");
        format!(
            "./usr/lib/modules/6.1/build/include/{path} type=file size={size} sha256digest={}\n",
            hex(&sha256)
        )
    });
    write_list(&package, &format!("#mtree\n{}", lines.concat()));
    assert_eq!(headers(&trees, IN_A_HOOK), on_disk);
}

#[test]
fn lists_of_arriving_packages_are_elsewhere() {
    let (_dir, mut trees) = machine();
    packaged_headers(&trees);
    let listed = headers(&trees, IN_A_HOOK);
    let lists = trees.root.join("lists");
    fs::rename(trees.root.join("var/lib/pacman"), &lists).unwrap();
    assert_ne!(headers(&trees, IN_A_HOOK), listed);
    trees.package_lists = Some(lists);
    assert_eq!(headers(&trees, IN_A_HOOK), listed);
}

type Damage = fn(&Path, &Path);

#[rstest]
#[case::edited(|include: &Path, _: &Path| fs::write(include.join("sub/a.h"), "int c;").unwrap())]
#[case::replaced(|include: &Path, _: &Path| durable::write(&include.join("sub/a.h"), b"int c;").unwrap())]
#[case::other_header_replaced(|include: &Path, _: &Path| {
    durable::write(&include.join("b c.h"), b"int c;").unwrap();
})]
#[case::other_header_deleted(|include: &Path, _: &Path| fs::remove_file(include.join("b c.h")).unwrap())]
#[case::directory_added(|include: &Path, _: &Path| fs::create_dir(include.join("new")).unwrap())]
#[case::truncated_while_unpacking(|include: &Path, package: &Path| {
    fs::write(include.join("sub/a.h"), "int").unwrap();
    fs::write(package.join("files"), "%FILES%\n").unwrap();
})]
#[case::other_package(|include: &Path, _: &Path| fs::write(include.join("../../pkgbase"), "linux-lts\n").unwrap())]
#[case::no_pkgbase(|include: &Path, _: &Path| fs::remove_file(include.join("../../pkgbase")).unwrap())]
#[case::unfinished(|_: &Path, package: &Path| fs::remove_file(package.join("files")).unwrap())]
#[case::two_entries(|_: &Path, package: &Path| fs::create_dir(package.with_file_name("linux-headers-6.2-1")).unwrap())]
#[case::no_list(|_: &Path, package: &Path| fs::remove_file(package.join("mtree")).unwrap())]
#[case::not_compressed(|_: &Path, package: &Path| fs::write(package.join("mtree"), "#mtree\n").unwrap())]
#[case::malformed(|_: &Path, package: &Path| write_list(package, "#mtree\nnonsense\n"))]
#[case::of_another_kernel(|_: &Path, package: &Path| write_list(package, "#mtree\n./usr type=dir\n"))]
fn hooks_read_headers_that_may_differ_from_their_package(#[case] damage: Damage) {
    let (_dir, trees) = machine();
    let package = packaged_headers(&trees);
    damage(&trees.install.join("6.1/build/include"), &package);
    assert_eq!(headers(&trees, IN_A_HOOK), headers(&trees, IN_A_COMMAND));
}

/// Run with `ROOT=DIR cargo test -p dkms-engine -- --ignored --nocapture headers_speed`. `DIR` is a
/// root in which pacman has installed a kernel and its headers.
#[test]
#[ignore = "measures the machine and needs installed headers"]
#[expect(clippy::print_stdout, reason = "a person reads the result")]
fn headers_speed() {
    let trees = Trees::under(Path::new(&std::env::var_os("ROOT").unwrap()));
    let [on_disk, packaged] = [IN_A_COMMAND, IN_A_HOOK].map(|trusts_packages| {
        let start = Instant::now();
        let digest = headers(&trees, trusts_packages);
        println!("packages trusted: {trusts_packages}: {:?}", start.elapsed());
        digest
    });
    assert_eq!(packaged, on_disk);
}
