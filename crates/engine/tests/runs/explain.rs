//! Tests of the explanations of a module's state.

use dkms_engine::explain::{Explanation, ModuleState, explain};
use dkms_engine::plan::{Request, Verb};

use crate::fixture::{Fixture, K1, K2, kernel};

/// Explains the only version of `foo` for [`K1`].
fn explained(fixture: &Fixture) -> Explanation {
    let (name, kernel) = ("foo".parse().unwrap(), kernel(K1));
    let mut all = explain(&fixture.machine(), &name, None, Some(&[kernel])).unwrap();
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn state(fixture: &Fixture) -> (ModuleState, Vec<String>) {
    let Explanation { state, notes, failure, .. } = explained(fixture);
    assert_eq!(failure, None);
    (state, notes)
}

#[test]
fn an_installed_module_needs_no_reason() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.install();
    assert_eq!(state(&fixture), (ModuleState::Installed, Vec::new()));
}

#[test]
fn the_next_step_has_the_reason_of_the_plan() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let next = |what: &str| format!("next: {what}\n  run: dkms autoinstall -k {K1}");
    let build = next(&format!("build foo/1.0 for {K1} (not built yet)"));
    let not_added = format!("run: dkms install foo/1.0 -k {K1}");
    assert_eq!(state(&fixture), (ModuleState::NotAdded, vec![not_added]));
    fixture.command(Verb::Add, "foo/1.0");
    fixture.root.write("etc/dkms/no-autoinstall", "");
    let disabled = "autoinstall is disabled by /etc/dkms/no-autoinstall".to_owned();
    assert_eq!(state(&fixture), (ModuleState::Added, vec![build, disabled.clone()]));
    fixture.command(Verb::Build, "foo/1.0");
    let install = next(&format!("install foo/1.0 for {K1} (built but not installed)"));
    assert_eq!(state(&fixture), (ModuleState::Built, vec![install, disabled]));
}

#[test]
fn a_failure_is_pending_until_its_attempts_are_used_up() {
    let mut fixture = Fixture::new();
    let full = "MAKE='echo as: x.o: No space left on device; exit 1'";
    fixture.root.source("foo", "1.0").conf_line(full);
    fixture.sync(&["foo-1.0"], &[]);
    let pending = explained(&fixture);
    assert_eq!(pending.state, ModuleState::Pending);
    assert_eq!(
        pending.notes,
        ["the next transaction or boot will retry (attempts so far: 1 of 3)"]
    );
    assert_eq!(pending.failure.unwrap().cause, Some("disk-full"));
    fixture.sync(&[], &[]);
    fixture.sync(&[], &[]);
    let parked = explained(&fixture);
    assert_eq!(parked.state, ModuleState::Parked);
    let want = "skipped after 3 attempts without success\n  run: dkms autoinstall";
    assert_eq!(parked.notes, [want]);
}

#[test]
fn a_message_of_the_engine_is_a_cause_too() {
    let mut fixture = Fixture::new();
    let line = format!("MAKE='make -C /usr/lib/modules/{K2}/build M=$PWD KERNEL={K2}'");
    let root = fixture.root.path().display().to_string();
    let line = line.replace("/usr/lib", &format!("{root}/usr/lib"));
    fixture.root.kernel(K2).headers();
    fixture.root.source("foo", "1.0").conf_line(&line);
    fixture.install();
    let failure = explained(&fixture).failure.unwrap();
    assert_eq!(failure.cause, Some("object-for-another-kernel"), "{failure:#?}");
    assert_eq!(
        failure.remedy.as_deref(),
        Some("set MAKE[0] in /etc/dkms/foo.conf; see: dkms.conf(5)")
    );
}

#[test]
fn an_older_version_names_the_newer_one() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.source("foo", "2.0");
    fixture.run(&Request::Autoinstall { kernels: None, only: false });
    let (name, version) = ("foo".parse().unwrap(), "1.0".parse().unwrap());
    let all = explain(&fixture.machine(), &name, Some(&version), None).unwrap();
    let notes: Vec<_> = all.iter().flat_map(|explanation| &explanation.notes).collect();
    assert_eq!(notes, ["foo/2.0 is the version that is installed automatically"]);
}

#[test]
fn a_kernel_that_does_not_exist_is_named() {
    let fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let (name, gone) = ("foo".parse().unwrap(), kernel("9.9"));
    let all = explain(&fixture.machine(), &name, None, Some(&[gone])).unwrap();
    let notes: Vec<_> = all.iter().flat_map(|explanation| &explanation.notes).collect();
    assert_eq!(notes, [&format!("no such kernel in /usr/lib/modules (installed: {K1})")]);
}

#[test]
fn an_unknown_module_is_refused() {
    let fixture = Fixture::new();
    let refusal = explain(&fixture.machine(), &"foo".parse().unwrap(), None, None).unwrap_err();
    assert_eq!(refusal.code, 3);
}
