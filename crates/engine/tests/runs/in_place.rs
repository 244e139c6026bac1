//! Tests that a module counts as installed only if the objects of its build are in place and
//! depmod's index lists them.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use dkms_engine::plan::{Request, Verb};
use rstest::rstest;
use testroot::kernel_object;

use crate::fixture::{BUILT, Fixture, K1, PLACED, assert_clean, sync};

fn is_current(fixture: &Fixture) -> bool {
    let read = |path: &str| fs::read(fixture.root.at(path)).unwrap();
    read(PLACED) == read(&format!("{BUILT}/module/foo.ko"))
}

fn change_source(fixture: &Fixture) {
    fixture.root.write("usr/src/foo-1.0/foo.c", "/* new */\nMODULE_VERSION(\"1.0\");\n");
}

#[test]
fn installation_after_a_build_replaces_the_old_object() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.install());
    change_source(&fixture);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    assert!(!is_current(&fixture));
    assert_clean(&fixture.install());
    assert!(is_current(&fixture));
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
}

#[test]
fn transaction_after_a_build_installs_its_objects() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.source("foo", "1.0").objects(&["foo", "more"]);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    let builds = fixture.builds();
    assert_clean(&fixture.sync(&[], &[K1]));
    assert_eq!(fixture.builds(), builds);
    assert!(is_current(&fixture) && fixture.installed(K1, "more.ko"));
    // An object that is no longer built is removed.
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    assert_clean(&fixture.run(&Request::Autoinstall { kernels: None, only: false }));
    assert!(!fixture.installed(K1, "more.ko"));
}

#[rstest]
#[case::removed(&["modules.dep", "modules.dep.bin", "modules.alias", "modules.symbols"], None)]
#[case::one_missing(&["modules.alias.bin"], None)]
#[case::without_the_module(&[], Some("kernel/fs/fake.ko:\n"))]
#[case::older(&[], Some(""))]
fn missing_or_outdated_index_is_written_again(
    #[case] removed: &[&str],
    #[case] text: Option<&str>,
) {
    let requests = [
        sync(&["foo-1.0"], &[]),
        Request::Autoinstall { kernels: None, only: false },
        Request::Command {
            verb: Verb::Install,
            module: "foo/1.0".parse().unwrap(),
            kernels: Some(vec![K1.parse().unwrap()]),
            force: false,
        },
    ];
    for request in requests {
        let mut fixture = Fixture::new();
        fixture.root.source("foo", "1.0");
        assert_clean(&fixture.install());
        let dir = fixture.root.at(format!("usr/lib/modules/{K1}"));
        assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
        removed.iter().for_each(|name| fs::remove_file(dir.join(name)).unwrap());
        match text {
            Some("") => {
                let file = File::options().append(true).open(dir.join("modules.dep")).unwrap();
                file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
            }
            Some(text) => fs::write(dir.join("modules.dep"), text).unwrap(),
            None => {}
        }
        fixture.root.forget_calls();
        assert_clean(&fixture.run(&request));
        assert_eq!(fixture.root.calls("depmod").len(), 1, "{request:?}");
        assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
        let dep = fs::read_to_string(dir.join("modules.dep")).unwrap();
        assert!(dep.contains("updates/dkms/foo.ko:"), "{dep}");
    }
}

#[rstest]
#[case::by_override("override foo * kernel/fs\n", "override foo * kernel/fs")]
#[case::by_search("search  built-in updates\n", "search built-in updates")]
fn file_that_modprobe_prefers_is_named(#[case] setting: &str, #[case] line: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let own = format!("usr/lib/modules/{K1}/kernel/fs/foo.ko");
    fixture.root.write(&own, kernel_object(K1, "foo", &["version=0.1"]));
    fixture.root.write("etc/depmod.d/x.conf", setting);
    let report = fixture.sync(&["foo-1.0"], &[]);
    assert_eq!(report.exit_code(), 0);
    let (own, file) = (fixture.root.at(own), fixture.root.at("etc/depmod.d/x.conf"));
    assert_eq!(
        report.warnings,
        [format!(
            "foo/1.0 for {K1}: modprobe loads {} instead of updates/dkms/foo.ko: {}: {line}\n  \
             see: depmod.d(5)",
            own.display(),
            file.display()
        )]
    );
    let calls = fixture.root.calls("depmod");
    assert!(calls[0].contains(&format!("-C {}", file.parent().unwrap().display())), "{calls:?}");
    // The index lists the module, but names the kernel's own file.
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
}
