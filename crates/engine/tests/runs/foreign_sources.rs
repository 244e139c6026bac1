//! Tests of sources that other users can change, and of sources with special files.

#![expect(
    clippy::disallowed_methods,
    reason = "prepares and inspects files, outside of the engine"
)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use dkms_engine::plan::Verb;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use rstest::rstest;
use testroot::TestRoot;

use crate::fixture::{Fixture, K1, K2, assert_clean, sync};

const SOURCE: &str = "usr/src/foo-1.0";

fn owners_and_modes(root: &TestRoot) -> [(u32, u32); 2] {
    ["", "foo.c"].map(|path| {
        let meta = fs::metadata(root.at(SOURCE).join(path)).unwrap();
        (meta.uid(), meta.mode())
    })
}

/// Returns a fixture with two kernels, and a module whose PRE_BUILD script writes a list to
/// `usr/open`: the files in the build directory that other users can change.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.root.kernel(K2).pkgbase("linux-lts").headers();
    let open = fixture.root.at("usr/open");
    let user = Uid::effective();
    let find = format!("find . ! -uid {user} -o ! -type l -perm /022 >>{}", open.display());
    fixture.script("PRE_BUILD", &find);
    fixture
}

/// Each case is a shell command in `usr/src`, and a part of the warning.
#[rstest]
#[case::owner("chown -R 1234:1234 .", "/foo-1.0: users other than root can change the source\n")]
#[case::group("chgrp 1234 foo-1.0/foo.c; chmod g+w foo-1.0/foo.c", "/foo.c: users other than root")]
#[case::others(
    "mkdir -p foo-1.0/a/b; chmod 777 foo-1.0/a/b",
    "/a/b: users other than root can change"
)]
#[case::directory_above("chmod 777 .", "/usr/src: users other than root can replace the source")]
#[ignore = "needs root: run make unit"]
fn the_copies_of_an_open_source_belong_to_root(#[case] open: &str, #[case] warning: &str) {
    let mut fixture = fixture();
    let dir = fixture.root.at("usr/src");
    assert!(Command::new("sh").args(["-c", open]).current_dir(dir).status().unwrap().success());
    let before = owners_and_modes(&fixture.root);
    let report = fixture.sync(&["foo-1.0"], &[]);
    assert!(report.is_clean(), "{:?} {:?}", report.failures().collect::<Vec<_>>(), report.errors);
    let [said] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(said.starts_with("foo/1.0: ") && said.contains(warning), "{said}");
    assert_eq!(fixture.root.read("usr/open"), "");
    let kept = fixture.root.at("var/lib/dkms/.kept/foo-1.0");
    let open = ["!", "-uid", "0", "-o", "-perm", "/022"];
    let found = Command::new("find").arg(&kept).args(open).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    assert_eq!(owners_and_modes(&fixture.root), before);
    // Nothing is built, so there is no warning.
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
}

#[rstest]
#[case::fifo("pipe", "FIFO")]
#[case::socket("sub/socket", "socket")]
fn special_files_are_no_part_of_a_source(#[case] name: &str, #[case] kind: &str) {
    let mut fixture = fixture();
    fixture.root.dir("usr/src/foo-1.0/sub");
    let special = fixture.root.at(SOURCE).join(name);
    let listener = match kind {
        "FIFO" => mkfifo(&special, Mode::S_IRWXU).map(|()| None).unwrap(),
        _ => Some(UnixListener::bind(&special).unwrap()),
    };
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let note = format!("note: foo/1.0: {}: skipped: {kind}", special.display());
    assert_eq!(fixture.output.lines, [note]);
    assert!(!fixture.root.exists(format!("var/lib/dkms/.kept/foo-1.0/{name}")));
    // The digest of the source stays the same when the special file is removed, and when the source
    // is removed.
    let builds = fixture.builds();
    assert_eq!(builds, 2);
    drop(listener);
    fs::remove_file(&special).unwrap();
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove(SOURCE);
    assert_clean(&fixture.run(&sync(&[], &[K1, K2])));
    assert_eq!(fixture.builds(), builds);
}

/// A source may contain a link at the path to which the administrator's patches are copied.
#[rstest]
#[case::directory("patches")]
#[case::file("patches/a.patch")]
fn patches_are_not_copied_through_links(#[case] link: &str) {
    let mut fixture = fixture();
    let trap = fixture.root.at("usr/trap");
    if link == "patches" {
        fs::create_dir_all(&trap).unwrap();
    } else {
        fs::write(&trap, "before").unwrap();
    }
    fixture.root.link(format!("{SOURCE}/{link}"), &trap);
    fixture.root.write("etc/dkms/foo/patches/a.patch", "not applied");
    let fifo = fixture.root.at("etc/dkms/foo/patches/pipe");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let report = fixture.command(Verb::Build, "foo/1.0");
    assert_clean(&report);
    match link {
        "patches" => assert_eq!(fs::read_dir(&trap).unwrap().count(), 0),
        _ => assert_eq!(fs::read_to_string(&trap).unwrap(), "before"),
    }
}

/// git refuses to work in another user's directory. Its exception for the user of sudo does not
/// apply in a hook.
#[test]
#[ignore = "needs root and git: run make unit"]
fn git_works_in_the_build_of_a_foreign_checkout() {
    let mut fixture = Fixture::new();
    let said = fixture.root.at("usr/said");
    let git = format!("PATH=$PATH:/usr/local/bin; git log -1 --format=%s >{}", said.display());
    fixture.script("PRE_BUILD", &git);
    let make = "git init -q && git -c user.name=a -c user.email=b commit -q --allow-empty -m first \
                && chown -R 1234:1234 .";
    let dir = fixture.root.at(SOURCE);
    assert!(Command::new("sh").args(["-c", make]).current_dir(dir).status().unwrap().success());
    let report = fixture.sync(&["foo-1.0"], &[]);
    assert!(report.is_clean(), "{:?}", report.failures().collect::<Vec<_>>());
    assert_eq!(fixture.root.read("usr/said"), "first\n");
}
