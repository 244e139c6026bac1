//! `dkms verify` finds each of many sabotages, and nothing on a machine that is as it should be.

use stories::{Recipe, Root, find};

use crate::fixture::{kernel, machine, object, release};
use crate::image_fixture::IMAGE;
use crate::mkinitcpio;

/// A way to damage a machine, and the fault that it causes.
struct Sabotage {
    /// A script. `$K` is the kernel release, `$L` the kernel's directory, `$O` the object of
    /// bbswitch and `$T` the dkms tree.
    script: &'static str,
    /// A part of the line that `dkms verify` prints.
    fault: &'static str,
    /// Whether the advised command corrects the fault.
    is_corrected: bool,
}

const fn sabotage(script: &'static str, fault: &'static str) -> Sabotage {
    Sabotage { script, fault, is_corrected: true }
}

impl Sabotage {
    /// Only a person can correct the fault, or packages that the machine does not have.
    const fn needs_a_person(self) -> Self {
        Self { is_corrected: false, ..self }
    }

    /// Damages a copy of the machine, and asserts that `dkms verify` finds it. Runs the advised
    /// commands, and asserts that nothing is left to find.
    #[track_caller]
    fn try_on(&self, machine: &Root) {
        let root = machine.fork();
        let places = format!(
            "K={0}; L=/usr/lib/modules/$K; O=/{1}; T=/var/lib/dkms; set -e; ",
            release(),
            object(&release(), "bbswitch")
        );
        root.shell(&format!("{places}{}", self.script)).ok();
        let mut found = root.dkms(&["verify"]).exits(11).has(self.fault);
        if !self.is_corrected {
            return;
        }
        // A correction may show another fault, such as an outdated index.
        for _ in 0..3 {
            let commands = found.lines().into_iter().filter_map(|line| line.split_once("; run: "));
            for (_, command) in commands {
                root.shell(&format!("{places}{command}"));
            }
            found = root.dkms(&["verify"]);
            if found.code == 0 {
                return;
            }
        }
        found.ok();
    }
}

/// Unpacks the object of bbswitch, runs `change` on the file `o.ko`, and packs it again.
macro_rules! repacked {
    ($change:literal) => {
        concat!("cd /tmp; zstd -dqf $O -o o.ko; ", $change, "; zstd -qf o.ko -o $O")
    };
}

const OBJECTS: &[Sabotage] = &[
    sabotage("rm $O", "bbswitch/0.8: not up to date"),
    sabotage("truncate -s 100 $O", "bbswitch/0.8: not up to date"),
    sabotage("echo garbage >$O", "bbswitch/0.8: not up to date"),
    sabotage(
        "cp $L/updates/dkms/v4l2loopback.ko.zst $O",
        "has been changed since its installation",
    ),
    sabotage(
        repacked!("sed -i s/vermagic=$K/vermagic=${K%?}9/ o.ko"),
        "bbswitch.ko.zst: built for 7.2",
    ),
    sabotage(
        repacked!("objcopy --redefine-sym pci_get_device=no_such_function o.ko"),
        "unknown symbol no_such_function",
    ),
    sabotage(
        "zstd -dq $O -o $L/updates/dkms/bbswitch.ko; depmod $K",
        "modprobe loads /usr/lib/modules/",
    )
    .needs_a_person(),
    sabotage("rm $L/.dkms-inventory $O", "bbswitch/0.8: not up to date"),
    sabotage("rm -r $T/bbswitch", "bbswitch/0.8: not up to date"),
    sabotage("rm $T/bbswitch/kernel-$K-x86_64", "bbswitch/0.8: not up to date"),
    sabotage("touch /etc/dkms/no-autoinstall; rm $O", "bbswitch/0.8: not up to date")
        .needs_a_person(),
];

const INDEX: &[Sabotage] = &[
    sabotage("rm $L/modules.dep.bin", "module index missing or outdated"),
    sabotage("truncate -s 0 $L/modules.dep.bin", "module index missing or outdated"),
    sabotage("touch -d 2020-01-01 $L/modules.*", "module index missing or outdated"),
    sabotage("sed -i /bbswitch/d $L/modules.dep", "module index missing or outdated"),
    sabotage(
        "mkdir -p $L/own; cp $O $L/own; echo 'override bbswitch * own' >/etc/depmod.d/own.conf; \
         depmod $K",
        "modprobe loads /usr/lib/modules/",
    )
    .needs_a_person(),
];

const INPUTS: &[Sabotage] = &[
    sabotage("echo '/* */' >>/usr/src/bbswitch-0.8/bbswitch.c", ": source changed"),
    sabotage(
        "echo CONFIG_OWN=y >>$L/build/include/config/auto.conf",
        "kernel configuration changed",
    ),
    // Its object is identical to that of the installed version.
    sabotage(
        "cp -r /usr/src/bbswitch-0.8 /usr/src/bbswitch-0.9; \
         sed -i 's/^PACKAGE_VERSION=.*/PACKAGE_VERSION=0.9/' /usr/src/bbswitch-0.9/dkms.conf; \
         dkms build bbswitch/0.9 -k $K",
        "bbswitch/0.9: not up to date",
    ),
    sabotage("mv /usr/src/bbswitch-0.8 /root", "bbswitch/0.8: broken: source missing")
        .needs_a_person(),
    sabotage(
        "echo '#error unfinished' >>/usr/src/bbswitch-0.8/bbswitch.c; dkms autoinstall -k $K || :",
        "bbswitch/0.8: failed to build",
    )
    .needs_a_person(),
    sabotage("rm -r $L/build", "no kernel headers installed").needs_a_person(),
    sabotage("rm -r $L/build; ln -s /nowhere $L/build", "kernel headers missing").needs_a_person(),
    sabotage("echo 6.6.6 >$L/build/include/config/kernel.release", "are those of 6.6.6")
        .needs_a_person(),
    sabotage(
        "mkdir -p /usr/lib/modules/6.6.6/kernel; echo linux-own >/usr/lib/modules/6.6.6/pkgbase",
        "6.6.6: no kernel headers installed",
    )
    .needs_a_person(),
];

const LEFTOVERS: &[Sabotage] = &[
    sabotage(
        "mkdir -p /usr/lib/modules/6.6.6; cp -a $L/updates $L/.dkms-inventory /usr/lib/modules/6.6.6",
        "its objects remain for 6.6.6",
    ),
    sabotage("rm $T/bbswitch/0.8/source", "broken: source link missing"),
    sabotage("cp -a $T/bbswitch/0.8/$K $T/bbswitch/0.8/6.6.6", "build for 6.6.6 remains"),
    sabotage(
        "mv /usr/bin/make /usr/bin/make.good; cp /usr/bin/sleep /usr/bin/dawdle; \
         printf '#!/bin/sh\\nexec dawdle 900\\n' >/usr/bin/make; chmod +x /usr/bin/make; \
         echo >>/usr/src/bbswitch-0.8/bbswitch.c; dkms install bbswitch/0.8 -k $K & \
         until pgrep -x dawdle; do sleep 0.1; done; kill -9 $!; mv /usr/bin/make.good /usr/bin/make",
        "not finished by an earlier run",
    ),
];

/// The kernel accepts only signed modules.
const SIGNATURES: &[Sabotage] = &[
    sabotage(repacked!("strip -g o.ko"), "not signed, but the kernel loads only signed modules"),
    sabotage(
        "cd /tmp; openssl req -new -x509 -subj /CN=other -newkey rsa:2048 -nodes -keyout k -outform DER \
         -out c; zstd -dqf $O -o o.ko; strip -g o.ko; $L/build/scripts/sign-file sha256 k c o.ko; \
         zstd -qf o.ko -o $O",
        "signed with a key other than",
    ),
];

#[test]
fn verify_finds_damaged_objects() {
    let machine = machine(&[find("bbswitch"), find("v4l2loopback")]);
    assert_eq!(machine.dkms(&["verify"]).ok().text, "");
    OBJECTS.iter().for_each(|sabotage| sabotage.try_on(&machine));
}

#[test]
fn verify_finds_a_wrong_index_and_changed_inputs() {
    let machine = machine(&[find("bbswitch")]);
    INDEX.iter().chain(INPUTS).for_each(|sabotage| sabotage.try_on(&machine));
}

#[test]
fn verify_finds_leftovers() {
    let machine = machine(&[find("bbswitch")]);
    LEFTOVERS.iter().for_each(|sabotage| sabotage.try_on(&machine));
}

#[test]
fn verify_checks_signatures_where_the_kernel_requires_them() {
    let root = Root::with_kernel();
    let conf = format!("usr/lib/modules/{}/build/include/config/auto.conf", release());
    let forced = root.read(&conf) + "CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_FORCE=y\n";
    root.write(&conf, &forced);
    root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
    root.install(&[find("bbswitch")]).hooks_succeed();
    assert_eq!(root.dkms(&["verify"]).ok().text, "");
    SIGNATURES.iter().for_each(|sabotage| sabotage.try_on(&root));
}

/// The images of the fake mkinitcpio list their files.
const IMAGES: &[Sabotage] = &[
    sabotage("sed -i /zfs/d /boot/initramfs-linux.img", "lacks zfs, required by"),
    sabotage("touch -d 2020-01-01 /boot/initramfs-linux.img", "contains an outdated copy of zfs"),
    sabotage("sed -i s/$K/6.6.6/ /boot/initramfs-linux.img", "generated for 6.6.6"),
    sabotage("truncate -s 9 /boot/initramfs-linux.img", "cannot list"),
];

#[test]
fn verify_finds_wrong_images() {
    let machine = mkinitcpio::machine();
    assert_eq!(machine.dkms(&["verify"]).ok().text, "");
    IMAGES.iter().for_each(|sabotage| sabotage.try_on(&machine));
    // A kernel without an image cannot be booted.
    machine.install(&kernel("linux-lts", 1)).hooks_succeed();
    machine.shell("rm /boot/initramfs-linux-lts.img").ok();
    let object = format!("/{}", object(&find("linux-lts-1").content, "zfs"));
    machine.shell(&format!("rm {object}")).ok();
    machine.dkms(&["verify"]).ok();
    assert!(machine.exists(IMAGE));
}

#[test]
fn verify_needs_no_root_and_checks_what_is_asked() {
    let root = machine(&[find("bbswitch"), find("v4l2loopback")]);
    root.shell(&format!("rm /{}", object(&release(), "v4l2loopback"))).ok();
    root.dkms(&["verify", "bbswitch"]).ok();
    root.dkms(&["verify", "-k", &release(), "v4l2loopback"]).exits(11).has("v4l2loopback/");
    root.dkms(&["verify", "nosuch"]).exits(3).has("nosuch: not added");
    root.dkms(&["verify", "-k", "6.6.6"]).exits(2).has("6.6.6: no such kernel");
    root.dkms(&["verify", "--boot"]).exits(11).has("v4l2loopback/");
    let before = root.snapshot("var/lib/dkms");
    let as_user = root.shell("setpriv --reuid 65534 --clear-groups dkms verify --json");
    let found = as_user
        .exits(11)
        .has("\"problem\": \"v4l2loopback/")
        .has("\"advice\": \"run: dkms install");
    found.lacks("error");
    root.snapshot("var/lib/dkms").assert_matches(&before, "verify changes nothing");
    let elsewhere = root.nested_root();
    root.dkms(&["verify", "--root", &elsewhere]).ok();
}

#[test]
fn verify_reports_modules_that_must_be_tried_again() {
    let root = Root::with_kernel();
    let broken = Recipe::module("broken", "1").source("broken.c", "#error never\n").make(&root);
    root.install(&[broken]).hooks_fail();
    root.dkms(&["verify"]).exits(11).has("broken/1: failed to build").has("#error never");
}
