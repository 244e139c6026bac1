//! Changes that cause a rebuild, and changes that do not.

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, machine, object, release};

/// Reinstalls of a module, the headers and the kernel compile nothing.
#[test]
fn unchanged_inputs_are_not_compiled_again() {
    let root = machine(&[find("bbswitch")]);
    let before = root.bytes(&object(&release(), "bbswitch"));
    let compilers = root.count_compilers();
    root.install(&[find("bbswitch")]).hooks_succeed();
    root.install(&[find("linux-headers-1")]).hooks_succeed();
    root.install(&[find("linux-1"), find("linux-headers-1"), find("bbswitch")]).hooks_succeed();
    compilers.assert_none();
    assert_eq!(root.bytes(&object(&release(), "bbswitch")), before);
    root.assert_works(&release(), "bbswitch");
    root.assert_settled();
}

/// The digests come from pacman's list of the package, and equal those of the files on disk.
#[test]
fn reinstalled_headers_are_not_read() {
    let root = machine(&[find("bbswitch")]);
    let compilers = root.count_compilers();
    let headers = find("linux-headers-1").file;
    let trace = "exec strace -f -o /srv/calls -e trace=openat pacman --noconfirm -U";
    root.shell(&format!("{trace} {headers}")).ok().hooks_succeed();
    let calls = root.read("srv/calls");
    let is_read = |call: &&str| call.contains("/build/include/") && call.contains("O_RDONLY");
    let opened = calls.lines().filter(is_read).filter_map(|call| call.split('"').nth(1));
    let mut read: Vec<&str> = opened.filter(|path| path.ends_with(".h")).collect();
    read.dedup();
    // The engine compares the release in this header with the name of the kernel's directory.
    let [release_header] = read[..] else { panic!("{} headers were read", read.len()) };
    assert!(release_header.ends_with("/generated/utsrelease.h"), "{release_header}");

    std::fs::remove_file(root.path("var/lib/dkms/.cache/digests.toml")).expect("stored digests");
    root.dkms(&["autoinstall", "--all"]).ok();
    compilers.assert_none();
    root.assert_settled();
}

/// The kernel release is the same, but the headers have another `Module.symvers`.
#[test]
fn changed_kernel_symbols_cause_a_rebuild() {
    let root = machine(&[find("bbswitch")]);
    let compilers = root.count_compilers();
    root.install(&[find("linux-headers-1-symvers")]).hooks_succeed().has("kernel symbols changed");
    assert!(!compilers.starts().is_empty(), "the module was not rebuilt");
    root.assert_works(&release(), "bbswitch");
    root.assert_settled();
}

/// The compiler is no reason for a rebuild: Arch upgrades it weekly.
#[test]
fn new_compiler_causes_no_rebuild() {
    let root = machine(&[find("bbswitch")]);
    let before = root.bytes(&object(&release(), "bbswitch"));
    root.shell("mv /usr/bin/gcc /usr/bin/gcc-before").ok();
    root.write(
        "usr/bin/gcc",
        "#!/bin/bash\nif [[ $1 == --version ]]; then echo 'gcc (GCC) 99.1.0'; exit; fi\n\
         echo \"$*\" >>/var/log/new-gcc\nexec gcc-before \"$@\"\n",
    );
    root.install(&[find("bbswitch"), find("linux-headers-1")]).hooks_succeed();
    assert!(!root.exists("var/log/new-gcc"), "the module was rebuilt");
    assert_eq!(root.bytes(&object(&release(), "bbswitch")), before);
    // Later builds use the new compiler.
    root.install(&[find("acpi-call")]).hooks_succeed();
    assert!(root.exists("var/log/new-gcc"));
    root.assert_works(&release(), "acpi_call");
}

/// A kernel is downgraded, and a module is removed and installed again.
#[test]
fn earlier_builds_are_restored_from_the_cache() {
    let root = machine(&[find("bbswitch")]);
    let before = root.bytes(&object(&release(), "bbswitch"));
    root.install(&kernel("linux", 2)).hooks_succeed();
    root.assert_works(find("linux-2").release(), "bbswitch");

    let compilers = root.count_compilers();
    root.install(&kernel("linux", 1)).hooks_succeed().has("installed from the cache");
    assert_eq!(root.kernels(), [release()]);
    root.assert_works(&release(), "bbswitch");
    assert_eq!(root.bytes(&object(&release(), "bbswitch")), before);
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    root.assert_absent(&release(), "bbswitch");
    root.install(&[find("bbswitch")]).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    compilers.assert_none();
    root.assert_settled();

    let entry = |release: &str| format!("{}, {release}, x86_64: ", find("bbswitch").module());
    let cache = root.dkms(&["cache"]).ok().has(&entry(&release()));
    cache.has(&entry(find("linux-2").release())).has("2 builds, ");
    root.dkms(&["cache", "clear"]).ok().has("deleted 2 builds");
    root.dkms(&["cache"]).ok().has("0 builds, 0 bytes; maximum 512.0M");
    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    root.install(&[find("bbswitch")]).hooks_succeed();
    assert!(!compilers.starts().is_empty(), "the build was restored from the cleared cache");
}

/// The packages share the source path, version, file sizes and times, like nvidia-dkms and
/// nvidia-open-dkms.
#[test]
fn package_with_the_same_source_path_is_rebuilt() {
    let root = Root::ready();
    let closed = Recipe::module("nvidia", "1.0");
    let open = closed
        .clone()
        .package("nvidia-open-dkms")
        .replacing("nvidia-dkms")
        .edit("nvidia.c", |code| {
            code.replace("MODULE_DESCRIPTION(\"nvidia\")", "MODULE_DESCRIPTION(\"opened\")")
        });
    let (closed, open) = (closed.make(&root), open.make(&root));
    root.install(&[find("linux-1"), find("linux-headers-1"), closed]).hooks_succeed();
    assert_eq!(root.modinfo(&release(), "nvidia", "description"), "nvidia");
    root.install_replacing(&[open]).hooks_succeed();
    root.assert_works(&release(), "nvidia");
    assert_eq!(root.modinfo(&release(), "nvidia", "description"), "opened");
    root.assert_settled();

    root.remove(&["nvidia-open-dkms"]).hooks_succeed();
    root.assert_absent(&release(), "nvidia");
}
