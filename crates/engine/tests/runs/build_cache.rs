//! Tests of the build cache.

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::dkms_tree::BuildCache;
use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean, sync};

/// Replaces the kernel `from` with the kernel `to`, and runs the request of the hook.
fn change_kernel(fixture: &mut Fixture, from: &str, to: &str) {
    fixture.root.remove(format!("usr/lib/modules/{from}"));
    fixture.root.kernel(to).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[from, to]));
}

#[test]
fn kernel_downgrade_runs_no_make() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let built = format!("var/lib/dkms/foo/1.0/{K1}");
    let before = fixture.root.listing(&built);
    change_kernel(&mut fixture, K1, K2);
    assert_eq!(fixture.builds(), 2);
    assert!(!fixture.root.exists(&built));

    change_kernel(&mut fixture, K2, K1);
    assert_eq!(fixture.builds(), 2, "the module was compiled again");
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(fixture.root.listing(&built), before);
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
    // The source has been kept too, so the module can be removed.
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.installed(K1, "foo.ko"));
}

#[test]
fn module_is_compiled_for_a_returning_kernel_with_other_symbols() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    change_kernel(&mut fixture, K1, K2);
    fixture.root.remove(format!("usr/lib/modules/{K2}"));
    let symbols = "0x87654321\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n";
    fixture.root.kernel(K1).pkgbase("linux").headers().file("build/Module.symvers", symbols);
    let plan = fixture.plan(&sync(&[], &[K1, K2])).to_string();
    assert!(plan.contains("(not built yet)"), "{plan}");
    assert_clean(&fixture.sync(&[], &[K1, K2]));
    assert_eq!(fixture.builds(), 3);
}

/// The environments of the first and the second build, and the number of modules compiled.
#[rstest]
#[case::without_the_flags(&[("KCFLAGS", "-g")], &[], 2)]
#[case::other_value(&[("OWN_SWITCH", "1")], &[("OWN_SWITCH", "0")], 2)]
#[case::other_terminal(&[("TERM", "linux"), ("LLVM", "1")], &[("LLVM", "1")], 1)]
fn build_is_restored_only_in_the_same_environment(
    #[case] first: &[(&str, &str)],
    #[case] second: &[(&str, &str)],
    #[case] builds: usize,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    for variables in [first, second] {
        let mut machine = fixture.machine();
        for (name, value) in variables {
            machine.env = machine.env.clone().with(*name, *value);
        }
        assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
        assert_clean(&fixture.command(Verb::Unbuild, "foo/1.0"));
    }
    assert_eq!(fixture.builds(), builds);
}

/// Each case replaces the directory of the kept sources, so that nothing can be kept in it.
#[rstest]
#[case::file(|fixture: &Fixture, kept: &str| fixture.root.write(kept, ""))]
#[case::dangling_link(|fixture: &Fixture, kept: &str| {
    fixture.root.link(kept, "/srv/missing/kept");
})]
fn restored_build_is_published_after_its_source_is_kept(#[case] block: impl Fn(&Fixture, &str)) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_clean(&fixture.command(Verb::Unbuild, "foo/1.0"));
    let kept = "var/lib/dkms/.kept";
    fixture.root.remove(kept);
    block(&fixture, kept);
    assert!(!fixture.command(Verb::Install, "foo/1.0").is_clean());
    fixture.root.remove(kept);
    assert_clean(&fixture.command(Verb::Install, "foo/1.0"));
    assert_eq!(fixture.builds(), 1);
    assert!(fixture.root.exists(format!("{kept}/foo-1.0/dkms.conf")));
}

#[test]
fn reinstalled_module_is_restored_from_the_cache() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.root.exists("var/lib/dkms/foo"));
    fixture.root.source("foo", "1.0");
    let plan = fixture.plan(&sync(&["foo-1.0"], &[])).to_string();
    assert!(plan.contains("restore the build of foo/1.0 for "), "{plan}");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fixture.builds(), 1);
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists("var/lib/dkms/.kept/foo-1.0"));
}

#[test]
fn module_with_a_damaged_cache_entry_is_compiled_again() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    change_kernel(&mut fixture, K1, K2);
    let cached = fixture.root.at("var/lib/dkms/.cache/objects");
    for entry in fs::read_dir(cached).unwrap().flatten() {
        fs::write(entry.path().join("built/module/foo.ko"), "half").unwrap();
    }
    change_kernel(&mut fixture, K2, K1);
    assert_eq!(fixture.builds(), 3);
    assert!(fixture.installed(K1, "foo.ko"));
    assert_ne!(fixture.root.read(format!("usr/lib/modules/{K1}/vmlinuz")), "half");
    // The new build is cached.
    change_kernel(&mut fixture, K1, K2);
    assert_eq!(fixture.builds(), 4);
    change_kernel(&mut fixture, K2, K1);
    assert_eq!(fixture.builds(), 4);
}

#[test]
fn cache_size_is_limited() {
    let mut fixture = Fixture::new();
    for module in ["bar", "foo"] {
        let dir = format!("{module}-1.0");
        fixture.root.source(module, "1.0").file("big.txt", "big");
        assert_clean(&fixture.sync(&[&dir], &[]));
        fixture.root.remove(format!("usr/src/{dir}"));
        assert_clean(&fixture.sync(&[&dir], &[]));
    }
    let entries = BuildCache::of(&fixture.machine().trees).entries();
    let sizes: Vec<u64> = entries.iter().map(|entry| entry.size).collect();
    let room = sizes.iter().sum::<u64>() + sizes[0] / 2;
    fixture.root.write("etc/dkms/alpm-dkms.toml", format!("[cache]\nsize = {room}\n"));
    // bar is used again, so adding baz evicts foo from the cache.
    fixture.root.source("bar", "1.0").file("big.txt", "big");
    assert_clean(&fixture.sync(&["bar-1.0"], &[]));
    fixture.root.source("baz", "1.0");
    assert_clean(&fixture.sync(&["baz-1.0"], &[]));
    let left: BTreeSet<String> = BuildCache::of(&fixture.machine().trees)
        .entries()
        .into_iter()
        .map(|entry| entry.module.to_string())
        .collect();
    assert_eq!(left, ["bar/1.0", "baz/1.0"].map(String::from).into());
    assert_eq!(fixture.builds(), 3);

    // A size of 0 disables the cache.
    fixture.root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(BuildCache::of(&fixture.machine().trees).entries().len(), 0);
}

/// Adds the module foo/1.0 with `lines` in its dkms.conf, and a file `effect.sh` that runs
/// `script`. In both, ROOT stands for the test root. The file `undo.sh` of the module removes the
/// file `$effect`.
fn module_with_effect(fixture: &Fixture, lines: &str, script: &str) {
    let root = fixture.root.path().display().to_string();
    let script = format!("#!/bin/sh\neffect={root}/effect\n{script}\n").replace("ROOT", &root);
    fixture.root.source("foo", "1.0").conf_line(&lines.replace("ROOT", &root));
    fixture.root.executable("usr/src/foo-1.0/effect.sh", &script);
    let undo = format!("#!/bin/sh\nrm -f {root}/effect\n");
    fixture.root.executable("usr/src/foo-1.0/undo.sh", &undo);
}

#[rstest]
#[case::copied_from_the_build("POST_BUILD=effect.sh\nPOST_REMOVE=undo.sh", "cp foo.ko $effect")]
#[case::of_a_failing_copy(
    "POST_BUILD=effect.sh\nPOST_INSTALL=true.sh\nPOST_REMOVE=undo.sh",
    "cp foo.ko $effect || :"
)]
#[case::before_the_build("PRE_BUILD=effect.sh\nPOST_REMOVE=undo.sh", "touch $effect")]
#[case::before_the_build_of_a_module_with_other_scripts(
    "PRE_BUILD=effect.sh\nPOST_INSTALL=true.sh\nPOST_REMOVE=undo.sh",
    "touch $effect"
)]
#[case::of_make(
    "MAKE=\"make KERNELRELEASE=$kernelver -C ROOT/usr/lib/modules/$kernelver/build M=$dkms_tree/foo/1.0/build; ./effect.sh\"\nPOST_REMOVE=undo.sh",
    "cp foo.ko $effect"
)]
#[case::in_the_source("PRE_BUILD=effect.sh", "touch ROOT/usr/src/foo-1.0/a.h $effect")]
fn module_that_is_installed_again_has_every_effect_of_its_build(
    #[case] lines: &str,
    #[case] script: &str,
) {
    let mut fixture = Fixture::new();
    module_with_effect(&fixture, lines, script);
    assert_clean(&fixture.install());
    assert!(fixture.root.exists("effect"));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    if fixture.root.exists("effect") {
        fixture.root.remove("effect");
    }
    assert_clean(&fixture.install());
    assert!(fixture.root.exists("effect"));
}

#[rstest]
#[case::into_the_kernels_directory(
    "install -D foo.ko ROOT/usr/lib/modules/$kernelver/extra/symbols"
)]
#[case::beside_the_objects(
    "cp foo.ko ../$kernelver/$arch/symbols; mkdir ROOT/usr/lib/modules/$kernelver/extra; \
     cp foo.ko ROOT/usr/lib/modules/$kernelver/extra/symbols"
)]
fn returning_kernel_has_every_effect_of_a_build(#[case] script: &str) {
    let mut fixture = Fixture::new();
    module_with_effect(&fixture, "POST_BUILD=effect.sh", script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    change_kernel(&mut fixture, K1, K2);
    change_kernel(&mut fixture, K2, K1);
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists(format!("usr/lib/modules/{K1}/extra/symbols")));
}

#[rstest]
#[case::post_build_of_zfs(
    "zfs",
    "POST_BUILD=\"scripts/dkms.postbuild\n  -k $kernelver\n  -a $arch\""
)]
#[case::pre_build_alone("foo", "PRE_BUILD=scripts/dkms.postbuild")]
#[case::scripts_that_run_for_every_installation(
    "foo",
    "POST_INSTALL=scripts/dkms.postbuild\nPOST_REMOVE=scripts/dkms.postbuild"
)]
fn build_without_other_effects_is_restored(#[case] module: &str, #[case] lines: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source(module, "1.0").conf_line(lines);
    let script =
        "#!/bin/sh\nfor dir in ../$kernelver/$arch/module; do cp $dir/* $dir/..; done\n:\n";
    let source = format!("{module}-1.0");
    fixture.root.executable(format!("usr/src/{source}/scripts/dkms.postbuild"), script);
    assert_clean(&fixture.sync(&[&source], &[]));
    let built = format!("var/lib/dkms/{module}/1.0/{K1}");
    let before = fixture.root.listing(&built);
    change_kernel(&mut fixture, K1, K2);
    change_kernel(&mut fixture, K2, K1);
    assert_eq!(fixture.builds(), 2, "the module was compiled again");
    assert_eq!(fixture.root.listing(&built), before);
}
