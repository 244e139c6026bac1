//! The testbed itself: pacman is real, kernels are in Arch's layout, and the real dkms builds modules for them.

use stories::{Recipe, Root, find};

#[test]
fn the_real_dkms_builds_for_our_kernels() {
    let root = Root::bare();
    let kernels = ["linux-1", "linux-headers-1", "linux-lts-1", "linux-lts-headers-1"].map(find);
    let module = Recipe::module("tiny", "1.0").field("provides", "dkms").make(&root);
    root.install(&[&kernels[..], &[module]].concat());
    for kernel in [find("linux-1"), find("linux-lts-1")] {
        let release = kernel.release();
        root.peer_dkms(&["install", "tiny/1.0", "-k", release])
            .ok()
            .lacks("differs")
            .lacks("Error");
        assert_eq!(root.placed(release), ["updates/dkms/tiny.ko.zst"]);
        root.assert_works(release, "tiny");
        assert_eq!(root.modinfo(release, "tiny", "version"), "1.0");
        assert_eq!(root.read(&format!("usr/lib/modules/{release}/pkgbase")).trim(), kernel.name);
    }
}

#[test]
fn kmods_hook_sweeps_dead_kernels() {
    let root = Root::bare();
    root.install(&[find("linux-1")]);
    assert!(root.exists(&format!("usr/lib/modules/{}/modules.dep", find("linux-1").release())));
    root.install(&[find("linux-2")]);
    assert_eq!(root.kernels(), [find("linux-2").release()]);
    root.remove(&["linux"]);
    assert_eq!(root.kernels(), [""; 0]);
}

#[test]
fn compilers_are_counted() {
    let root = Root::bare();
    let compilers = root.count_compilers();
    compilers.assert_none();
    root.shell("echo 'int main(){}' >/tmp/a.c && gcc -o /tmp/a /tmp/a.c").ok();
    assert_eq!(compilers.starts(), ["-o /tmp/a /tmp/a.c"]);
    compilers.assert_none();
}
