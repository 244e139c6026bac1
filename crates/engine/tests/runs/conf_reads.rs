//! How often a run reads a dkms.conf.

use testroot::FakeSource;

use crate::fixture::{Fixture, K1, K2, clean};

/// A module whose conf notes each time that it is asked.
fn noting<'a>(fixture: &'a Fixture, name: &str) -> FakeSource<'a> {
    let file = fixture.root.path().join("asked");
    fixture
        .root
        .source(name, "1.0")
        .conf_line(&format!("echo {name} $kernelver >>{}; sleep 0.01", file.display()))
}

/// Who was asked since the last time.
fn asked(fixture: &Fixture) -> Vec<String> {
    let text = fixture.root.read("asked");
    fixture.root.write("asked", "");
    let mut asked: Vec<String> = text.lines().map(str::to_owned).collect();
    asked.sort();
    asked
}

#[test]
fn a_conf_is_asked_once_for_a_kernel() {
    let mut fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        noting(&fixture, name);
    }
    clean(&fixture.sync(&[], &[K1]));
    asked(&fixture);

    fixture.root.kernel(K2).pkgbase("linux").headers();
    clean(&fixture.sync(&[], &[K2]));
    let once = ["a", "b", "c"].map(|name| format!("{name} {K2}"));
    assert_eq!(asked(&fixture), once);
    for name in ["a", "b", "c"] {
        assert!(fixture.root.exists(format!("usr/lib/modules/{K2}/updates/dkms/{name}.ko")));
    }
}

#[test]
fn a_conf_is_asked_again_when_what_it_builds_upon_is_there() {
    let mut fixture = Fixture::new();
    fixture.root.source("spl", "1.0");
    let built = fixture.root.path().join("var/lib/dkms/spl/1.0");
    noting(&fixture, "zfs")
        .conf_line("BUILD_DEPENDS=spl")
        .conf_line(&format!("[[ -d {}/$kernelver ]] && BUILT_MODULE_NAME=zfs", built.display()));
    clean(&fixture.sync(&[], &[K1]));
    asked(&fixture);

    fixture.root.kernel(K2).pkgbase("linux").headers();
    clean(&fixture.sync(&[], &[K2]));
    assert_eq!(asked(&fixture), [format!("zfs {K2}"), format!("zfs {K2}")]);
}
