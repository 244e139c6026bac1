use dkms_engine::machine::Kernel;
use rstest::rstest;

use super::*;

fn release(text: &str) -> KernelRelease {
    text.parse().unwrap()
}

/// Returns a kernel of the package `linux` with these modules, each installed with one object of
/// the same name.
fn installed(kernel: &str, modules: &[&str]) -> InstalledKernel {
    let modules = modules.iter().map(|id| {
        let id: ModuleId = id.parse().unwrap();
        let objects = [id.name.as_str().to_owned()].into();
        (id.name.clone(), InstalledModule { id, objects })
    });
    InstalledKernel {
        kernel: Kernel {
            release: release(kernel),
            dir: format!("/usr/lib/modules/{kernel}").into(),
            alive: true,
            headers: None,
            config: None,
            pkgbase: None,
            package: Some("linux".into()),
        },
        modules: modules.collect(),
    }
}

fn fails() -> TriedResult {
    TriedResult::Fails(Complaint::new("make failed"))
}

/// The results of a trial of one module, or of no module, for a kernel of `package`.
fn results(module: Option<&str>, kernel: &str, package: &str, result: TriedResult) -> TrialResults {
    let module = module.map(|id| id.parse().unwrap());
    TrialResults {
        tried: vec![Tried { module, kernel: Some(release(kernel)), result }],
        packages: [(release(kernel), package.to_owned())].into(),
    }
}

/// Returns the regressions as text: the installed module, and whether it is critical.
fn regressions(results: &TrialResults, installed: &[InstalledKernel]) -> Vec<String> {
    let critical = |module: &InstalledModule, _: &InstalledKernel| {
        (module.id.name.as_str() == "zfs").then(|| "root".to_owned())
    };
    let verdict = Verdict::of(results, installed, &BTreeSet::new(), critical);
    let text = |it: &Regression| {
        format!(
            "{} {}{}",
            it.installed.id,
            it.works_for,
            if it.critical.is_some() { " !" } else { "" }
        )
    };
    verdict.regressions.iter().map(text).collect()
}

#[rstest]
#[case::upgrade(Some("foo/2"), "7.2", "linux", &["foo/1 7.1"])]
#[case::critical(Some("zfs/2"), "7.2", "linux", &["zfs/1 7.1 !"])]
#[case::no_headers(None, "7.2", "linux", &["foo/1 7.1", "zfs/1 7.1 !"])]
#[case::another_kernel(Some("foo/2"), "7.2-zen", "linux-zen", &[])]
#[case::not_installed(Some("bar/2"), "7.2", "linux", &[])]
#[case::stays_installed(Some("foo/2"), "7.1", "linux", &[])]
fn a_module_is_lost_if_it_works_for_the_package_now(
    #[case] module: Option<&str>,
    #[case] kernel: &str,
    #[case] package: &str,
    #[case] want: &[&str],
) {
    let result = if module.is_some() { fails() } else { TriedResult::NoHeaders };
    let installed = [installed("7.1", &["foo/1", "zfs/1"])];
    assert_eq!(regressions(&results(module, kernel, package, result), &installed), want);
}

#[test]
fn a_module_is_lost_once_if_several_kernels_of_the_package_have_it() {
    let installed = [installed("7.0", &["foo/1"]), installed("7.1", &["foo/2"])];
    let results = results(Some("foo/2"), "7.2", "linux", fails());
    assert_eq!(regressions(&results, &installed), ["foo/2 7.1"]);
}

#[rstest]
#[case::installed_now("zfs/1", &["AUTOINSTALL"])]
#[case::not_installed("other/1", &[])]
fn a_lost_module_that_is_not_built_automatically_causes_a_warning(
    #[case] module: &str,
    #[case] warnings: &[&str],
) {
    let installed = [installed("7.1", &["zfs/1"])];
    let left_alone = TriedResult::LeftAlone("AUTOINSTALL".into());
    let results = results(Some(module), "7.2", "linux", left_alone);
    let verdict = Verdict::of(&results, &installed, &BTreeSet::new(), |_, _| Some(String::new()));
    assert!(!verdict.aborts(PreflightMode::Critical));
    assert_eq!(verdict.warnings, warnings);
}

#[test]
fn an_unknown_result_is_no_regression() {
    let unknown = TriedResult::Unknown("disk full".into());
    let results = results(Some("zfs/2"), "7.2", "linux", unknown);
    let verdict =
        Verdict::of(&results, &[installed("7.1", &["zfs/1"])], &BTreeSet::new(), |_, _| {
            Some(String::new())
        });
    assert!(!verdict.aborts(PreflightMode::Critical));
    assert_eq!(verdict.unknown, [(Some("zfs/2".parse().unwrap()), "disk full".to_owned())]);
}

#[test]
fn other_failures_are_kept() {
    let results = results(Some("new/1"), "7.2", "linux", fails());
    let verdict =
        Verdict::of(&results, &[installed("7.1", &["zfs/1"])], &BTreeSet::new(), |_, _| None);
    assert!(verdict.regressions.is_empty());
    assert_eq!(verdict.failures.len(), 1);
}

#[test]
fn a_module_that_the_kernel_contains_is_not_lost() {
    let results = results(Some("zfs/2"), "7.2", "linux", fails());
    let own = ["zfs".to_owned()].into();
    let verdict = Verdict::of(&results, &[installed("7.1", &["zfs/1"])], &own, |_, _| None);
    assert!(verdict.regressions.is_empty());
    assert_eq!(verdict.failures[0].module.to_string(), "zfs/2");
}

#[test]
fn the_old_version_stays_if_the_kernel_does() {
    let results = results(Some("foo/2"), "7.1", "linux", fails());
    let now = [installed("7.1", &["foo/1"])];
    let verdict = Verdict::of(&results, &now, &BTreeSet::new(), |_, _| None);
    assert_eq!(verdict.failures[0].stays, Some("foo/1".parse().unwrap()));
}
