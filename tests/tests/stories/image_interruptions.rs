//! Generators are interrupted, by signals or because a disk is full.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rstest::rstest;
use stories::{Completed, Root, Started, find};

use crate::fixture::{assert_no_processes, kernel, release};
use crate::image_fixture::{IMAGE, mask, new_images, set_precise, summary_line, unmask};
use crate::mkinitcpio::{STOCK, assert_holds, machine, upgrade_zfs, zfs};

const LTS_IMAGE: &str = "boot/initramfs-linux-lts.img";

/// The second image of a preset; see [`add_fallback`].
const FALLBACK: &str = "boot/fallback.img";

/// Configures mkinitcpio, whose images have at least `size` KiB.
fn configure(root: &Root, size: u32, lines: &str) {
    root.write("etc/mkinitcpio.conf", &format!("PADDING={size}\n{lines}\n"));
}

/// The configuration of images with zfs.
const GOOD: &str = "HOOKS=(base zfs padding)";

/// Generates all images with at least `size` KiB.
fn enlarge(root: &Root, size: u32) {
    configure(root, size, GOOD);
    root.shell("mkinitcpio -P").ok();
    new_images(root);
}

/// The line of a configuration that makes the real mkinitcpio call `half_written`, too.
const COMPRESSOR: &str = "COMPRESSION=/usr/lib/initcpio/compress";

/// Makes mkinitcpio run `commands` in the middle of an image.
fn halfway(root: &Root, commands: &str) {
    root.write("etc/initcpio-story", &format!("half_written() {{ {commands}; }}\n"));
    root.write("etc/mkinitcpio.conf.d/story.conf", COMPRESSOR);
}

/// Makes mkinitcpio wait for /srv/go in the middle of an image.
fn wait_halfway(root: &Root) {
    halfway(root, "touch /srv/half; until [[ -e /srv/go ]]; do sleep 0.05; done");
}

/// Waits until mkinitcpio, started by `run`, has written half of an image.
#[track_caller]
fn wait_for_half(root: &Root, mut run: Started) -> Started {
    let patience = Instant::now() + Duration::from_secs(120);
    while !root.exists("srv/half") {
        if Instant::now() > patience || run.has_ended() {
            panic!("no image was written:\n{}", run.finish().text);
        }
        sleep(Duration::from_millis(20));
    }
    run
}

/// Creates a machine on which the images of two kernels are pending.
fn two_pending() -> Root {
    let root = machine();
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    enlarge(&root, 2048);
    let hooks = [STOCK, "95-dkms-verify"];
    hooks.iter().for_each(|hook| mask(&root, hook));
    upgrade_zfs(&root).hooks_succeed();
    hooks.iter().for_each(|hook| unmask(&root, hook));
    wait_halfway(&root);
    root
}

/// Forks [`two_pending`]. /boot is so small that mkinitcpio overwrites images in place.
fn in_place(machine: &Root) -> Root {
    let root = machine.fork();
    root.move_to_full_disk("boot", 1800);
    root
}

/// Asserts that both images contain the new module, and that nothing is pending.
#[track_caller]
fn assert_done(root: &Root) {
    assert_holds(root, IMAGE, &release());
    assert_holds(root, LTS_IMAGE, &find("linux-lts-1").content);
    assert!(root.names("boot").iter().all(|name| !name.contains("tmp")), "temporary files remain");
    root.assert_settled();
}

/// Ctrl-C signals the generator, too.
#[test]
fn generator_completes_its_image_after_a_signal() {
    let machine = two_pending();
    let cases = [
        ("dkms initramfs", "INT", 130),
        ("dkms initramfs", "TERM", 143),
        ("/usr/lib/alpm-dkms/mkinitcpio-dkms", "INT", 130),
        ("/usr/lib/alpm-dkms/mkinitcpio-dkms", "TERM", 143),
    ];
    for (command, signal, code) in cases {
        let root = in_place(&machine);
        let words: Vec<&str> = command.split(' ').collect();
        let run = wait_for_half(&root, root.start("setsid", &words));
        root.run("kill", &[&format!("-{signal}"), "--", &format!("-{}", run.id())]).ok();
        root.write("srv/go", "");
        run.finish().exits(code).has("not regenerated: interrupted").lacks("restored");
        assert_eq!((new_images(&root).len(), root.pending().len()), (1, 1), "{command} {signal}");
        root.dkms(&["initramfs"]).ok();
        assert_eq!(new_images(&root).len(), 1, "{command} {signal}");
        assert_done(&root);
    }
}

/// If only alpm-dkms is killed, its generator goes on, and the next run waits for it.
#[test]
fn images_of_a_killed_run_are_generated_by_the_next() {
    let machine = two_pending();
    for all in [false, true] {
        let root = in_place(&machine);
        let mut run = wait_for_half(&root, root.start("/usr/bin/dkms", &["initramfs"]));
        if all {
            root.kill_everything();
            assert_no_processes(&root, "killed");
        } else {
            run.kill();
        }
        root.write("srv/go", "");
        root.boot_unit().ok();
        assert_done(&root);
    }
}

/// Upgrades zfs, and signals pacman and its hooks when half of the image has been written.
#[track_caller]
fn upgrade_with_signal(root: &Root, signal: &str) -> Completed {
    root.move_to_full_disk("boot", 1800);
    wait_halfway(root);
    let new = zfs(root, "2.0").file;
    let pacman = ["pacman", "--noconfirm", "--noprogressbar", "-U", &new];
    let pacman = wait_for_half(root, root.start("setsid", &pacman));
    root.run("kill", &[&format!("-{signal}"), "--", &format!("-{}", pacman.id())]).ok();
    root.write("srv/go", "");
    pacman.finish()
}

#[test]
fn signal_to_pacman_leaves_a_complete_image() {
    let machine = machine();
    enlarge(&machine, 2048);
    // SIGTERM ends pacman at once, but our hook lets mkinitcpio complete its image.
    let terminated = machine.fork();
    set_precise(&terminated);
    upgrade_with_signal(&terminated, "TERM").exits(143);
    assert_no_processes(&terminated, "terminated");
    assert_holds(&terminated, IMAGE, &release());
    terminated.shell("rm /var/lib/pacman/db.lck").ok();
    terminated.boot_unit().ok();
    // Ctrl-C ends only mkinitcpio's hook, which leaves a truncated image to our hook.
    let interrupted = machine.fork();
    upgrade_with_signal(&interrupted, "INT")
        .ok()
        .has("regenerating")
        .has(&summary_line(&release()));
    assert_holds(&interrupted, IMAGE, &release());
    for root in [terminated, interrupted] {
        assert_eq!(new_images(&root).last(), Some(&format!("/{IMAGE}")));
        root.assert_settled();
    }
}

/// Creates a machine with an image of `size` KiB and `spare` KiB of free space in /boot. Only our
/// hook generates its images.
fn small_boot(machine: &Root, size: u32, spare: u64) -> Root {
    let root = machine.fork();
    set_precise(&root);
    enlarge(&root, size);
    root.move_to_full_disk("boot", spare);
    root
}

#[test]
fn image_survives_a_full_boot_partition() {
    let machine = machine();
    // mkinitcpio overwrites the image, or first writes a file beside it, which remains.
    let cases = [
        (2048, 1800, "restored the previous image"),
        (1024, 10 * 1024, "not regenerated: the generator failed"),
    ];
    for (size, spare, outcome) in cases {
        let root = small_boot(&machine, size, spare);
        let before = root.bytes(IMAGE);
        configure(&root, 16 * 1024, GOOD);
        upgrade_zfs(&root).hooks_fail().has("No space left on device").has(outcome);
        assert!(root.bytes(IMAGE) == before, "{outcome}");
        root.dkms(&["initramfs"]).exits(1);
        assert!(root.bytes(IMAGE) == before, "{outcome}");
        assert_eq!(root.names("boot"), ["initramfs-linux.img", "vmlinuz-linux"]);
        // A smaller image fits, once the file that a killed mkinitcpio has left is removed.
        root.shell(&format!("cat /dev/zero >/{IMAGE}.tmp")).exits(1);
        configure(&root, size, GOOD);
        root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
        assert_holds(&root, IMAGE, &release());
        assert_eq!(root.names("boot"), ["initramfs-linux.img", "vmlinuz-linux"]);
        root.assert_settled();
    }

    // The generator overwrites the image with one without zfs. There is no space for the old image
    // beside it, and it can be read, so it is not overwritten.
    let root = small_boot(&machine, 2048, 1800);
    let before = root.bytes(IMAGE);
    configure(&root, 2048, "MODULES=(gone)\nHOOKS=(base padding)");
    upgrade_zfs(&root).hooks_fail().has("generated without zfs; cannot restore the previous image");
    root.resize_disk("boot", 64 * 1024);
    root.dkms(&["initramfs"]).exits(1).has("generated without zfs; restored the previous image");
    assert!(root.bytes(IMAGE) == before);
    configure(&root, 2048, GOOD);
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// Names a second image in the preset, with a configuration of its own.
fn add_fallback(root: &Root) {
    let preset = "ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
                  default_image=/boot/initramfs-linux.img\nfallback_image=/boot/fallback.img\n\
                  fallback_config=/etc/fallback.conf\n";
    root.write("etc/mkinitcpio.d/linux.preset", preset);
    root.write("etc/fallback.conf", &format!("PADDING=1024\n{GOOD}\n"));
    enlarge(root, 1024);
}

/// Only the second image of a preset does not fit. The first one is good, and no later run loses
/// it.
#[test]
fn an_image_that_does_not_fit_harms_no_other_image_of_its_preset() {
    let root = machine();
    add_fallback(&root);
    root.move_to_full_disk("boot", 2800);
    let old = root.bytes(FALLBACK);
    root.write("etc/fallback.conf", &format!("PADDING=8192\n{GOOD}\n"));
    let output = upgrade_zfs(&root).hooks_fail().has("/boot/fallback.img: ");
    output.lacks("outdated: /boot/initramfs-linux.img").lacks("initramfs-linux.img: the generator");
    assert_holds(&root, IMAGE, &release());
    assert!(root.bytes(FALLBACK) == old);

    // The next attempt damages both images.
    let good = root.bytes(IMAGE);
    root.write("etc/fallback.conf", &format!("PADDING=8192\n{GOOD}\n{COMPRESSOR}\n"));
    halfway(&root, "echo No space left on device >&2; exit 1");
    root.dkms(&["initramfs"]).exits(1);
    assert!(root.bytes(IMAGE) == good);
    assert!(root.bytes(FALLBACK) == old);
    halfway(&root, ":");

    // The administrator gives the second image up.
    let preset =
        root.read("etc/mkinitcpio.d/linux.preset").replace("(default fallback)", "(default)");
    root.write("etc/mkinitcpio.d/linux.preset", &preset);
    root.shell("rm /boot/fallback.img").ok();
    root.dkms(&["initramfs"]).ok();
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    root.dkms(&["verify"]).ok();
}

/// Creates a machine whose /boot barely holds the two images of a preset. mkinitcpio runs `commands`
/// halfway through the first image, and then fails, but only once.
fn two_large_images(commands: &str) -> Root {
    let root = machine();
    set_precise(&root);
    add_fallback(&root);
    root.write("etc/fallback.conf", &format!("PADDING=8192\n{GOOD}\n"));
    enlarge(&root, 8192);
    root.move_to_full_disk("boot", 1900);
    halfway(&root, &format!("[[ -e /srv/failed ]] || {{ touch /srv/failed; {commands}; false; }}"));
    root
}

/// Resets the size of the second image, and asserts that both images are regenerated.
#[track_caller]
fn assert_both_are_regenerated(root: &Root) {
    root.write("etc/fallback.conf", &format!("PADDING=8192\n{GOOD}\n"));
    root.dkms(&["initramfs"]).ok();
    [IMAGE, FALLBACK].iter().for_each(|image| assert_holds(root, image, &release()));
    root.assert_settled();
}

/// The second image grows into the space that the first one needs.
#[rstest]
#[case::good(GOOD, "leaves too little space to restore /boot/initramfs-linux.img")]
#[case::without_the_module("MODULES=(gone)\nHOOKS=(base padding)", "generated without zfs")]
fn a_damaged_image_is_restored_even_if_another_has_grown(#[case] second: &str, #[case] why: &str) {
    let root = two_large_images(":");
    let images = [IMAGE, FALLBACK];
    let old = images.map(|image| root.bytes(image));
    root.write("etc/fallback.conf", &format!("PADDING=13000\n{second}\n"));
    upgrade_zfs(&root)
        .hooks_fail()
        .has(&format!("/{FALLBACK}: {why}; restored the previous image"))
        .has(&format!("/{IMAGE}: "))
        .lacks("cannot restore");
    assert!(images.map(|image| root.bytes(image)) == old);
    assert_both_are_regenerated(&root);
}

/// Another file takes most of the space, so that the old image would not fit even if the second one
/// were restored.
#[test]
fn a_good_image_stays_if_its_space_does_not_suffice_for_another() {
    let root = two_large_images("head -c 5700K /dev/zero >/boot/other");
    root.write("etc/fallback.conf", &format!("PADDING=8292\n{GOOD}\n"));
    upgrade_zfs(&root).hooks_fail().has("cannot restore").lacks("restored");
    assert_holds(&root, FALLBACK, &release());
    root.shell("rm /boot/other").ok();
    assert_both_are_regenerated(&root);
}

/// A kernel is upgraded, so no copy of its image exists. The truncated image fills /boot.
#[test]
fn a_truncated_image_without_a_copy_is_generated_once_it_fits() {
    let root = machine();
    enlarge(&root, 1024);
    root.move_to_full_disk("boot", 2800);
    configure(&root, 16 * 1024, GOOD);
    root.install(&kernel("linux", 2)).has("No space left on device");
    root.dkms(&["initramfs"]).exits(1).has("; damaged: /boot/initramfs-linux.img");
    configure(&root, 1024, GOOD);
    root.dkms(&["initramfs"]).ok();
    assert_holds(&root, IMAGE, find("linux-2").release());
    root.assert_settled();
}

/// With `precise`, our hook makes mkinitcpio regenerate the image, which then needs no copy, since
/// mkinitcpio writes the new image beside the old one.
#[rstest]
fn image_is_not_copied_if_var_is_almost_full(#[values(false, true)] precise: bool) {
    let root = machine();
    enlarge(&root, 4096);
    if precise {
        set_precise(&root);
    }
    // Room for the build, but not for four times the image.
    root.move_to_full_disk("var/lib/dkms", 12 * 1024);
    let output = upgrade_zfs(&root).hooks_succeed();
    let warning = format!("not enough space in /var/lib/dkms/.images for a copy of /{IMAGE}");
    let count = output.text.matches(&warning).count();
    assert_eq!(count, usize::from(!precise), "{}", output.text);
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}
