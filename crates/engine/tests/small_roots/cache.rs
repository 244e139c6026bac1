//! What was built once is not compiled again.

use super::*;

/// A kernel package is replaced by one of another release.
fn change_kernel(machine: &mut TestMachine, from: &str, to: &str) {
    machine.root.remove(format!("usr/lib/modules/{from}"));
    machine.root.kernel(to).pkgbase("linux").headers();
    clean(&machine.sync(&[], &[from, to]));
}

#[test]
fn a_kernel_downgrade_starts_no_make() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let built = format!("var/lib/dkms/foo/1.0/{K1}");
    let before = machine.root.listing(&built);
    change_kernel(&mut machine, K1, K2);
    assert_eq!(machine.builds(), 2);
    assert!(!machine.root.exists(&built));

    change_kernel(&mut machine, K2, K1);
    assert_eq!(machine.builds(), 2, "it was compiled again");
    assert!(machine.installed(K1, "foo.ko"));
    assert_eq!(machine.root.listing(&built), before);
    assert_eq!(machine.plan(&sync(&["foo-1.0"], &[K1])).steps, []);
    // The source was kept, too, and removal finds what was placed.
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.installed(K1, "foo.ko"));
}

#[test]
fn a_release_that_comes_back_with_other_symbols_is_compiled() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    change_kernel(&mut machine, K1, K2);
    machine.root.remove(format!("usr/lib/modules/{K2}"));
    let symbols = "0x87654321\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n";
    machine.root.kernel(K1).pkgbase("linux").headers().file("build/Module.symvers", symbols);
    let plan = machine.plan(&sync(&[], &[K1, K2])).to_string();
    assert!(plan.contains("(not built yet)"), "{plan}");
    clean(&machine.sync(&[], &[K1, K2]));
    assert_eq!(machine.builds(), 3);
}

#[test]
fn a_module_that_is_installed_again_is_found_in_the_cache() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.root.exists("var/lib/dkms/foo"));
    machine.root.source("foo", "1.0");
    let plan = machine.plan(&sync(&["foo-1.0"], &[])).to_string();
    assert!(plan.contains("(not built yet; found in the cache)"), "{plan}");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert_eq!(machine.builds(), 1);
    assert!(machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists("var/lib/dkms/.kept/foo-1.0"));
}

#[test]
fn what_is_damaged_in_the_cache_is_compiled_again() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    change_kernel(&mut machine, K1, K2);
    let cached = machine.root.at("var/lib/dkms/.cache/objects");
    for entry in fs::read_dir(cached).unwrap().flatten() {
        fs::write(entry.path().join("built/module/foo.ko"), "half").unwrap();
    }
    change_kernel(&mut machine, K2, K1);
    assert_eq!(machine.builds(), 3);
    assert!(machine.installed(K1, "foo.ko"));
    assert_ne!(machine.root.read(format!("usr/lib/modules/{K1}/vmlinuz")), "half");
    // And is kept for the next time.
    change_kernel(&mut machine, K1, K2);
    assert_eq!(machine.builds(), 4);
    change_kernel(&mut machine, K2, K1);
    assert_eq!(machine.builds(), 4);
}

#[test]
fn the_cache_has_a_bound() {
    let mut machine = TestMachine::with_kernel(K1);
    for module in ["bar", "foo"] {
        let dir = format!("{module}-1.0");
        machine.root.source(module, "1.0").file("big.txt", "big");
        clean(&machine.sync(&[&dir], &[]));
        machine.root.remove(format!("usr/src/{dir}"));
        clean(&machine.sync(&[&dir], &[]));
    }
    let entries = BuildCache::of(&machine.machine().trees).entries();
    let sizes: Vec<u64> = entries.iter().map(|entry| entry.size).collect();
    let room = sizes.iter().sum::<u64>() + sizes[0] / 2;
    machine.root.write("etc/dkms/alpm-dkms.toml", format!("[cache]\nsize = {room}\n"));
    // bar is of use once more; so it is foo that goes when another one comes.
    machine.root.source("bar", "1.0").file("big.txt", "big");
    clean(&machine.sync(&["bar-1.0"], &[]));
    machine.root.source("baz", "1.0");
    clean(&machine.sync(&["baz-1.0"], &[]));
    let left: BTreeSet<String> = BuildCache::of(&machine.machine().trees)
        .entries()
        .into_iter()
        .map(|entry| entry.module.to_string())
        .collect();
    assert_eq!(left, ["bar/1.0", "baz/1.0"].map(String::from).into());
    assert_eq!(machine.builds(), 3);

    // None at all.
    machine.root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.root.exists("var/lib/dkms/.cache/objects"));
}
