//! Tests that a run evaluates each dkms.conf as rarely as possible.

use testroot::FakeSource;

use crate::fixture::{Fixture, K1, K2, assert_clean};

/// Adds a module whose dkms.conf records each evaluation.
fn recording<'a>(fixture: &'a Fixture, name: &str) -> FakeSource<'a> {
    let file = fixture.root.path().join("evaluated");
    fixture
        .root
        .source(name, "1.0")
        .conf_line(&format!("echo {name} $kernelver >>{}; sleep 0.01", file.display()))
}

/// Returns the evaluations since the last call of this function, as sorted lines `MODULE KERNEL`.
fn evaluations(fixture: &Fixture) -> Vec<String> {
    let text = fixture.root.read("evaluated");
    fixture.root.write("evaluated", "");
    let mut evaluations: Vec<String> = text.lines().map(str::to_owned).collect();
    evaluations.sort();
    evaluations
}

#[test]
fn conf_is_evaluated_once_for_each_kernel() {
    let mut fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        recording(&fixture, name);
    }
    assert_clean(&fixture.sync(&[], &[K1]));
    evaluations(&fixture);

    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K2]));
    let once = ["a", "b", "c"].map(|name| format!("{name} {K2}"));
    assert_eq!(evaluations(&fixture), once);
    for name in ["a", "b", "c"] {
        assert!(fixture.root.exists(format!("usr/lib/modules/{K2}/updates/dkms/{name}.ko")));
    }
}

#[test]
fn conf_is_evaluated_again_after_its_dependency_has_been_built() {
    let mut fixture = Fixture::new();
    fixture.root.source("spl", "1.0");
    let built = fixture.root.path().join("var/lib/dkms/spl/1.0");
    recording(&fixture, "zfs")
        .conf_line("BUILD_DEPENDS=spl")
        .conf_line(&format!("[[ -d {}/$kernelver ]] && BUILT_MODULE_NAME=zfs", built.display()));
    assert_clean(&fixture.sync(&[], &[K1]));
    evaluations(&fixture);

    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K2]));
    assert_eq!(evaluations(&fixture), [format!("zfs {K2}"), format!("zfs {K2}")]);
}
