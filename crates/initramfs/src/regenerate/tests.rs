use std::fs;
use std::path::Path;

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::os::process::{Environment, Program};
use rstest::rstest;
use testroot::TestRoot;

use super::*;
use crate::image::test_kernel_file;

const IMAGE: &str = "boot/initramfs-linux.img";

/// Returns a root with a kernel of the package `pkgbase`, whose images are pending.
fn pending_root(pkgbase: &str) -> TestRoot {
    let root = TestRoot::new();
    root.kernel("7.2").pkgbase(pkgbase);
    let work =
        PendingWork::Image { kernel: "7.2".parse().unwrap(), objects: ["zfs".into()].into() };
    let machine = Machine::for_hook(root.path());
    PendingList::of(&machine.trees).write(&work).unwrap();
    root
}

/// Regenerates the pending images of a root. Returns whether all are up to date, and the output.
fn regenerate(root: &TestRoot) -> (bool, Vec<String>) {
    let machine = Machine::for_hook(root.path());
    let generator = Generator::detect(&machine);
    let mut lines = Vec::new();
    let mut say = |line: &str| lines.push(line.to_owned());
    let succeeded = Assessment::read(&machine, generator.as_ref()).regenerate(&machine, &mut say);
    (succeeded, lines)
}

fn is_pending(root: &TestRoot) -> bool {
    !PendingList::of(&Machine::for_hook(root.path()).trees).read().is_empty()
}

/// Regenerates the pending images of a root. Returns the errors, and asserts that the images stay
/// pending if there are errors.
fn errors(root: &TestRoot) -> Vec<String> {
    let (succeeded, mut lines) = regenerate(root);
    assert_eq!(is_pending(root), !succeeded);
    lines.retain(|line| line.starts_with("error: "));
    lines
}

/// Each case is a generator script that fails, and the expected end of the error. The script's
/// argument is the path of the image.
#[rstest]
#[case::untouched("exit 3", "not regenerated: the generator failed")]
#[case::same_content("printf old >$1; exit 3", "not regenerated: the generator failed")]
#[case::spoilt("echo >$1; exit 3", "the generator failed; restored the previous image")]
fn only_a_changed_image_is_restored(#[case] script: &str, #[case] want: &str) {
    let root = pending_root("linux");
    root.write(IMAGE, "old");
    root.executable("generate", &format!("#!/bin/sh\n{script}\n"));
    let command = format!("{} {}", root.at("generate").display(), root.at(IMAGE).display());
    root.write("etc/dkms/alpm-dkms.toml", format!("[initramfs]\ncommand = '{command}'\n"));
    assert_eq!(
        errors(&root),
        [
            format!("error: 7.2 (linux): {command} failed (exit status 3)"),
            format!("error: 7.2 (linux): /{IMAGE}: {want}"),
        ]
    );
    assert_eq!(root.read(IMAGE), "old");
}

/// Mounts a tmpfs, and unmounts it when dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn run(&self, program: &str, words: &[&str]) {
        let env = Environment::fixed();
        let run = Program::new(program, &env).args(words.iter().copied()).arg(self.0).run();
        assert!(run.unwrap().success());
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.run("umount", &[]);
    }
}

#[rstest]
#[case::read_only(Some("old"), "remount,ro", "/boot: read-only file system (")]
#[case::read_only_without_an_image(None, "remount,ro", "/boot: read-only file system (missing)")]
#[case::full(
    Some("old"),
    "remount,size=64k",
    "not enough space in /boot: 60 KiB free, 1024 KiB needed"
)]
#[ignore = "needs root: run make unit"]
fn an_image_that_cannot_be_written_stays_pending(
    #[case] content: Option<&str>,
    #[case] options: &str,
    #[case] why: &str,
) {
    let root = pending_root("none");
    root.dir("boot");
    let boot = root.at("boot");
    let mounted = Mounted(&boot);
    mounted.run("mount", &["-t", "tmpfs", "none"]);
    root.write(IMAGE, "old");
    // No machine has this preset, and a generator that runs would fail.
    let preset = "ALL_kver=7.2\nPRESETS=(default)\n";
    root.write("etc/mkinitcpio.d/none.preset", format!("{preset}default_image=/{IMAGE}\n"));
    root.write("usr/bin/mkinitcpio", "");
    let machine = Machine::for_hook(root.path());
    let generator = Generator::detect(&machine).unwrap();
    crate::note_existing_images(&machine, &generator).unwrap();
    if content.is_none() {
        fs::remove_file(root.at(IMAGE)).unwrap();
    }
    crate::take_snapshot(&machine, &generator).unwrap();
    mounted.run("mount", &["-o", options]);
    let errors = errors(&root);
    let want = format!("error: 7.2 (none): /{IMAGE}: not regenerated: {why}");
    assert!(errors.len() == 1 && errors[0].starts_with(&want), "{errors:?}");
    assert_eq!(fs::read_to_string(root.at(IMAGE)).ok().as_deref(), content);
}

/// Nothing is mounted on /boot, but the directory contains a file with the image's name.
#[rstest]
#[case::image_below("etc/fstab", "/boot is in /etc/fstab but not mounted")]
#[case::another_kernel("boot/vmlinuz-none", "/boot/vmlinuz-none is still kernel 7.1 (")]
fn an_image_that_must_not_be_written_stays_pending(#[case] file: &str, #[case] why: &str) {
    let root = pending_root("none");
    root.write("boot/initramfs-none.img", "old");
    root.write("usr/bin/dracut", "");
    root.write("etc/dracut.conf", "add_drivers+=\" zfs \"\n");
    root.write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    match file {
        "etc/fstab" => root.write(file, "UUID=1 /boot vfat noauto 0 2\n"),
        _ => root.write(file, test_kernel_file("7.1")),
    }
    let errors = errors(&root);
    let want = "error: 7.2 (none): /boot/initramfs-none.img: not regenerated: ";
    assert!(errors.len() == 1 && errors[0].starts_with(&format!("{want}{why}")), "{errors:?}");
    assert_eq!(root.read("boot/initramfs-none.img"), "old");
}

/// The configuration names no changed module, so nothing suggests that the image is wrong.
#[test]
fn an_image_that_is_not_mounted_is_a_note_if_no_module_is_configured() {
    let root = pending_root("none");
    root.write("usr/bin/dracut", "");
    root.write("etc/dracut.conf", "add_drivers+=\" vboxdrv \"\n");
    root.write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    root.write("etc/fstab", "UUID=1 /boot vfat noauto 0 2\n");
    root.write("boot/initramfs-none.img", "in the directory below the mount point");
    let (succeeded, lines) = regenerate(&root);
    assert!(succeeded);
    let why = "/boot is in /etc/fstab but not mounted";
    assert_eq!(
        lines,
        [
            format!("note: 7.2 (none): /boot/initramfs-none.img: not checked: {why}"),
            "7.2 (none): 0 modules installed; not checked: /boot/initramfs-none.img; \
             run: mount /boot && dkms initramfs"
                .to_owned(),
        ]
    );
    assert!(is_pending(&root), "checked once /boot is mounted");
}

#[test]
fn images_that_are_not_found_stay_pending_until_boot_is_mounted() {
    let root = pending_root("none");
    root.write("usr/bin/dracut", "");
    root.write("etc/fstab", "UUID=1 /efi vfat noauto 0 2\n");
    root.write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    let want = "error: 7.2 (none): no images found: /efi is in /etc/fstab but not mounted";
    assert_eq!(errors(&root), [want]);
    root.write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /efi vfat rw 0 0\n");
    assert_eq!(errors(&root), [""; 0]);
}

/// Each case: a generator's error, and whether it names the module.
#[rstest]
#[case::quoted("==> ERROR: module not found: 'tp-smapi'", true)]
#[case::plain("dracut-install: Failed to find module tp_smapi", true)]
#[case::part_of_a_name("module not found: tp_smapi2", false)]
fn an_error_names_a_module(#[case] error: &str, #[case] want: bool) {
    assert_eq!(names(error, &KmodName::new("tp_smapi")), want);
}

#[rstest]
#[case::removed(&["==> ERROR: module not found: 'vhba'"], true)]
#[case::removed_and_other(&["==> ERROR: module not found: 'vhba'", "ERROR: no such hook"], false)]
#[case::other(&["==> ERROR: module not found: 'gone'"], false)]
#[case::without_an_error(&[], false)]
fn a_generator_may_miss_only_what_was_removed(#[case] errors: &[&str], #[case] want: bool) {
    let failure = GeneratorFailure {
        why: "mkinitcpio failed".into(),
        errors: errors.iter().map(|error| (*error).to_owned()).collect(),
    };
    assert_eq!(only_misses(&failure, &[&KmodName::new("vhba")].into()), want);
}
