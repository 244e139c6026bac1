//! The power of a machine with an ext4 disk is cut while a hook runs, which loses the page cache.

use std::time::{Duration, Instant};

use stories::{DiskMachine, Recipe, Root, find};

use crate::fixture::{installed, kernel, tell};
use crate::killed_hooks::{target, unpack};

/// The number of power cuts.
const CUTS: u32 = 10;

/// The time limit of a boot with a run of the hook, long enough without KVM on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// The init of the machine. With `phase=cut` it runs the hook, otherwise it looks at the result and
/// runs the command of the boot unit.
const INIT: &str = r#"#!/usr/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
say() { printf 'power: %s\n' "$*"; }
if [[ $phase == cut ]]; then
    sync
    # Stays in the page cache for 30 seconds.
    echo data >/srv/unsynced
    say start
    /usr/lib/alpm-dkms/dkms-install </srv/target 2>&1 | cat
    say "end ${PIPESTATUS[0]}"
    sleep infinity
fi
[[ -s /srv/unsynced ]] || say lost
load() {
    modprobe tiny && say "$1 $(</sys/module/tiny/version)" && rmmod tiny
}
say "index $(grep -c tiny "/usr/lib/modules/$(uname -r)/modules.dep")"
load before
UNIT 2>&1 | cat
say "unit ${PIPESTATUS[0]}"
load after
dkms status | while read -r line; do say "status $line"; done
for name in /var/lib/dkms/.pending/*; do [[ ! -e $name ]] || say "pending $name"; done
sync
echo b >/proc/sysrq-trigger
"#;

/// A machine on which a package with tiny 2.0 has replaced tiny 1.0, but the hook has not run yet.
/// The build of tiny 2.0 is in the cache.
fn machine() -> (Root, DiskMachine) {
    let root = Root::ready();
    let [old, new] = ["1.0", "2.0"].map(|version| Recipe::module("tiny", version).make(&root));
    let kernel = kernel("linux-true", 2);
    root.install(&[&kernel[..], std::slice::from_ref(&new)].concat()).hooks_succeed();
    root.install(&[old]).hooks_succeed();
    unpack(&root, || drop(root.install(std::slice::from_ref(&new))));
    root.shell("rm -rf /var/lib/apt /var/cache/* /usr/share/doc /usr/share/locale").ok();
    let unit = root.read("usr/lib/systemd/system/alpm-dkms-pending.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    root.write("srv/init", &INIT.replace("UNIT", command));
    root.write("srv/target", &target("tiny/2.0"));
    let machine =
        DiskMachine::new(&root, &format!("usr/lib/modules/{}/vmlinuz", kernel[0].release()));
    (root, machine)
}

/// Boots the machine, and cuts its power `moment` after the hook has started, or once it has ended.
/// Returns the time for which the hook ran, and whether it ended.
fn cut(machine: &DiskMachine, moment: Duration) -> (Duration, bool) {
    let mut powered = machine.start("phase=cut");
    assert!(powered.prints("power: start", PATIENCE), "{}", powered.console());
    let start = Instant::now();
    let ended = powered.prints("power: end", moment);
    let ran = start.elapsed();
    assert!(!ended || powered.console().contains("power: end 0"), "{}", powered.console());
    powered.cut();
    (ran, ended)
}

/// Boots the machine and asserts that its module works before and after the boot unit. Returns true
/// if the power cut lost a file.
fn check(machine: &DiskMachine, when: &str) -> bool {
    let console = machine.start("phase=check").finish();
    let lines: Vec<&str> =
        console.lines().filter_map(|line| line.strip_prefix("power: ")).collect();
    let release = find("linux-true-2").content;
    let lost = lines.first() == Some(&"lost");
    let version = if lines.contains(&"before 1.0") { "1.0" } else { "2.0" };
    let mut want = vec![
        "index 1".to_owned(),
        format!("before {version}"),
        "unit 0".to_owned(),
        "after 2.0".to_owned(),
        format!("status {}", installed("tiny/2.0", &release)),
    ];
    want.splice(0..0, lost.then(|| "lost".to_owned()));
    assert_eq!(lines, want, "{when}; console:\n{console}");
    tell(&format!(
        "{when}: {version} loaded, {}",
        if lost { "unsynced file lost" } else { "nothing lost" }
    ));
    lost
}

#[test]
#[ignore = "takes long: run make check-power"]
fn power_cuts_leave_a_working_module() {
    let (_root, machine) = machine();
    let whole = machine.copy("whole");
    let (duration, ended) = cut(&whole, PATIENCE);
    assert!(ended, "the hook did not end");
    check(&whole, "cut after the hook");
    whole.discard();
    let (mut lost, mut early) = (0, 0);
    for point in 0..CUTS {
        let copy = machine.copy(&format!("cut-{point}"));
        let (ran, ended) = cut(&copy, duration * (2 * point + 1) / (2 * CUTS));
        lost += u32::from(check(&copy, &format!("cut after {ran:?} of {duration:?}")));
        early += u32::from(!ended);
        copy.discard();
    }
    assert!(early >= CUTS / 2, "the hook was interrupted only {early} times");
    assert!(lost > 0, "no cut lost the page cache");
    tell(&format!("{CUTS} power cuts, {early} during the hook, {lost} lost the unsynced file"));
}
