//! The testbed itself: real pacman, kernels in Arch's layout, and the real dkms building for them.

use stories::{Recipe, Root, find};

#[test]
fn real_dkms_builds_for_testbed_kernels() {
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
        assert_eq!(root.installed_objects(release), ["updates/dkms/tiny.ko.zst"]);
        root.assert_works(release, "tiny");
        assert_eq!(root.modinfo(release, "tiny", "version"), "1.0");
        assert_eq!(root.read(&format!("usr/lib/modules/{release}/pkgbase")).trim(), kernel.name);
    }
}

#[test]
fn kmod_hook_cleans_up_removed_kernels() {
    let root = Root::bare();
    root.install(&[find("linux-1")]);
    assert!(root.exists(&format!("usr/lib/modules/{}/modules.dep", find("linux-1").release())));
    root.install(&[find("linux-2")]);
    assert_eq!(root.kernels(), [find("linux-2").release()]);
    root.remove(&["linux"]);
    assert_eq!(root.kernels(), [""; 0]);
}

#[test]
fn compiler_starts_are_counted() {
    let root = Root::bare();
    let compilers = root.count_compilers();
    compilers.assert_none();
    root.shell("echo 'int main(){}' >/tmp/a.c && gcc -o /tmp/a /tmp/a.c").ok();
    assert_eq!(compilers.starts(), ["-o /tmp/a /tmp/a.c"]);
    compilers.assert_none();
}
