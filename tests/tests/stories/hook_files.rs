//! Our .hook files under real pacman, with dummy programs that record how each hook runs them.

use stories::{Recipe, Root, find};

/// A dummy that records its options and each target on standard input.
const DUMMY: &str = "#!/bin/sh\nwhile read -r line; do echo \"${0##*/}${1:+ $1}: $line\" >>/var/log/hook-calls; done\n";

/// A dummy for the program that gets no targets. It records its options.
const WITHOUT_TARGETS: &str = "#!/bin/sh\necho \"${0##*/}${1:+ $1}\" >>/var/log/hook-calls\n";

/// Appends the call of the image hook, which runs last.
fn with_image_hook<T: ToString>(lines: &[T]) -> Vec<String> {
    lines.iter().map(ToString::to_string).chain(["mkinitcpio-dkms".to_owned()]).collect()
}

/// Creates a root with our .hook files and dummies for their programs.
fn root_with_dummies() -> Root {
    let root = Root::bare();
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/../libalpm-hooks");
    for entry in std::fs::read_dir(hooks).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        root.write(
            &format!("usr/share/libalpm/hooks/{}", entry.file_name().to_str().unwrap()),
            &text,
        );
    }
    root.write("var/log/hook-calls", "");
    for (program, dummy) in [
        ("dkms-preflight", DUMMY),
        ("dkms-install", DUMMY),
        ("dkms-remove", DUMMY),
        ("mkinitcpio-dkms", WITHOUT_TARGETS),
    ] {
        root.write(&format!("usr/lib/alpm-dkms/{program}"), dummy);
    }
    root
}

/// Returns the calls of the dummies since the last time, in order.
fn recorded_calls(root: &Root) -> Vec<String> {
    let calls = root.read("var/log/hook-calls");
    root.write("var/log/hook-calls", "");
    calls.lines().map(str::to_owned).collect()
}

/// Builds a module package that provides `dkms` itself, because none is installed here.
fn module(root: &Root, version: &str) -> stories::PackageFile {
    Recipe::module("tiny", version).field("provides", "dkms").make(root)
}

#[test]
fn kernel_and_headers_are_installed_and_removed() {
    let root = root_with_dummies();
    let release = find("linux-1").release().to_owned();
    root.install(&[find("linux-1"), find("linux-headers-1")]).ok().lacks("error");
    let paths = [
        format!("usr/lib/modules/{release}/build/include/"),
        format!("usr/lib/modules/{release}/modules.order"),
    ];
    let lines = |who: &str| paths.iter().map(|path| format!("{who}: {path}")).collect::<Vec<_>>();
    let parts = [lines("dkms-preflight"), lines("dkms-install --journal"), lines("dkms-install")];
    assert_eq!(recorded_calls(&root), with_image_hook(&parts.concat()));

    root.remove(&["linux", "linux-headers"]);
    let parts =
        [lines("dkms-remove --journal"), lines("dkms-remove --depart"), lines("dkms-remove")];
    assert_eq!(recorded_calls(&root), with_image_hook(&parts.concat()));
}

#[test]
fn module_upgrade_runs_both_hooks() {
    let root = root_with_dummies();
    root.install(&[module(&root, "1.0")]);
    assert_eq!(
        recorded_calls(&root),
        with_image_hook(&[
            "dkms-preflight: usr/src/tiny-1.0/dkms.conf",
            "dkms-install --journal: usr/src/tiny-1.0/dkms.conf",
            "dkms-install: usr/src/tiny-1.0/dkms.conf"
        ])
    );
    root.install(&[module(&root, "1.1")]);
    let want = [
        "dkms-preflight: usr/src/tiny-1.1/dkms.conf",
        "dkms-install --journal: usr/src/tiny-1.1/dkms.conf",
        "dkms-remove --journal: usr/src/tiny-1.0/dkms.conf",
        "dkms-remove --depart: usr/src/tiny-1.0/dkms.conf",
        "dkms-install: usr/src/tiny-1.1/dkms.conf",
        "dkms-remove: usr/src/tiny-1.0/dkms.conf",
    ];
    assert_eq!(recorded_calls(&root), with_image_hook(&want));
}

#[test]
fn own_package_triggers_hooks_by_name() {
    let root = root_with_dummies();
    let ours = |root: &Root, version: &str| {
        let recipe = Recipe::empty("alpm-dkms", version)
            .file("usr/bin/dkms", "#!/bin/sh\n")
            .field("conflict", "dkms");
        recipe.field("provides", "dkms=3.4.3").make(root)
    };
    root.install(&[ours(&root, "0.1")]);
    assert_eq!(recorded_calls(&root), with_image_hook(&["dkms-install: alpm-dkms"]));
    root.install(&[ours(&root, "0.2")]);
    // An upgrade installs nothing: the user may have uninstalled modules on purpose.
    let upgrade = ["dkms-remove --depart: usr/bin/dkms"];
    assert_eq!(recorded_calls(&root), with_image_hook(&upgrade));

    // With --noconfirm pacman would not remove the conflicting package.
    let swap = root.shell("yes | pacman -U /srv/stubs/dkms.pkg.tar.zst").ok();
    assert!(root.exists("etc/dkms/framework.conf"), "{}", swap.text);
    assert_eq!(
        recorded_calls(&root),
        ["dkms-remove --depart: alpm-dkms", "dkms-remove --depart: usr/bin/dkms"]
    );

    root.shell("yes | pacman -U /srv/made/1.pkg.tar.zst").ok();
    let swap = ["dkms-remove --depart: usr/bin/dkms", "dkms-install: alpm-dkms"];
    assert_eq!(recorded_calls(&root), with_image_hook(&swap));
    root.remove(&["alpm-dkms"]);
    assert_eq!(recorded_calls(&root), ["dkms-remove --depart: alpm-dkms"]);
}

/// Files of a kernel package. `V` stands for the version, as in all lists below.
const KERNEL: &[&str] = &[
    "usr/lib/modules/V/kernel/drivers/net/ethernet/intel/e1000/e1000.ko.zst",
    "usr/lib/modules/V/kernel/fs/ext4/ext4.ko.zst",
    "usr/lib/modules/V/modules.builtin",
    "usr/lib/modules/V/modules.order",
    "usr/lib/modules/V/pkgbase",
];

/// Files of CachyOS's kernel package, which contains depmod's files.
const CACHYOS: &[&str] = &[
    "usr/lib/modules/V/kernel/fs/ext4/ext4.ko.zst",
    "usr/lib/modules/V/modules.alias",
    "usr/lib/modules/V/modules.alias.bin",
    "usr/lib/modules/V/modules.dep",
    "usr/lib/modules/V/pkgbase",
];

const HEADERS: &[&str] = &[
    "usr/lib/modules/V/build/.config",
    "usr/lib/modules/V/build/Makefile",
    "usr/lib/modules/V/build/arch/x86/include/asm/page.h",
    "usr/lib/modules/V/build/include/config/MODULES",
    "usr/lib/modules/V/build/include/linux/module.h",
    "usr/lib/modules/V/build/scripts/basic/fixdep",
];

const SOURCE: &[&str] =
    &["usr/src/tiny-V/Makefile", "usr/src/tiny-V/dkms.conf", "usr/src/tiny-V/tiny.c"];

/// Files of a module whose source contains paths like those of headers and kernels.
const DEEP_SOURCE: &[&str] = &[
    "usr/src/deep-V/build/include/linux/deep.h",
    "usr/src/deep-V/dkms.conf",
    "usr/src/deep-V/kernel/drivers/gpu/drm/deep/modules.order",
    "usr/src/deep-V/src/common/sdk/nvidia/inc/ctrl/ctrl0000/deep.h",
];

/// Builds packages of this version from their names and files.
fn packages(root: &Root, packages: &[(&str, &[&str])], version: &str) -> Vec<stories::PackageFile> {
    let make = |(name, files): &(&str, &[&str])| {
        let recipe = Recipe::empty(name, version);
        let files = files.iter().map(|file| file.replace('V', version));
        files.fold(recipe, |recipe, file| recipe.file(&file, "a\n")).make(root)
    };
    packages.iter().map(make).collect()
}

/// Installs, reinstalls, upgrades and removes packages, and asserts that our hooks get exactly
/// these targets.
#[track_caller]
fn assert_hooks_get(brought: &[(&str, &[&str])], targets: &[&str]) {
    let root = root_with_dummies();
    let [old, new] = ["7.2.12", "7.2.13"];
    let lines = |who: &str, version: &str| -> Vec<String> {
        targets.iter().map(|target| format!("{who}: {}", target.replace('V', version))).collect()
    };

    for what in ["install", "reinstall"] {
        root.install(&packages(&root, brought, old));
        let want = [
            lines("dkms-preflight", old),
            lines("dkms-install --journal", old),
            lines("dkms-install", old),
        ];
        assert_eq!(recorded_calls(&root), with_image_hook(&want.concat()), "{what}");
    }

    root.install(&packages(&root, brought, new));
    let want = [
        lines("dkms-preflight", new),
        lines("dkms-install --journal", new),
        lines("dkms-remove --journal", old),
        lines("dkms-remove --depart", old),
        lines("dkms-install", new),
        lines("dkms-remove", old),
    ];
    assert_eq!(recorded_calls(&root), with_image_hook(&want.concat()), "upgrade");

    root.remove(&brought.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let want = [
        lines("dkms-remove --journal", new),
        lines("dkms-remove --depart", new),
        lines("dkms-remove", new),
    ];
    assert_eq!(recorded_calls(&root), with_image_hook(&want.concat()), "removal");
}

#[test]
fn hooks_run_for_a_kernel() {
    assert_hooks_get(&[("linux", KERNEL)], &["usr/lib/modules/V/modules.order"]);
}

#[test]
fn hooks_run_for_a_kernel_without_modules_order() {
    assert_hooks_get(&[("linux-cachyos", CACHYOS)], &["usr/lib/modules/V/modules.alias"]);
}

#[test]
fn hooks_run_for_headers() {
    assert_hooks_get(&[("linux-headers", HEADERS)], &["usr/lib/modules/V/build/include/"]);
}

/// A package can contain `build` as a link to a directory elsewhere. For pacman, a link is a file.
#[test]
fn hooks_run_for_headers_that_are_a_link() {
    let linked = ["usr/lib/modules/V/build", "usr/src/linux-V/include/linux/module.h"];
    assert_hooks_get(&[("linux-headers", &linked)], &["usr/lib/modules/V/build"]);
}

#[test]
fn hooks_run_for_a_kernel_and_its_headers() {
    let targets = ["usr/lib/modules/V/build/include/", "usr/lib/modules/V/modules.order"];
    assert_hooks_get(&[("linux", KERNEL), ("linux-headers", HEADERS)], &targets);
}

#[test]
fn hooks_run_for_a_module() {
    assert_hooks_get(&[("tiny-dkms", SOURCE)], &["usr/src/tiny-V/dkms.conf"]);
}

#[test]
fn hooks_run_for_a_module_with_deep_directories() {
    assert_hooks_get(&[("deep-dkms", DEEP_SOURCE)], &["usr/src/deep-V/dkms.conf"]);
}

/// Files that resemble those that trigger our hooks.
const OTHER_FILES: &[&str] = &[
    "etc/dkms.conf",
    "opt/V/usr/src/tiny-1.0/dkms.conf",
    "usr/bin/dkms-V",
    "usr/include/dkms.conf",
    "usr/lib/modules-load.d/V.conf",
    "usr/lib/modules/V/build/Makefile",
    "usr/lib/modules/V/build/drivers/build/include/linux/a.h",
    "usr/lib/modules/V/build/drivers/modules.alias",
    "usr/lib/modules/V/build/tools/modules.order",
    "usr/lib/modules/V/kernel/drivers/modules.order",
    "usr/lib/modules/V/kernel/fs/ext4/ext4.ko.zst",
    "usr/lib/modules/V/updates/a.ko.zst",
    "usr/lib/modules/V/vdso/vdso64.so",
    "usr/share/doc/V/usr/src/tiny-1.0/dkms.conf",
    "usr/src/linux-V/Makefile",
    "usr/src/tiny-V/dkms.conf.in",
];

#[test]
fn other_files_run_no_hook() {
    let root = root_with_dummies();
    for version in ["7.2.12", "7.2.12", "7.2.13"] {
        root.install(&packages(&root, &[("others", OTHER_FILES)], version));
    }
    root.remove(&["others"]);
    assert_eq!(recorded_calls(&root), [""; 0]);
}

#[test]
fn mkinitcpio_upgrade_runs_only_the_verify_hook() {
    let root = root_with_dummies();
    let hook = "usr/share/libalpm/hooks/90-mkinitcpio-install.hook";
    let mkinitcpio = Recipe::empty("mkinitcpio", "40").file(hook, &root.read(hook)).make(&root);
    root.pacman(&["-U", "--overwrite", hook, &mkinitcpio.file]).ok();
    assert_eq!(recorded_calls(&root), ["mkinitcpio-dkms"]);
}
