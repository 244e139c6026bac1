//! Tests of digests and of stored stat signatures.

mod packaged;

use super::*;
use rstest::rstest;
use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::dkms_tree::KernelIdentity;
use crate::machine::{Kernels, Trees};
use crate::os::digest::Digest;
use crate::os::{durable, symlinks};

fn machine() -> (tempfile::TempDir, Trees) {
    let dir = tempfile::tempdir().unwrap();
    let trees = Trees::under(dir.path());
    (dir, trees)
}

fn source(trees: &Trees) -> PathBuf {
    let dir = trees.source.join("a-1");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("dkms.conf"), "PACKAGE_NAME=a\n").unwrap();
    fs::write(dir.join("sub/a.c"), "int a;\n").unwrap();
    symlink("a.c", dir.join("sub/link")).unwrap();
    dir
}

/// Returns the digest of `dir` as a new run computes it.
fn digest(trees: &Trees, dir: &Path) -> Digest {
    Fingerprints::open(trees).source_tree(dir, &WrittenFiles::default()).unwrap()
}

/// Returns the digest of `dir` and stores it for the next run.
fn stored_digest(trees: &Trees, dir: &Path) -> Digest {
    settle();
    let mut digests = Fingerprints::open(trees);
    let digest = digests.source_tree(dir, &WrittenFiles::default()).unwrap();
    digests.save().unwrap();
    digest
}

/// Waits long enough that any further change to a file gives the file another timestamp.
fn settle() {
    sleep(Duration::from_millis(150));
}

type Change = fn(&Path);

#[rstest]
#[case::content(|dir: &Path| fs::write(dir.join("sub/a.c"), "int b;\n").unwrap())]
#[case::new_file(|dir: &Path| fs::write(dir.join("sub/b.c"), "").unwrap())]
#[case::name(|dir: &Path| fs::rename(dir.join("sub"), dir.join("sup")).unwrap())]
#[case::executable(|dir: &Path| {
    fs::set_permissions(dir.join("sub/a.c"), Permissions::from_mode(0o755)).unwrap();
})]
#[case::target(|dir: &Path| {
    fs::remove_file(dir.join("sub/link")).unwrap();
    symlink("b.c", dir.join("sub/link")).unwrap();
})]
#[case::link_to_file(|dir: &Path| {
    fs::remove_file(dir.join("sub/link")).unwrap();
    fs::copy(dir.join("sub/a.c"), dir.join("sub/link")).unwrap();
})]
fn every_change_to_a_source_changes_its_digest(#[case] change: Change) {
    let (_dir, trees) = machine();
    let dir = source(&trees);
    let before = digest(&trees, &dir);
    change(&dir);
    assert_ne!(digest(&trees, &dir), before);
}

#[test]
fn reinstalled_source_keeps_its_digest() {
    let (_dir, trees) = machine();
    let dir = source(&trees);
    let before = digest(&trees, &dir);
    fs::remove_dir_all(&dir).unwrap();
    source(&trees);
    assert_eq!(digest(&trees, &dir), before);
    let link = trees.source.join("link");
    symlink(&dir, &link).unwrap();
    assert_eq!(digest(&trees, &link), before);
}

#[test]
fn reads_contents_again_only_if_metadata_changed() {
    let (_dir, trees) = machine();
    let dir = source(&trees);
    let before = stored_digest(&trees, &dir);

    // Puts a wrong digest into the store. If a call returns it, the call did not read the contents
    // again.
    let store = trees.cache().join("digests.toml");
    let wrong = Digest::of_bytes(b"wrong");
    let text = fs::read_to_string(&store).unwrap().replace(&before.to_string(), &wrong.to_string());
    fs::write(&store, text).unwrap();
    assert_eq!(digest(&trees, &dir), wrong);

    // Content, size and mtime stay the same, as when pacman reinstalls a file; ctime and inode
    // differ.
    let file = dir.join("sub/a.c");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    durable::write(&file, b"int a;\n").unwrap();
    File::open(&file).unwrap().set_modified(modified).unwrap();
    assert_eq!(digest(&trees, &dir), before);
}

/// The value of `trusts_packages` in hooks.
const IN_A_HOOK: bool = true;
/// The value of `trusts_packages` in `dkms` commands, which check every file.
const IN_A_COMMAND: bool = false;

/// Returns the identity of the first kernel and stores its digests for the next run.
fn stored_identity(trees: &Trees, trusts_packages: bool) -> KernelIdentity {
    let kernels = Kernels::read(trees).unwrap();
    let mut digests = Fingerprints::open(trees).trusting_packages(trusts_packages);
    let identity = digests.kernel_identity(&kernels.all[0]).unwrap();
    digests.save().unwrap();
    identity
}

#[rstest]
#[case::replaced(|file: &Path| durable::write(file, b"int b;").unwrap(), true)]
#[case::gone(|file: &Path| fs::remove_file(file).unwrap(), true)]
#[case::added(|file: &Path| fs::write(file.with_file_name("c.h"), "").unwrap(), true)]
#[case::written_in_place(|file: &Path| fs::write(file, "int b;").unwrap(), false)]
fn hooks_notice_replaced_but_not_edited_headers(#[case] change: Change, #[case] noticed: bool) {
    let (_dir, trees) = machine();
    let file = trees.install.join("6.1/build/include/sub/a.h");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "int a;").unwrap();
    settle();
    let before = stored_identity(&trees, IN_A_HOOK);
    assert_eq!(stored_identity(&trees, IN_A_HOOK), before);
    change(&file);
    settle();
    assert_eq!(stored_identity(&trees, IN_A_HOOK) != before, noticed);
    // A hook uses the digests that a command stored.
    assert_ne!(stored_identity(&trees, IN_A_COMMAND), before);
    assert_ne!(stored_identity(&trees, IN_A_HOOK), before);
}

/// Headers outside the kernel's directory belong to no package and can be edited in place.
#[test]
fn checks_every_header_outside_the_kernels_directory() {
    let (dir, trees) = machine();
    let file = dir.path().join("home/linux/include/a.h");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "int a;").unwrap();
    fs::create_dir_all(trees.install.join("6.1")).unwrap();
    symlink("/home/linux", trees.install.join("6.1/build")).unwrap();
    settle();
    let before = stored_identity(&trees, IN_A_HOOK);
    fs::write(&file, "int b;").unwrap();
    assert_ne!(stored_identity(&trees, IN_A_HOOK), before);
}

#[test]
fn looking_ahead_does_not_change_results() {
    let (_dir, trees) = machine();
    let source = source(&trees);
    let include = trees.install.join("6.1/build/include");
    fs::create_dir_all(&include).unwrap();
    fs::write(include.join("a.h"), "").unwrap();
    let kernels = Kernels::read(&trees).unwrap();
    let results = |digests: &mut Fingerprints| {
        let identity = digests.kernel_identity(&kernels.all[0]).unwrap();
        (identity, digests.source_tree(&source, &WrittenFiles::default()).unwrap())
    };
    let plain = results(&mut Fingerprints::open(&trees));
    let mut ahead = Fingerprints::open(&trees);
    ahead.look_ahead(&[&kernels.all[0]], &[source.clone(), trees.source.join("none")]);
    assert_eq!(ahead.found.len(), 2);
    assert_eq!(results(&mut ahead), plain);
    // Each walk is used only once: the next call walks the tree again.
    fs::write(include.join("a.h"), "int a;").unwrap();
    assert_ne!(results(&mut ahead).0, plain.0);
    assert!(ahead.source_tree(&trees.source.join("none"), &WrittenFiles::default()).is_err());
}

#[test]
fn digests_of_recently_changed_files_are_not_stored() {
    let (_dir, trees) = machine();
    let dir = source(&trees);
    let mut digests = Fingerprints::open(&trees);
    digests.source_tree(&dir, &WrittenFiles::default()).unwrap();
    digests.save().unwrap();
    assert!(!trees.cache().exists());
}

#[test]
fn forgets_deleted_sources_and_ignores_an_invalid_store() {
    let (_dir, trees) = machine();
    let dir = source(&trees);
    let before = stored_digest(&trees, &dir);
    let store = trees.cache().join("digests.toml");
    assert!(fs::read_to_string(&store).unwrap().contains("a-1"));
    fs::rename(&dir, trees.source.join("b-1")).unwrap();
    Fingerprints::open(&trees).save().unwrap();
    assert!(!fs::read_to_string(&store).unwrap().contains("a-1"));
    fs::write(&store, "nonsense").unwrap();
    assert_eq!(digest(&trees, &trees.source.join("b-1")), before);
}

fn identity(trees: &Trees) -> KernelIdentity {
    let kernels = Kernels::read(trees).unwrap();
    Fingerprints::open(trees).kernel_identity(&kernels.all[0]).unwrap()
}

#[rstest]
#[case::config("build/include/config/auto.conf", &["kernel configuration", "kernel headers"])]
#[case::symbols("build/Module.symvers", &["Module.symvers"])]
#[case::build_number("build/include/generated/utsversion.h", &["kernel headers"])]
#[case::architecture_header("build/arch/x86/include/asm/a.h", &["kernel headers"])]
#[case::source_header("source/include/b.h", &["kernel headers"])]
#[case::not_a_header("build/scripts/sign-file", &[])]
#[case::option_marker("build/include/config/SMP", &[])]
#[case::header_release("build/include/config/kernel.release", &["kernel headers"])]
fn identity_shows_which_parts_of_a_kernel_changed(#[case] file: &str, #[case] parts: &[&str]) {
    let (_dir, trees) = machine();
    let kernel = trees.install.join("6.1");
    for dir in ["build/include/generated", "build/include/config", "build/scripts"] {
        fs::create_dir_all(kernel.join(dir)).unwrap();
    }
    // The linked directories of Debian's layout.
    fs::create_dir_all(trees.source.join("common/include")).unwrap();
    fs::create_dir_all(trees.source.join("x86/asm")).unwrap();
    symlink("/usr/src/common", kernel.join("source")).unwrap();
    fs::create_dir_all(kernel.join("build/arch/x86")).unwrap();
    symlink("/usr/src/x86", kernel.join("build/arch/x86/include")).unwrap();
    fs::write(kernel.join("build/include/config/auto.conf"), "").unwrap();
    let before = identity(&trees);
    let path = symlinks::resolve(&trees.root, kernel.join(file).parent().unwrap()).unwrap();
    fs::write(path.join(Path::new(file).file_name().unwrap()), "other").unwrap();
    assert_eq!(changes(&identity(&trees), &before), parts);
}

#[test]
fn kernel_without_headers_has_only_a_release() {
    let (_dir, trees) = machine();
    fs::create_dir_all(trees.install.join("6.1/kernel")).unwrap();
    let identity = identity(&trees);
    assert_eq!((identity.config, identity.symvers, identity.headers), (None, None, None));
    let text = toml::to_string(&identity).unwrap();
    assert_eq!(text, "release = \"6.1\"\n");
    assert_eq!(toml::from_str::<KernelIdentity>(&text).unwrap(), identity);
}

#[test]
fn digests_survive_a_round_trip_through_text() {
    let digest = Digest::of_bytes(b"a");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert!("abc".parse::<Digest>().is_err());
}

/// Run with `WALK=/usr/src cargo test --release -p dkms-engine -- --ignored --nocapture
/// walk_speed`.
#[test]
#[ignore = "measures the machine and checks nothing"]
#[expect(clippy::print_stdout, reason = "a person reads the result")]
fn walk_speed() {
    let (_dir, trees) = machine();
    let dir = PathBuf::from(std::env::var_os("WALK").unwrap());
    let mut digests = Fingerprints::open(&trees);
    for round in ["contents", "known", "known again"] {
        let start = Instant::now();
        let digest = digests.source_tree(&dir, &WrittenFiles::default()).unwrap();
        println!("{round}: {digest} in {:?}", start.elapsed());
    }
}

/// Returns the names of the parts that differ between two identities.
fn changes(now: &KernelIdentity, was: &KernelIdentity) -> Vec<&'static str> {
    let changed = [
        (now.release != was.release, "kernel release"),
        (now.config != was.config, "kernel configuration"),
        (now.symvers != was.symvers, "Module.symvers"),
        (now.headers != was.headers, "kernel headers"),
    ];
    changed.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect()
}
