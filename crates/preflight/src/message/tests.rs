use std::collections::BTreeMap;

use super::*;
use crate::arriving::ArrivingPackage;
use crate::installed::InstalledModule;

fn release(text: &str) -> KernelRelease {
    text.parse().unwrap()
}

fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

fn complaint() -> Complaint {
    Complaint {
        message: "make failed (exit status 2)".into(),
        cause: Some("zfs.c:3:2: error: unknown type name 'vnode_t'".into()),
        means: Some("no included header of this kernel defines vnode_t".into()),
        log: Some("/var/lib/dkms/.log/zfs.log".into()),
    }
}

fn regression(module: &str, why: RegressionCause, critical: Option<&str>) -> Regression {
    Regression {
        installed: InstalledModule { id: id(module), objects: [].into() },
        works_for: release("7.1-arch1-1"),
        kernel: release("7.2-arch1-1"),
        package: "linux".into(),
        why,
        critical: critical.map(str::to_owned),
    }
}

/// The packages of an upgrade to kernel 7.2.
fn arriving(upgrade: bool) -> Arriving {
    let package = |name: &str, path: &str, bound: &[&str]| ArrivingPackage {
        name: name.into(),
        version: "7.2.arch1-1".into(),
        file: format!("/var/cache/pacman/pkg/{name}.pkg.tar.zst").into(),
        installed: None,
        foreign: false,
        unchanged: false,
        removes: [].into(),
        bound: bound.iter().map(|name| (*name).to_owned()).collect(),
        size: 0,
        objects: Vec::new(),
        modules: [].into(),
        outside: false,
        not_extracted: Vec::new(),
        paths: [format!("usr/lib/modules/7.2-arch1-1/{path}")].into(),
    };
    let packages = vec![
        package("linux", "modules.order", &["nvidia-open"]),
        package("linux-headers", "build/include/", &[]),
        ArrivingPackage {
            paths: ["usr/src/other-1/dkms.conf".to_owned()].into(),
            ..package("other", "", &[])
        },
    ];
    Arriving { packages, upgrade, ..Arriving::default() }
}

fn text(verdict: &Verdict, upgrade: bool, aborts: bool) -> String {
    let advice = ["for zfs/2.4, the repositories have zfs-dkms 2.5-1".to_owned()];
    let consequence = if aborts { Consequence::Aborts } else { Consequence::Continues };
    lines(verdict, &arriving(upgrade), Duration::from_millis(12_700), consequence, &advice)
}

#[test]
fn tells_what_builds() {
    let modules = |ids: &[&str]| ids.iter().map(|it| id(it)).collect();
    let mut builds = BTreeMap::new();
    builds.insert(release("7.2-arch1-1"), modules(&["zfs/2.4"]));
    let one = Verdict { builds: builds.clone(), ..Verdict::default() };
    builds.insert(release("6.12-lts"), modules(&["zfs/2.4", "bbswitch/0.8"]));
    let two = Verdict { builds, ..Verdict::default() };
    let texts = [one, two, Verdict::default()].map(|verdict| text(&verdict, true, false));
    insta::assert_snapshot!(texts.concat(), @"
    1 module built for 7.2-arch1-1 (12 s)
    2 modules built for 6.12-lts, 7.2-arch1-1 (12 s)
    ");
}

#[test]
fn an_abort_ends_with_reasons_and_commands() {
    let fails = RegressionCause::DoesNotBuild(id("zfs/2.4"), complaint());
    let verdict = Verdict {
        regressions: vec![
            regression("zfs/2.3", fails, Some("is the driver of the root file system")),
            regression("webcam/1", RegressionCause::NoHeaders, None),
        ],
        failures: vec![OtherFailure {
            module: id("new/1"),
            kernel: None,
            complaint: complaint(),
            stays: Some(id("new/0")),
        }],
        unknown: vec![(Some(id("odd/1")), "disk full".into())],
        not_stored: Some("/var/lib/dkms/.cache: no space left on device".into()),
        warnings: vec!["not enough space in /boot".into()],
        ..Verdict::default()
    };
    insta::assert_snapshot!(text(&verdict, true, true), @"
    warning: not enough space in /boot
    note: modules will be built again after the transaction: /var/lib/dkms/.cache: no space left on device
    note: odd/1: test build inconclusive: disk full
    warning: new/1: make failed (exit status 2)
      cause: zfs.c:3:2: error: unknown type name 'vnode_t'
      means: no included header of this kernel defines vnode_t
      log: /var/lib/dkms/.log/zfs.log
      note: new/0 stays installed
    warning: webcam/1 for 7.2-arch1-1: cannot be built: the headers of linux for this kernel are missing
      note: webcam/1 works with 7.1-arch1-1 (linux)
    error: zfs/2.4 for 7.2-arch1-1: make failed (exit status 2)
      cause: zfs.c:3:2: error: unknown type name 'vnode_t'
      means: no included header of this kernel defines vnode_t
      log: /var/lib/dkms/.log/zfs.log
      note: zfs/2.3 works with 7.1-arch1-1 (linux)
      note: this machine needs zfs, which is the driver of the root file system
    The transaction is aborted; nothing has been changed.
      for zfs/2.4, the repositories have zfs-dkms 2.5-1
      to upgrade everything else, run: pacman -Syu --ignore linux,linux-headers,nvidia-open
      to continue without zfs, run: dkms preflight --allow-once
        then repeat the pacman command
    ");
}

#[test]
fn modules_that_lack_the_same_headers_share_one_warning() {
    let lost = |module| regression(module, RegressionCause::NoHeaders, None);
    let fails = RegressionCause::DoesNotBuild(id("zfs/2.4"), complaint());
    let regressions = vec![lost("webcam/1"), regression("zfs/2.3", fails, None), lost("wifi/2")];
    let verdict = Verdict { regressions, ..Verdict::default() };
    insta::assert_snapshot!(text(&verdict, false, false), @"
    warning: webcam/1, wifi/2 for 7.2-arch1-1: cannot be built: the headers of linux for this kernel are missing
      note: they work with 7.1-arch1-1 (linux)
    warning: zfs/2.4 for 7.2-arch1-1: make failed (exit status 2)
      cause: zfs.c:3:2: error: unknown type name 'vnode_t'
      means: no included header of this kernel defines vnode_t
      log: /var/lib/dkms/.log/zfs.log
      note: zfs/2.3 works with 7.1-arch1-1 (linux)
    ");
}

#[test]
fn headers_can_be_added_to_the_transaction() {
    let critical = Some("is in /boot/initramfs-linux.img");
    let verdict = Verdict {
        regressions: vec![regression("zfs/2.3", RegressionCause::NoHeaders, critical)],
        ..Verdict::default()
    };
    insta::assert_snapshot!(text(&verdict, false, true), @"
    error: zfs/2.3 for 7.2-arch1-1: cannot be built: the headers of linux for this kernel are missing
      note: zfs/2.3 works with 7.1-arch1-1 (linux)
      note: this machine needs zfs, which is in /boot/initramfs-linux.img
    The transaction is aborted; nothing has been changed.
      for zfs/2.4, the repositories have zfs-dkms 2.5-1
      to install everything else, leave out linux, linux-headers, nvidia-open
      to get the headers, run: pacman -Syu linux-headers
      to continue without zfs, run: dkms preflight --allow-once
        then repeat the pacman command
    ");
}
