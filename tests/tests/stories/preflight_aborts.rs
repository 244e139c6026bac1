//! The preflight aborts a transaction after which a module would be missing that the machine needs,
//! and only such a transaction.

use rstest::rstest;
use stories::{Completed, PackageFile, Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};
use crate::mkinitcpio;
use crate::preflight_fixture::{broken_for_the_next_kernel, critical, machine, next_release};

/// Creates a machine with a module that does not build for `linux-2`.
#[track_caller]
fn machine_with(name: &str) -> Root {
    let root = machine(&[find("bbswitch")]);
    root.install(&[broken_for_the_next_kernel(name).make(&root)]).hooks_succeed();
    root
}

/// Asserts that the transaction with this output was aborted by the preflight.
#[track_caller]
fn assert_aborted(transaction: Completed) -> Completed {
    transaction
        .exits(1)
        .has("The transaction is aborted; nothing has been changed.")
        .has("error: failed to commit transaction (failed to run transaction hooks)")
        .lacks("Recording DKMS sources")
}

#[test]
fn a_module_that_the_settings_name_aborts_the_upgrade() {
    let before = machine_with("disk");
    critical(&before, &["disk"]);
    before.make_repository(&kernel("linux", 2));
    before.shell("pacman -Sy").ok();
    let root = before.fork();
    let upgrade = assert_aborted(root.pacman(&["-Su"]))
        .has(&format!("1 module built for {}", next_release()))
        .has(&format!("error: disk/1.0 for {}: ", next_release()))
        .has("error: #error this kernel is not supported")
        .has(&format!("disk-1.0-{}-x86_64.log", next_release()))
        .has(&format!("note: disk/1.0 works with {} (linux)", release()))
        .has("to upgrade everything else, run: pacman -Syu --ignore linux,linux-headers");
    // Nothing comes after the reasons but pacman's own errors.
    let lines = upgrade.lines();
    let last = lines.iter().rposition(|line| *line == "    then repeat the pacman command");
    assert!(
        last.is_some_and(|last| lines[last + 1..]
            .iter()
            .all(|it| it.starts_with("error: ") || it.starts_with("Errors occurred"))),
        "{}",
        upgrade.text
    );
    // The downloads, the log, and the builds that the next upgrade can use.
    let mut changes = root.changes();
    changes.retain(|path| {
        let expected =
            ["var/lib/dkms/.cache/objects/", "var/lib/dkms/.log/disk-1.0-", "var/cache/pacman/"];
        !expected.iter().any(|top| path.starts_with(top))
    });
    let state = ["var/lib/dkms/.lock", "var/lib/dkms/.preflight-expected", "var/log/pacman.log"];
    assert_eq!(changes, state);
    let warning = format!("the next upgrade would lose disk/1.0 for {}", next_release());
    root.dkms(&["status"]).has(&warning);
    root.dkms(&["explain", "disk"]).ok().has(&warning);
    root.assert_works(&release(), "disk");
    root.assert_works(&release(), "bbswitch");

    let rest = Recipe::empty("other", "1.0").file("usr/share/other", "new").make(&root);
    root.publish(&[rest]);
    root.pacman(&["-Sy", "other"]).ok();
    root.pacman(&["-Syu", "--ignore", "linux,linux-headers"]).ok().hooks_succeed();
    root.assert_works(&release(), "disk");
}

#[test]
fn other_modules_only_cause_a_warning() {
    let root = machine_with("webcam");
    root.install(&kernel("linux", 2))
        .has(&format!("warning: webcam/1.0 for {}: ", next_release()))
        .has(&format!("note: webcam/1.0 works with {} (linux)", release()))
        .lacks("aborted");
    root.assert_works(&next_release(), "bbswitch");
    root.assert_absent(&next_release(), "webcam");
}

#[test]
fn a_module_that_is_not_built_automatically_causes_a_warning() {
    let root = machine(&[find("bbswitch")]);
    let manual = Recipe::module("manual", "1.0").conf_line("AUTOINSTALL=no").make(&root);
    root.install(&[manual]).hooks_succeed();
    root.dkms(&["install", "manual/1.0", "-k", &release()]).ok();
    critical(&root, &["manual"]);
    let next = next_release();
    root.install(&kernel("linux", 2))
        .has(&format!(
            "warning: manual/1.0: not built automatically for {next}: AUTOINSTALL=\"no\""
        ))
        .has(&format!("run: dkms install manual/1.0 -k {next}"));
    root.dkms(&["install", "manual/1.0", "-k", &next]).ok();
    root.assert_works(&next, "manual");
}

#[test]
fn a_module_in_the_image_aborts_the_upgrade() {
    let root = mkinitcpio::machine();
    root.unmask_preflight();
    let broken = broken_for_the_next_kernel("zfs").version("9.0").make(&root);
    root.install(&[broken]).hooks_succeed();
    assert_aborted(root.pacman(&kernel_upgrade()))
        .has("note: this machine needs zfs, which is in /boot/initramfs-linux.img");
    root.assert_works(&release(), "zfs");
}

/// Returns the arguments of an upgrade to `linux-2`.
fn kernel_upgrade() -> [&'static str; 3] {
    ["-U", "/srv/kernels/linux-2.pkg.tar.zst", "/srv/kernels/linux-headers-2.pkg.tar.zst"]
}

#[test]
fn the_driver_of_the_network_aborts_the_upgrade() {
    let root = machine_with("ether");
    // A sysfs in which the module drives a network device.
    root.shell(
        "umount /sys && mkdir -p /sys/module/ether /sys/devices/card /sys/class/net/enp3s0 \
         /sys/bus/pci/drivers/ether && ln -s /sys/devices/card /sys/class/net/enp3s0/device && \
         ln -s /sys/bus/pci/drivers/ether /sys/devices/card/driver && \
         ln -s /sys/module/ether /sys/bus/pci/drivers/ether/module",
    )
    .ok();
    assert_aborted(root.pacman(&kernel_upgrade()))
        .has("note: this machine needs ether, which drives the network device enp3s0")
        .lacks("leave out");
}

#[test]
fn missing_headers_abort_the_upgrade() {
    let root = machine_with("disk");
    critical(&root, &["bbswitch"]);
    assert_aborted(root.pacman(&["-U", "/srv/kernels/linux-2.pkg.tar.zst"]))
        .lacks("built for")
        .has(&format!("error: bbswitch/0.8 for {}: cannot be built: ", next_release()))
        .has("to get the headers, run: pacman -Syu linux-headers");
}

#[test]
fn a_module_that_excludes_the_kernel_aborts_the_upgrade() {
    let root = machine(&[find("bbswitch")]);
    let only = format!("BUILD_EXCLUSIVE_KERNEL=\"^{}\"", release());
    root.install(&[Recipe::module("disk", "1.0").conf_line(&only).make(&root)]).hooks_succeed();
    critical(&root, &["disk"]);
    // No build could change the verdict.
    assert_aborted(root.pacman(&kernel_upgrade())).has("BUILD_EXCLUSIVE_KERNEL").lacks("built for");
}

/// OpenZFS states the latest kernel that it supports, and its configure refuses later ones.
#[test]
fn a_source_that_refuses_the_kernel_aborts_the_upgrade() {
    let root = machine(&[find("bbswitch")]);
    root.install(&[Recipe::module("zfs", "2.2").make(&root)]).hooks_succeed();
    critical(&root, &["zfs"]);
    let next = Recipe::module("zfs", "2.3")
        .source("META", "Linux-Maximum: 7.1\n")
        .source("configure", "#!/bin/sh\n# --enable-linux-experimental\n")
        .make(&root);
    let upgrade = [&kernel_upgrade()[..], &[next.file.as_str()]].concat();
    let why = "its source supports Linux up to 7.1 (Linux-Maximum in META)";
    assert_aborted(root.pacman(&upgrade))
        .has(&format!("error: zfs/2.3 for {}: {why}", next_release()))
        .lacks("built for");
    // A build proves that it is not so: this configure does not refuse anything.
    let files = ["preflight"].into_iter().chain(upgrade[1..].iter().copied());
    root.dkms(&files.collect::<Vec<_>>()).ok().has("2 modules built for ");
    root.pacman(&upgrade).ok().lacks("aborted");
    root.assert_works(&next_release(), "zfs");
}

#[test]
fn a_permission_holds_for_one_transaction() {
    let root = machine_with("disk");
    critical(&root, &["disk"]);
    assert_aborted(root.pacman(&kernel_upgrade()));
    root.dkms(&["preflight", "--allow-once"]).ok();
    // A transaction that loses nothing does not need the permission.
    root.install(&[Recipe::module("other", "1.0").make(&root)]).hooks_succeed().lacks("permits");
    root.pacman(&kernel_upgrade())
        .ok()
        .has("note: continuing, as permitted by dkms preflight --allow-once")
        .has("warning: disk/1.0")
        .lacks("aborted");
    assert!(!root.exists("var/lib/dkms/.preflight-allowed"));
    root.assert_works(&next_release(), "bbswitch");
}

/// Settings under which nothing is aborted.
#[rstest]
#[case::off("mode = \"off\"\n", false)]
#[case::warn("mode = \"warn\"\n", true)]
fn settings_turn_aborts_off(#[case] mode: &str, #[case] is_tried: bool) {
    let root = machine_with("disk");
    root.write("etc/dkms/alpm-dkms.toml", &format!("[preflight]\ncritical = [\"disk\"]\n{mode}"));
    let upgrade = root.pacman(&kernel_upgrade()).ok();
    assert_eq!(upgrade.text.contains("warning: disk/1.0 for"), is_tried, "{}", upgrade.text);
    root.assert_works(&next_release(), "bbswitch");
}

#[test]
fn installing_an_additional_kernel_aborts_nothing() {
    let root = machine(&[]);
    let lts = find("linux-lts-1");
    let broken = Recipe::module("disk", "1.0").edit("Makefile", |makefile| {
        format!(
            "$(if $(findstring {},$(KERNELRELEASE)),$(error not for me))\n{makefile}",
            lts.release()
        )
    });
    root.install(&[broken.make(&root)]).hooks_succeed();
    critical(&root, &["disk"]);
    root.install(&kernel("linux-lts", 1)).has("warning: disk/1.0 for").lacks("aborted");
    assert_status(&root, &[installed("disk/1.0", &release())]);
}

#[test]
fn a_module_upgrade_that_fails_aborts_nothing() {
    let root = machine(&[]);
    let module = Recipe::module("disk", "1.0");
    root.install(&[module.make(&root)]).hooks_succeed();
    critical(&root, &["disk"]);
    let broken = module.version("2.0").edit("disk.c", |code| code + "#error unfinished\n");
    root.install(&[broken.make(&root)]).has("warning: disk/2.0 for").lacks("aborted");
    root.assert_works(&release(), "disk");
}

#[test]
fn with_another_compiler_a_failure_proves_nothing() {
    let root = machine_with("disk");
    critical(&root, &["disk"]);
    let gcc = Recipe::empty("gcc", "99.0").file("usr/share/gcc-99", "").make(&root);
    root.install(&[&kernel("linux", 2)[..], &[gcc]].concat())
        .has("note: disk/1.0: test build inconclusive: ")
        .has("; the transaction also replaces gcc")
        .lacks("aborted");
}

/// Returns the packages of `linux-2` and these others.
fn with_next_kernel(others: &[PackageFile]) -> Vec<PackageFile> {
    [&kernel("linux", 2)[..], others].concat()
}

#[test]
fn unowned_files_beside_a_source_do_not_vanish() {
    let root = machine(&[]);
    let module = Recipe::module("disk", "1.0")
        .edit("disk.c", |code| code + "#ifdef GENERATED\n#include \"generated.h\"\n#endif\n");
    root.install(&[module.make(&root)]).hooks_succeed();
    critical(&root, &["disk"]);
    root.write("usr/src/disk-1.0/generated.h", "/* by hand */\n");
    let module =
        module.edit("Makefile", |makefile| format!("ccflags-y := -DGENERATED\n{makefile}"));
    let upgrade = root.install(&with_next_kernel(&[module.make(&root)])).hooks_succeed();
    upgrade.has(&format!("1 module built for {}", next_release()));
    root.assert_works(&next_release(), "disk");
}

#[test]
fn a_prebuilt_module_replaces_the_source_without_an_abort() {
    let root = machine_with("disk");
    critical(&root, &["disk"]);
    let prebuilt = Recipe::empty("disk", "1.0")
        .file(&format!("usr/lib/modules/{}/extramodules/disk.ko", next_release()), "an object")
        .field("conflict", "disk-dkms")
        .make(&root);
    root.install_replacing(&with_next_kernel(&[prebuilt])).lacks("aborted");
    assert!(!root.exists("usr/src/disk-1.0"));
}

#[test]
fn a_source_that_needs_other_files_of_its_package_proves_nothing() {
    let root = machine(&[]);
    let module = |content: &str| {
        Recipe::module("disk", "1.0")
            .edit("disk.c", |code| code + "#include \"/usr/lib/disk/disk.h\"\n")
            .file("usr/lib/disk/disk.h", content)
    };
    let good = "MODULE_INFO(state, \"good\");\n";
    root.install(&[module(good).make(&root)]).hooks_succeed();
    critical(&root, &["disk"]);
    root.write("usr/lib/disk/disk.h", "#error old\n");
    let upgrade = root.install(&with_next_kernel(&[module(good).make(&root)])).hooks_succeed();
    upgrade.has("note: disk/1.0: test build inconclusive: ").has("built and installed");
    assert_eq!(root.modinfo(&next_release(), "disk", "state"), "good");
}

#[rstest]
#[case::one("mv /usr/src/disk-1.0 /srv")]
#[case::all("mv /usr/src /srv")]
fn a_missing_source_aborts_the_upgrade(#[case] command: &str) {
    let root = machine_with("disk");
    critical(&root, &["disk"]);
    root.shell(&format!("{command} && rm -rf /var/lib/dkms/.kept")).ok();
    assert_aborted(root.pacman(&kernel_upgrade())).has("its source is missing: /usr/src/disk-1.0");
}

#[test]
fn a_missing_source_of_a_replaced_version_does_not_abort_the_upgrade() {
    let root = Root::with_preflight();
    root.install(&kernel("linux", 1));
    critical(&root, &["disk"]);
    root.install(&[Recipe::module("disk", "1.0").make(&root)]).hooks_succeed();
    root.shell("cp -a /usr/src/disk-1.0 /srv && pacman -Rn --noconfirm disk-dkms").ok();
    root.shell(&format!("cp -a /srv/disk-1.0 /usr/src && dkms install disk/1.0 -k {}", release()))
        .ok();
    root.shell("rm -r /usr/src/disk-1.0 && rm -rf /var/lib/dkms/.kept").ok();
    root.install(&[Recipe::module("disk", "2.0").make(&root)]).hooks_succeed();
    root.install(&kernel("linux", 2)).has(&format!("1 module built for {}", next_release()));
    root.assert_works(&next_release(), "disk");
}
