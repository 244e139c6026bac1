//! Tests of planning commands.

use super::*;

use crate::conf::Autoinstall;
use crate::dkms_tree::PendingWork;
use crate::facts::{Built, Pair, SourceLink};
use crate::plan::{Request, Verb};

#[test]
fn refusals_have_the_exit_codes_of_dkms() {
    let machine = TestMachine::new(&[K1]).module("zfs/2.4").installed("zfs/2.4", K1).module("x/1");
    let code = |verb, name: &str| machine.command(verb, name, &[K1]).unwrap_err().code;
    assert_eq!(code(Verb::Remove, "x/1"), 3, "not added");
    assert_eq!(code(Verb::Install, "y/1"), 2, "no source");
    assert_eq!(code(Verb::Add, "zfs/2.4"), 3, "already added");
    assert_eq!(code(Verb::Add, "y/1"), 2, "no source");
    let broken = machine.change("zfs/2.4", |m| m.link = SourceLink::Broken);
    assert_eq!(broken.command(Verb::Remove, "zfs/2.4", &[K1]).unwrap_err().code, 4);
}

#[test]
fn removing_the_last_build_removes_the_module() {
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .installed("zfs/2.4", K2);
    let one = machine.command(Verb::Remove, "zfs/2.4", &[K1]).unwrap();
    assert!(!one.to_string().contains("remove zfs/2.4 "), "{one}");
    let all = make(
        &Request::Command {
            verb: Verb::Remove,
            module: id("zfs/2.4"),
            kernels: None,
            force: false,
        },
        &machine.0,
    )
    .unwrap();
    insta::assert_snapshot!(all, @r"
    uninstall zfs/2.4 from 7.2.12-arch1-1 (requested)
    delete the build of zfs/2.4 for 7.2.12-arch1-1 (requested)
    uninstall zfs/2.4 from 7.2.13-arch1-1 (requested)
    delete the build of zfs/2.4 for 7.2.13-arch1-1 (requested)
    remove zfs/2.4 (requested)
    run depmod for 7.2.12-arch1-1
    run depmod for 7.2.13-arch1-1
    ");
}

#[test]
fn autoinstall_without_headers_still_finishes_pending_work() {
    let machine = TestMachine::new(&[K2])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2")
        .change("zfs/2", |m| m.link = SourceLink::Source);
    let request = Request::Autoinstall { kernels: Some(vec![kernel(K1)]), only: false };
    assert_eq!(make(&request, &machine.0).unwrap_err().code, 21);
    let plan = make(&request, &machine.pending(PendingWork::Kernel(kernel(K2))).0).unwrap();
    assert!(plan.to_string().contains("install zfs/2 for 7.2.13"), "{plan}");
}

fn not_installed(pair: &mut Pair) {
    pair.built = Some(Built { in_place: true, ..Built::default() });
}

#[test]
fn match_installs_the_modules_of_another_kernel() {
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .module("x/1")
        .installed("x/1", K1)
        .pair("x/1", K1, not_installed)
        .module("y/1");
    let ask = |module: Option<&str>| {
        let module = module.map(|name| name.parse().unwrap());
        let (template, kernel) = (kernel(K1), kernel(K2));
        make(&Request::Match { template, kernel, module, force: false }, &machine.0)
    };
    let steps = ["build zfs/2.4 for 7.2.13-arch1-1", "install zfs/2.4 for 7.2.13-arch1-1"];
    for plan in [ask(None), ask(Some("zfs"))] {
        let text = plan.unwrap().to_string();
        assert!(steps.iter().all(|step| text.contains(step)), "{text}");
        assert!(!text.contains("x/1"), "{text}");
    }
    assert!(ask(Some("x")).unwrap().is_empty(), "built but not installed");
    assert_eq!(ask(Some("y")).unwrap_err().code, 3, "not added");
}

#[test]
fn clear_deletes_the_builds_of_all_or_autoinstalled_modules() {
    let machine = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .module("x/1")
        .installed("x/1", K1)
        .pair("x/1", K1, |pair| {
            if let Some(Ok(conf)) = &mut pair.conf {
                conf.autoinstall = Autoinstall::Unset;
            }
        });
    let ask = |only_willing| {
        make(&Request::Clear { kernel: kernel(K1), only_willing }, &machine.0).unwrap().to_string()
    };
    assert!(ask(true).contains("uninstall zfs/2.4") && !ask(true).contains("x/1"), "{}", ask(true));
    assert!(ask(false).contains("zfs/2.4") && ask(false).contains("x/1"), "{}", ask(false));
}

fn for_all(verb: Verb, name: &str) -> Request {
    Request::Command { verb, module: id(name), kernels: None, force: false }
}

fn without_headers(about: &mut KernelFacts) {
    (about.kernel.headers, about.inputs) = (None, None);
}

#[test]
fn all_selects_kernels_with_headers() {
    let machine = TestMachine::new(&[K2, "6.18-lts"])
        .kernel(K1, without_headers)
        .kernel("7.2.11-copy", |about| about.owned = false)
        .kernel("7.2.10-gone", |about| about.kernel.alive = false)
        .module("zfs/2.4")
        .pair("zfs/2.4", "6.18-lts", |pair| {
            let conf = pair.conf.as_mut().unwrap().as_mut().unwrap();
            conf.excluded = Some("BUILD_EXCLUSIVE_KERNEL".into());
        });
    insta::assert_snapshot!(make(&for_all(Verb::Install, "zfs/2.4"), &machine.0).unwrap(), @r"
    note: 7.2.11-copy: skipped: not owned by a package; may be a copy kept until the next boot
    note: zfs/2.4: skipped for 6.18-lts: BUILD_EXCLUSIVE_KERNEL
    note: 7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
    add zfs/2.4
    build zfs/2.4 for 7.2.13-arch1-1 (requested; not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    run depmod for 7.2.13-arch1-1
    ");
    insta::assert_snapshot!(make(&for_all(Verb::Build, "zfs/2.4"), &machine.0).unwrap(), @r"
    note: 7.2.11-copy: skipped: not owned by a package; may be a copy kept until the next boot
    note: zfs/2.4: skipped for 6.18-lts: BUILD_EXCLUSIVE_KERNEL
    note: 7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
    add zfs/2.4
    build zfs/2.4 for 7.2.13-arch1-1 (requested; not built yet)
    ");
}

#[test]
fn all_installs_existing_builds_without_headers() {
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .installed("zfs/2.4", K2)
        .pair("zfs/2.4", K1, not_installed)
        .kernel(K1, without_headers);
    insta::assert_snapshot!(make(&for_all(Verb::Install, "zfs/2.4"), &machine.0).unwrap(), @r"
    note: zfs/2.4: already installed for 7.2.13-arch1-1
    install zfs/2.4 for 7.2.12-arch1-1 (requested)
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn all_is_refused_without_headers() {
    let code = |machine: &TestMachine| {
        let refusal = make(&for_all(Verb::Install, "zfs/2.4"), &machine.0).unwrap_err();
        (refusal.code, refusal.message)
    };
    let machine = TestMachine::new(&[]).kernel(K1, without_headers).module("zfs/2.4");
    let message = format!("{K1}: no kernel headers installed\n  run: pacman -S linux-headers");
    assert_eq!(code(&machine), (21, message));
    let machine = TestMachine::new(&[]).module("zfs/2.4");
    assert_eq!(code(&machine), (21, "no kernel headers installed".into()));
}

#[test]
fn autoinstall_skips_kernels_without_headers() {
    let machine = TestMachine::new(&[K2, "6.18-lts"])
        .kernel(K1, without_headers)
        .module("zfs/2.4")
        .installed("zfs/2.4", "6.18-lts");
    let plan = make(&Request::Autoinstall { kernels: None, only: false }, &machine.0).unwrap();
    insta::assert_snapshot!(plan, @r"
    note: 7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    run depmod for 7.2.13-arch1-1
    ");
    let machine = TestMachine::new(&[])
        .kernel(K1, without_headers)
        .module("zfs/2.4")
        .change("zfs/2.4", |m| m.link = SourceLink::Source);
    assert_eq!(
        make(&Request::Autoinstall { kernels: None, only: false }, &machine.0).unwrap_err().code,
        21
    );
}

#[test]
fn autoinstall_refusal_lists_kernels_with_headers() {
    let message = |others: &[&str]| {
        let machine = TestMachine::new(others)
            .kernel(K1, without_headers)
            .module("zfs/2.4")
            .change("zfs/2.4", |m| m.link = SourceLink::Source);
        let request = Request::Autoinstall { kernels: Some(vec![kernel(K1)]), only: false };
        make(&request, &machine.0).unwrap_err().message
    };
    insta::assert_snapshot!(message(&[K2]), @r"
    7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
      headers are installed for 7.2.13-arch1-1
      run: dkms autoinstall -k 7.2.13-arch1-1
    ");
    insta::assert_snapshot!(message(&[K2, "6.18-lts"]), @r"
    7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
      headers are installed for 6.18-lts, 7.2.13-arch1-1
      run: dkms autoinstall --all
    ");
    insta::assert_snapshot!(message(&[]), @r"
    7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
    ");
}
