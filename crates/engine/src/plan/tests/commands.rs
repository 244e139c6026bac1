//! What a person or a package asks for.

use super::*;

use crate::conf::Autoinstall;
use crate::dkms_tree::PendingWork;
use crate::facts::{Built, Pair, SourceLink};
use crate::plan::{Request, Verb};

#[test]
fn commands_refuse_in_dkmss_way() {
    let machine = TestMachine::new(&[K1]).module("zfs/2.4").installed("zfs/2.4", K1).module("x/1");
    let code = |verb, name: &str| machine.command(verb, name, &[K1]).unwrap_err().code;
    assert_eq!(code(Verb::Remove, "x/1"), 3, "not added");
    assert_eq!(code(Verb::Install, "y/1"), 2, "no source");
    assert_eq!(code(Verb::Add, "zfs/2.4"), 3, "added already");
    assert_eq!(code(Verb::Add, "y/1"), 2, "no source");
    let broken = machine.change("zfs/2.4", |m| m.link = SourceLink::Broken);
    assert_eq!(broken.command(Verb::Remove, "zfs/2.4", &[K1]).unwrap_err().code, 4);
}

#[test]
fn remove_forgets_a_module_with_its_last_kernel() {
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .installed("zfs/2.4", K2);
    let one = machine.command(Verb::Remove, "zfs/2.4", &[K1]).unwrap();
    assert!(!one.to_string().contains("forget zfs/2.4\n"), "{one}");
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
    uninstall zfs/2.4 from 7.2.12-arch1-1 (asked for)
    forget what was built of zfs/2.4 for 7.2.12-arch1-1 (asked for)
    uninstall zfs/2.4 from 7.2.13-arch1-1 (asked for)
    forget what was built of zfs/2.4 for 7.2.13-arch1-1 (asked for)
    forget zfs/2.4 (asked for)
    index the modules of 7.2.12-arch1-1 (depmod)
    index the modules of 7.2.13-arch1-1 (depmod)
    ");
}

#[test]
fn autoinstall_finishes_pending_work_though_the_running_kernel_has_no_headers() {
    let machine = TestMachine::new(&[K2])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2")
        .change("zfs/2", |m| m.link = SourceLink::Source);
    let request = Request::Autoinstall { kernels: Some(vec![kernel(K1)]) };
    assert_eq!(make(&request, &machine.0).unwrap_err().code, 21);
    let plan = make(&request, &machine.pending(PendingWork::Kernel(kernel(K2))).0).unwrap();
    assert!(plan.to_string().contains("install zfs/2 for 7.2.13"), "{plan}");
}

fn not_installed(pair: &mut Pair) {
    pair.built = Some(Built { in_place: true, ..Built::default() });
}

#[test]
fn match_does_for_one_kernel_what_was_done_for_another() {
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
    assert!(ask(Some("x")).unwrap().is_empty(), "only built");
    assert_eq!(ask(Some("y")).unwrap_err().code, 3, "not in the tree");
}

#[test]
fn a_kernel_that_comes_or_goes_takes_its_builds() {
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
fn all_kernels_are_those_with_headers() {
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
    note: 7.2.11-copy belongs to no package (a copy kept until the next boot): left alone
    note: zfs/2.4 is not meant for 6.18-lts: BUILD_EXCLUSIVE_KERNEL
    note: 7.2.12-arch1-1 (linux) has no headers: install linux-headers
    add zfs/2.4
    build zfs/2.4 for 7.2.13-arch1-1 (asked for; not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    index the modules of 7.2.13-arch1-1 (depmod)
    ");
    insta::assert_snapshot!(make(&for_all(Verb::Build, "zfs/2.4"), &machine.0).unwrap(), @r"
    note: 7.2.11-copy belongs to no package (a copy kept until the next boot): left alone
    note: zfs/2.4 is not meant for 6.18-lts: BUILD_EXCLUSIVE_KERNEL
    note: 7.2.12-arch1-1 (linux) has no headers: install linux-headers
    add zfs/2.4
    build zfs/2.4 for 7.2.13-arch1-1 (asked for; not built yet)
    ");
}

#[test]
fn what_is_built_is_installed_for_all_kernels() {
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .installed("zfs/2.4", K2)
        .pair("zfs/2.4", K1, not_installed)
        .kernel(K1, without_headers);
    insta::assert_snapshot!(make(&for_all(Verb::Install, "zfs/2.4"), &machine.0).unwrap(), @r"
    note: zfs/2.4 is already installed for 7.2.13-arch1-1
    install zfs/2.4 for 7.2.12-arch1-1 (asked for)
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn all_kernels_may_be_none() {
    let code = |machine: &TestMachine| {
        let refusal = make(&for_all(Verb::Install, "zfs/2.4"), &machine.0).unwrap_err();
        (refusal.code, refusal.message)
    };
    let machine = TestMachine::new(&[]).kernel(K1, without_headers).module("zfs/2.4");
    let message = format!("{K1} (linux) has no headers: install linux-headers");
    assert_eq!(code(&machine), (21, message));
    let machine = TestMachine::new(&[]).module("zfs/2.4");
    assert_eq!(code(&machine), (21, "no installed kernel has headers".into()));
}

#[test]
fn autoinstall_for_all_kernels() {
    let machine = TestMachine::new(&[K2, "6.18-lts"])
        .kernel(K1, without_headers)
        .module("zfs/2.4")
        .installed("zfs/2.4", "6.18-lts");
    let plan = make(&Request::Autoinstall { kernels: None }, &machine.0).unwrap();
    insta::assert_snapshot!(plan, @r"
    note: 7.2.12-arch1-1 (linux) has no headers: install linux-headers
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    index the modules of 7.2.13-arch1-1 (depmod)
    ");
    let machine = TestMachine::new(&[])
        .kernel(K1, without_headers)
        .module("zfs/2.4")
        .change("zfs/2.4", |m| m.link = SourceLink::Source);
    assert_eq!(make(&Request::Autoinstall { kernels: None }, &machine.0).unwrap_err().code, 21);
}

#[test]
fn autoinstall_names_the_kernels_that_have_headers() {
    let message = |others: &[&str]| {
        let machine = TestMachine::new(others)
            .kernel(K1, without_headers)
            .module("zfs/2.4")
            .change("zfs/2.4", |m| m.link = SourceLink::Source);
        let request = Request::Autoinstall { kernels: Some(vec![kernel(K1)]) };
        make(&request, &machine.0).unwrap_err().message
    };
    insta::assert_snapshot!(message(&[K2]), @r"
    7.2.12-arch1-1 (linux) has no headers: install linux-headers
      7.2.13-arch1-1 has headers; run: dkms autoinstall -k 7.2.13-arch1-1
    ");
    insta::assert_snapshot!(message(&[K2, "6.18-lts"]), @r"
    7.2.12-arch1-1 (linux) has no headers: install linux-headers
      6.18-lts, 7.2.13-arch1-1 have headers; run: dkms autoinstall --all
    ");
    insta::assert_snapshot!(message(&[]), @"7.2.12-arch1-1 (linux) has no headers: install linux-headers");
}
