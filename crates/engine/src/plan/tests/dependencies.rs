//! Tests of BUILD_DEPENDS.

use super::*;

#[test]
fn dependencies_are_built_first() {
    let machine = TestMachine::new(&[K1]).module("spl/1").module("zfs/2").depends("zfs/2", "spl");
    let plan = machine.sync(&["zfs-2"], &[]);
    insta::assert_snapshot!(plan, @r"
    add spl/1
    add zfs/2
    build spl/1 for 7.2.12-arch1-1 (not built yet)
    install spl/1 for 7.2.12-arch1-1
    build zfs/2 for 7.2.12-arch1-1 (not built yet)
    install zfs/2 for 7.2.12-arch1-1
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn changed_dependency_rebuilds_its_dependents() {
    let spl = pair("spl/1", &kernel(K1)).inputs.unwrap().fingerprint();
    let plan = TestMachine::new(&[K1])
        .module("spl/1")
        .module("zfs/2")
        .depends("zfs/2", "spl")
        .installed("spl/1", K1)
        .installed("zfs/2", K1)
        .pair("zfs/2", K1, |pair| {
            let record = pair.built.as_mut().unwrap().record.as_mut().unwrap();
            record.inputs.depends.insert("spl".parse().unwrap(), spl);
        })
        .pair("spl/1", K1, |pair| pair.inputs.as_mut().unwrap().source = digest("new"))
        .sync(&["spl-1"], &[]);
    insta::assert_snapshot!(plan, @r"
    build spl/1 for 7.2.12-arch1-1 (source changed)
    install spl/1 for 7.2.12-arch1-1
    build zfs/2 for 7.2.12-arch1-1 (dependency spl changed)
    install zfs/2 for 7.2.12-arch1-1
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn circular_dependencies_fail_only_their_modules() {
    let plan = TestMachine::new(&[K1])
        .module("a/1")
        .module("b/1")
        .module("c/1")
        .depends("a/1", "b")
        .depends("b/1", "a")
        .sync(&[], &[K1]);
    let text = plan.to_string();
    assert!(text.contains("fail a/1") && text.contains("fail b/1"), "{text}");
    assert!(text.contains("build c/1"), "{text}");
}

#[test]
fn build_cached_without_its_dependency_is_not_restored() {
    let machine = TestMachine::new(&[K1])
        .module("spl/2")
        .module("zfs/2")
        .depends("zfs/2", "spl")
        .cached("spl/2", K1)
        // This build was made without spl.
        .cached("zfs/2", K1);
    insta::assert_snapshot!(machine.sync(&[], &[K1]), @r"
    add spl/2
    add zfs/2
    restore the build of spl/2 for 7.2.12-arch1-1 from the cache
    install spl/2 for 7.2.12-arch1-1
    build zfs/2 for 7.2.12-arch1-1 (not built yet)
    install zfs/2 for 7.2.12-arch1-1
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn adding_a_dependency_builds_skipped_dependents() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2")
        .depends("zfs/2", "spl")
        .module("spl/1")
        .sync(&["spl-1"], &[]);
    assert!(plan.to_string().contains("build zfs/2"), "{plan}");
}

#[test]
fn force_ignores_a_circular_dependency() {
    let self_circle = TestMachine::new(&[K1]).module("a/1").depends("a/1", "a");
    let circle = TestMachine::new(&[K1])
        .module("a/1")
        .module("b/1")
        .depends("a/1", "b")
        .depends("b/1", "a")
        .installed("b/1", K1);
    for machine in [self_circle, circle] {
        for verb in [Verb::Build, Verb::Install] {
            let plan = machine.command(verb, "a/1", &[K1]).unwrap().to_string();
            assert!(plan.contains("fail a/1 for 7.2.12-arch1-1: circular"), "{plan}");
            let plan = machine.forced(verb, "a/1", K1).to_string();
            assert!(plan.contains("build a/1 for 7.2.12-arch1-1 ("), "{plan}");
        }
    }
}

#[test]
fn forced_build_of_a_circle_is_installed_and_kept() {
    let self_circle = || TestMachine::new(&[K1]).module("a/1").depends("a/1", "a");
    let circle = || {
        let both = TestMachine::new(&[K1]).module("a/1").module("b/1");
        both.depends("a/1", "b").depends("b/1", "a").installed("b/1", K1)
    };
    let not_installed = |pair: &mut Pair| pair.built.as_mut().unwrap().installed = false;
    for machine in [self_circle(), circle()] {
        let built = machine.installed("a/1", K1).pair("a/1", K1, not_installed);
        let plan = built.command(Verb::Install, "a/1", &[K1]).unwrap().to_string();
        assert!(plan.starts_with("install a/1 for 7.2.12-arch1-1"), "{plan}");
        let plan = built.command(Verb::Build, "a/1", &[K1]).unwrap().to_string();
        assert!(!plan.contains("fail"), "{plan}");
        // Like dkms autoinstall, a transaction does not install the module.
        let plan = built.sync(&[], &[K1]).to_string();
        assert!(plan.contains("fail a/1 for 7.2.12-arch1-1: circular"), "{plan}");
    }
    for machine in [self_circle(), circle()] {
        // Each build changes the inputs of the modules that depend on it.
        let depends = |pair: &mut Pair| {
            let inputs = pair.inputs.as_mut().unwrap();
            inputs.depends.insert("a".parse().unwrap(), digest("a"));
        };
        let installed = machine.installed("a/1", K1).pair("a/1", K1, depends);
        let plan = installed.sync(&[], &[K1]).to_string();
        assert_eq!(plan, "", "{plan}");
        let changed = |pair: &mut Pair| pair.inputs.as_mut().unwrap().source = digest("new");
        let plan = installed.pair("a/1", K1, changed).sync(&[], &[K1]).to_string();
        assert!(plan.contains("fail a/1 for 7.2.12-arch1-1: circular"), "{plan}");
    }
}

#[test]
fn built_module_is_installed_without_its_dependencies() {
    let not_installed = |pair: &mut Pair| pair.built.as_mut().unwrap().installed = false;
    let machine = |depends: bool| {
        let machine = TestMachine::new(&[K1]).module("zfs/2").depends("zfs/2", "spl");
        machine.installed("zfs/2", K1).pair("zfs/2", K1, not_installed).pair("zfs/2", K1, |pair| {
            let record = pair.built.as_mut().unwrap().record.as_mut().unwrap();
            if depends {
                record.inputs.depends.insert("spl".parse().unwrap(), digest("spl"));
            }
        })
    };
    // First, the dependency was installed when the module was built. Then, the build was forced
    // without it.
    for depends in [true, false] {
        let plan = machine(depends).command(Verb::Install, "zfs/2", &[K1]).unwrap().to_string();
        assert!(plan.starts_with("install zfs/2 for 7.2.12-arch1-1"), "{plan}");
    }
    // A build that has to be repeated needs its dependencies.
    let changed = |pair: &mut Pair| pair.inputs.as_mut().unwrap().source = digest("new");
    let changed = machine(true).pair("zfs/2", K1, changed);
    let plan = changed.command(Verb::Install, "zfs/2", &[K1]).unwrap().to_string();
    assert!(plan.contains("fail zfs/2 for 7.2.12-arch1-1: depends on spl"), "{plan}");
}
