//! Plans from made-up facts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use super::{Note, Plan, Refusal, Request, Verb, make};
use crate::cache::Key;
use crate::conf::{Autoinstall, Values};
use crate::debts::Debt;
use crate::digest::{Digest, KernelIdentity};
use crate::facts::{
    Built, ConfFacts, Facts, KernelFacts, ModuleFacts, Pair, Problem, SourceLink, SourcePlace,
};
use crate::kernels::Kernel;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::record::{Failure, Inputs, Record};

const K1: &str = "7.2.12-arch1-1";
const K2: &str = "7.2.13-arch1-1";

fn digest(text: &str) -> Digest {
    Digest::of_bytes(text.as_bytes())
}

fn kernel(release: &str) -> KernelRelease {
    release.parse().unwrap()
}

fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

/// A machine on paper: each method puts one more thing on it.
struct Machine(Facts);

impl Machine {
    fn new(kernels: &[&str]) -> Self {
        let mut machine = Self(Facts {
            arch: Arch::of_this_machine(),
            kernels: BTreeMap::new(),
            modules: BTreeMap::new(),
            cached: HashSet::new(),
            lacking: BTreeMap::new(),
            debts: Vec::new(),
            kernels_known: true,
            import: None,
            no_autoinstall: false,
            problems: Vec::new(),
        });
        for release in kernels {
            machine.0.kernels.insert(kernel(release), kernel_facts(release, true));
        }
        machine
    }

    fn kernel(mut self, release: &str, change: impl FnOnce(&mut KernelFacts)) -> Self {
        let mut facts = kernel_facts(release, true);
        change(&mut facts);
        self.0.kernels.insert(kernel(release), facts);
        self
    }

    /// A module in the source tree, known to dkms if anything is built of it.
    fn module(mut self, name: &str) -> Self {
        let pairs = self.0.kernels.keys().map(|k| (k.clone(), pair(name, k))).collect();
        let module = ModuleFacts {
            source_dir: id(name).source_dir(),
            source: SourcePlace::Present,
            link: SourceLink::None,
            elsewhere: false,
            pairs,
        };
        self.0.modules.insert(id(name), module);
        self
    }

    fn change(mut self, name: &str, change: impl Fn(&mut ModuleFacts)) -> Self {
        change(self.0.modules.get_mut(&id(name)).unwrap());
        self
    }

    fn pair(mut self, name: &str, release: &str, change: impl Fn(&mut Pair)) -> Self {
        let module = self.0.modules.get_mut(&id(name)).unwrap();
        change(module.pairs.get_mut(&kernel(release)).unwrap());
        self
    }

    fn installed(self, name: &str, release: &str) -> Self {
        self.change(name, |module| module.link = SourceLink::Source).pair(name, release, |pair| {
            let record = record(name, release, pair.inputs.clone().unwrap());
            pair.built = Some(Built {
                record: Some(record),
                installed: true,
                in_place: true,
                ..Built::default()
            });
        })
    }

    fn depends(self, name: &str, on: &str) -> Self {
        self.change(name, |module| {
            for pair in module.pairs.values_mut() {
                if let Some(Ok(conf)) = &mut pair.conf {
                    conf.depends = vec![on.parse().unwrap()];
                }
            }
        })
    }

    /// The package with this source was removed; we kept a copy.
    fn gone(self, name: &str) -> Self {
        self.change(name, |module| {
            module.source = SourcePlace::Kept;
            module.link = SourceLink::Mendable;
        })
    }

    /// The cache has what would be built.
    fn cached(mut self, name: &str, release: &str) -> Self {
        let inputs = self.0.pair(&id(name), &kernel(release)).unwrap().inputs.clone().unwrap();
        self.0.cached.insert(Key::of(&id(name), &self.0.arch, &inputs));
        self
    }

    fn owes(mut self, debt: Debt) -> Self {
        self.0.debts.push(debt);
        self
    }

    fn sync(&self, sources: &[&str], kernels: &[&str]) -> Plan {
        let sources = sources.iter().map(|dir| (*dir).to_owned()).collect();
        let kernels = kernels.iter().map(|release| kernel(release)).collect();
        make(&Request::Sync { sources, kernels }, &self.0).unwrap()
    }

    fn command(&self, verb: Verb, name: &str, kernels: &[&str]) -> Result<Plan, Refusal> {
        let kernels = Some(kernels.iter().map(|release| kernel(release)).collect());
        make(&Request::Command { verb, module: id(name), kernels, force: false }, &self.0)
    }

    fn forced(&self, verb: Verb, name: &str, release: &str) -> Plan {
        let kernels = Some(vec![kernel(release)]);
        make(&Request::Command { verb, module: id(name), kernels, force: true }, &self.0).unwrap()
    }
}

fn kernel_facts(release: &str, alive: bool) -> KernelFacts {
    let dir = PathBuf::from("/usr/lib/modules").join(release);
    KernelFacts {
        inputs: Some(identity(release)),
        owned: true,
        kernel: Kernel {
            release: kernel(release),
            headers: Some(dir.join("build")),
            config: None,
            dir,
            alive,
            pkgbase: Some("linux".into()),
        },
    }
}

fn identity(release: &str) -> KernelIdentity {
    KernelIdentity {
        release: kernel(release),
        config: Some(digest("config")),
        symvers: Some(digest("symvers")),
        headers: Some(digest(release)),
    }
}

fn pair(name: &str, release: &KernelRelease) -> Pair {
    Pair {
        conf: Some(Ok(ConfFacts {
            depends: Vec::new(),
            autoinstall: Autoinstall::Yes,
            excluded: None,
        })),
        values: Some(Values::default()),
        inputs: Some(Inputs {
            source: digest(name),
            overrides: digest(""),
            conf: digest("conf"),
            kernel: identity(release.as_str()),
            depends: BTreeMap::new(),
        }),
        built: None,
        failure: None,
    }
}

fn record(name: &str, release: &str, inputs: Inputs) -> Record {
    Record {
        format: crate::record::FORMAT,
        module: id(name),
        kernel: kernel(release),
        arch: Arch::of_this_machine(),
        adopted: false,
        build_seconds: 1,
        compiler: String::new(),
        inputs,
        values: Values::default(),
        objects: Vec::new(),
        placed: Vec::new(),
        signing: None,
    }
}

#[test]
fn a_new_kernel_gets_every_module() {
    let plan = Machine::new(&[K1, K2])
        .module("zfs/2.4")
        .module("nvidia/595")
        .installed("zfs/2.4", K1)
        .installed("nvidia/595", K1)
        .sync(&[], &[K2]);
    insta::assert_snapshot!(plan, @r"
    build nvidia/595 for 7.2.13-arch1-1 (not built yet)
    install nvidia/595 for 7.2.13-arch1-1
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    index the modules of 7.2.13-arch1-1 (depmod)
    ");
}

#[test]
fn a_new_source_is_built_for_every_kernel() {
    let plan = Machine::new(&[K1, K2]).module("zfs/2.4").sync(&["zfs-2.4"], &[]);
    insta::assert_snapshot!(plan, @r"
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.12-arch1-1
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    index the modules of 7.2.13-arch1-1 (depmod)
    ");
}

#[test]
fn unchanged_inputs_cost_nothing() {
    let plan =
        Machine::new(&[K1]).module("zfs/2.4").installed("zfs/2.4", K1).sync(&["zfs-2.4"], &[K1]);
    assert_eq!(plan.steps, []);
}

#[test]
fn a_changed_symbol_table_is_a_reason() {
    let plan = Machine::new(&[K1])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .pair("zfs/2.4", K1, |pair| {
            pair.inputs.as_mut().unwrap().kernel.symvers = Some(digest("other"));
        })
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    build zfs/2.4 for 7.2.12-arch1-1 (the kernel's symbols changed (Module.symvers))
    install zfs/2.4 for 7.2.12-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn what_builds_upon_another_follows_it() {
    let machine = Machine::new(&[K1]).module("spl/1").module("zfs/2").depends("zfs/2", "spl");
    let plan = machine.sync(&["zfs-2"], &[]);
    insta::assert_snapshot!(plan, @r"
    add spl/1
    build spl/1 for 7.2.12-arch1-1 (not built yet)
    install spl/1 for 7.2.12-arch1-1
    add zfs/2
    build zfs/2 for 7.2.12-arch1-1 (not built yet)
    install zfs/2 for 7.2.12-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn a_changed_dependency_is_a_reason_for_what_builds_upon_it() {
    let spl = pair("spl/1", &kernel(K1)).inputs.unwrap().fingerprint();
    let plan = Machine::new(&[K1])
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
    build spl/1 for 7.2.12-arch1-1 (its source changed)
    install spl/1 for 7.2.12-arch1-1
    build zfs/2 for 7.2.12-arch1-1 (spl, which it builds upon, changed)
    install zfs/2 for 7.2.12-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn a_circle_of_dependencies_fails_its_modules_only() {
    let plan = Machine::new(&[K1])
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
fn a_version_bump_replaces_and_then_retires_the_old_one() {
    let plan = Machine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .sync(&["zfs-2.3", "zfs-2.4"], &[]);
    insta::assert_snapshot!(plan, @r"
    use the kept source of zfs/2.3
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.12-arch1-1 in place of 2.3
    forget what was built of zfs/2.3 for 7.2.12-arch1-1
    forget zfs/2.3
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn the_old_version_stays_where_the_new_one_failed() {
    let failed = Failure {
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/var/lib/dkms/.log/zfs.log"),
    };
    let machine = Machine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    let plan = machine.sync(&["zfs-2.3"], &[]);
    insta::assert_snapshot!(plan, @r"
    note: zfs/2.4 did not build for 7.2.12-arch1-1 before and nothing changed (zfs/2.3 stays installed): zfs.c:1: error: no; log: /var/lib/dkms/.log/zfs.log; try again: dkms install zfs/2.4 -k 7.2.12-arch1-1
    note: zfs/2.3 stays installed for 7.2.12-arch1-1: the version that replaces it is not installed there
    use the kept source of zfs/2.3
    ");
    assert_eq!(plan.settles, [].into(), "the removal stays owed");
    let plan = machine.owes(Debt::Source("zfs-2.3".into())).gone("zfs/2.4").sync(&["zfs-2.4"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2.3") && text.contains("forget zfs/2.3"), "{text}");
}

#[test]
fn an_old_object_goes_where_the_new_version_is_not_meant() {
    let plan = Machine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| {
            pair.conf.as_mut().unwrap().as_mut().unwrap().excluded = Some("not here".into());
        })
        .sync(&["zfs-2.3", "zfs-2.4"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2.3 from"), "{text}");
}

#[test]
fn a_missing_source_that_nobody_removed_is_left_alone() {
    let machine = Machine::new(&[K1]).module("zfs/2.3").installed("zfs/2.3", K1).gone("zfs/2.3");
    let plan = machine.sync(&["vhba-1"], &[]);
    assert_eq!(plan.steps, []);
    assert!(matches!(&plan.notes[..], [Note::SourceMissing { .. }]), "{plan}");
}

#[test]
fn a_removed_kernel_takes_its_builds_along() {
    let plan = Machine::new(&[K2])
        .kernel(K1, |k| (k.kernel.alive, k.kernel.headers) = (false, None))
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    uninstall zfs/2.4 from 7.2.12-arch1-1
    forget what was built of zfs/2.4 for 7.2.12-arch1-1
    remove what is left of 7.2.12-arch1-1
    ");
}

#[test]
fn removed_headers_remove_nothing() {
    let plan = Machine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2.4")
        .change("zfs/2.4", |module| module.link = SourceLink::Source)
        .pair("zfs/2.4", K1, |pair| {
            pair.built = Some(Built { installed: true, in_place: true, ..Built::default() });
            (pair.conf, pair.inputs) = (None, None);
        })
        .sync(&[], &[K1]);
    assert_eq!((plan.steps, plan.notes), (vec![], vec![]));
}

#[test]
fn a_kernel_without_headers_is_told_its_package() {
    let plan = Machine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2.4")
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @"note: 7.2.12-arch1-1 (linux) has no headers: install linux-headers");
}

#[test]
fn headers_of_another_release_are_a_partial_upgrade() {
    let plan = Machine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .kernel(K2, |k| k.kernel.alive = false)
        .module("zfs/2.4")
        .sync(&[], &[K1]);
    assert!(matches!(&plan.notes[..], [Note::NoHeaders { other: Some(_), .. }]), "{plan}");
}

#[test]
fn a_copy_of_a_kernel_is_left_alone() {
    let plan = Machine::new(&[])
        .kernel(K1, |k| k.owned = false)
        .module("zfs/2.4")
        .sync(&["zfs-2.4"], &[K1]);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.notes, [Note::Copy(kernel(K1))]);
    let left = Debt::LeftOver(kernel(K1));
    assert!(plan.owes.contains(&left) && !plan.settles.contains(&left), "{:?}", plan.owes);
}

#[test]
fn a_known_failure_is_told_and_not_repeated() {
    let failed = Failure {
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/log"),
    };
    let machine = Machine::new(&[K1])
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    insta::assert_snapshot!(machine.sync(&[], &[K1]), @"note: zfs/2.4 did not build for 7.2.12-arch1-1 before and nothing changed: zfs.c:1: error: no; log: /log; try again: dkms install zfs/2.4 -k 7.2.12-arch1-1");
    let plan = machine.command(Verb::Install, "zfs/2.4", &[K1]).unwrap();
    assert!(plan.to_string().contains("build zfs/2.4"), "asked for: {plan}");
    let changed = machine.pair("zfs/2.4", K1, |pair| {
        pair.inputs.as_mut().unwrap().source = digest("mended");
    });
    assert!(changed.sync(&[], &[K1]).to_string().contains("build zfs/2.4"));
}

#[test]
fn what_is_in_the_cache_is_not_compiled() {
    let failed = Failure {
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/log"),
    };
    let machine = Machine::new(&[K1, K2])
        .module("zfs/2.4")
        .cached("zfs/2.4", K1)
        // Since then, say, a compiler that it is too old for came.
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    insta::assert_snapshot!(machine.sync(&[], &[K1, K2]), @r"
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet; found in the cache)
    install zfs/2.4 for 7.2.12-arch1-1
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    index the modules of 7.2.13-arch1-1 (depmod)
    ");
    let plan = machine.forced(Verb::Build, "zfs/2.4", K1);
    assert!(!plan.steps.iter().any(super::Step::is_cached), "{plan}");
    let changed = machine.pair("zfs/2.4", K1, |pair| {
        pair.inputs.as_mut().unwrap().kernel.symvers = Some(digest("others"));
    });
    assert!(!changed.sync(&[], &[K1]).steps.iter().any(super::Step::is_cached));
}

#[test]
fn what_builds_upon_a_change_is_not_found_in_the_cache() {
    let machine = Machine::new(&[K1])
        .module("spl/2")
        .module("zfs/2")
        .depends("zfs/2", "spl")
        .cached("spl/2", K1)
        // Of a zfs that was built upon nothing.
        .cached("zfs/2", K1);
    insta::assert_snapshot!(machine.sync(&[], &[K1]), @r"
    add spl/2
    build spl/2 for 7.2.12-arch1-1 (not built yet; found in the cache)
    install spl/2 for 7.2.12-arch1-1
    add zfs/2
    build zfs/2 for 7.2.12-arch1-1 (not built yet)
    install zfs/2 for 7.2.12-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn one_bad_conf_fails_one_module() {
    let plan = Machine::new(&[K1])
        .module("bad/1")
        .module("zfs/2.4")
        .pair("bad/1", K1, |pair| {
            pair.conf = Some(Err(Problem { message: "dkms.conf: no".into(), code: 8 }));
        })
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    fail bad/1 for 7.2.12-arch1-1: dkms.conf: no
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.12-arch1-1
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn what_dkms_built_is_taken_over() {
    let plan = Machine::new(&[K1])
        .module("zfs/2.4")
        .change("zfs/2.4", |module| module.link = SourceLink::Source)
        .pair("zfs/2.4", K1, |pair| {
            pair.built = Some(Built { installed: true, in_place: true, ..Built::default() });
        })
        .sync(&["zfs-2.4"], &[]);
    insta::assert_snapshot!(plan, @"take over zfs/2.4 for 7.2.12-arch1-1 from dkms");
}

#[test]
fn an_interrupted_installation_is_finished() {
    let debt = Debt::Install { module: id("zfs/2.4"), kernel: kernel(K1) };
    let plan = Machine::new(&[K1])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .owes(debt.clone())
        .sync(&[], &[]);
    insta::assert_snapshot!(plan, @r"
    install zfs/2.4 for 7.2.12-arch1-1 (an earlier run was interrupted)
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
    assert_eq!(plan.settles, [debt].into());
}

#[test]
fn autoinstall_no_is_honoured() {
    let plan = Machine::new(&[K1])
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| {
            pair.conf.as_mut().unwrap().as_mut().unwrap().autoinstall = Autoinstall::No;
        })
        .sync(&[], &[K1]);
    assert_eq!(plan.steps, []);
}

#[test]
fn commands_refuse_in_dkmss_way() {
    let machine = Machine::new(&[K1]).module("zfs/2.4").installed("zfs/2.4", K1).module("x/1");
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
    let machine =
        Machine::new(&[K1, K2]).module("zfs/2.4").installed("zfs/2.4", K1).installed("zfs/2.4", K2);
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
fn equal_facts_give_an_equal_plan() {
    let machine =
        Machine::new(&[K1, K2]).module("zfs/2.4").module("spl/1").depends("zfs/2.4", "spl");
    let kernels: BTreeSet<_> = [kernel(K1), kernel(K2)].into();
    let request = Request::Sync { sources: BTreeSet::new(), kernels };
    assert_eq!(make(&request, &machine.0), make(&request, &machine.0.clone()));
}

#[test]
fn opposite_debts_do_not_undo_what_is_wanted_now() {
    let (module, release) = (id("zfs/2.4"), kernel(K1));
    let plan = Machine::new(&[K1])
        .module("zfs/2.4")
        .owes(Debt::Uninstall { module: module.clone(), kernel: release.clone() })
        .sync(&["zfs-2.4"], &[]);
    assert!(!plan.to_string().contains("uninstall"), "{plan}");
    // Removed while its installation was still owed: nothing is built any more.
    let plan = Machine::new(&[K1])
        .module("zfs/2.4")
        .gone("zfs/2.4")
        .owes(Debt::Install { module, kernel: release })
        .sync(&["zfs-2.4"], &[]);
    assert!(!plan.to_string().contains("build zfs"), "{plan}");
}

#[test]
fn a_broken_leftover_is_no_successor() {
    let plan = Machine::new(&[K1])
        .module("zfs/1")
        .change("zfs/1", |m| (m.link, m.source) = (SourceLink::Broken, SourcePlace::Missing))
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .sync(&["zfs-2"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2") && text.contains("forget zfs/2"), "{text}");
}

#[test]
fn what_waited_for_a_dependency_follows_its_arrival() {
    let plan = Machine::new(&[K1])
        .module("zfs/2")
        .depends("zfs/2", "spl")
        .module("spl/1")
        .sync(&["spl-1"], &[]);
    assert!(plan.to_string().contains("build zfs/2"), "{plan}");
}

#[test]
fn a_new_kernel_gets_modules_from_kept_sources() {
    let plan = Machine::new(&[K1, K2])
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .sync(&[], &[K2]);
    let text = plan.to_string();
    assert!(text.contains("build zfs/2 for 7.2.13") && text.contains("missing"), "{text}");
}

#[test]
fn autoinstall_pays_debts_though_the_running_kernel_has_no_headers() {
    let machine = Machine::new(&[K2])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2")
        .change("zfs/2", |m| m.link = SourceLink::Source);
    let request = Request::Autoinstall { kernels: vec![kernel(K1)] };
    assert_eq!(make(&request, &machine.0).unwrap_err().code, 21);
    let plan = make(&request, &machine.owes(Debt::Kernel(kernel(K2))).0).unwrap();
    assert!(plan.to_string().contains("install zfs/2 for 7.2.13"), "{plan}");
}

#[test]
fn an_unreadable_install_tree_removes_nothing() {
    let mut machine = Machine::new(&[]).module("zfs/2");
    machine.0.kernels_known = false;
    assert_eq!(machine.sync(&[], &[K1]).steps, []);
    assert_eq!(machine.sync(&[], &[K1]).settles, [].into());
}

fn not_installed(pair: &mut Pair) {
    pair.built = Some(Built { in_place: true, ..Built::default() });
}

#[test]
fn match_does_for_one_kernel_what_was_done_for_another() {
    let machine = Machine::new(&[K1, K2])
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
    assert_eq!(ask(Some("x")).unwrap().steps, [], "only built");
    assert_eq!(ask(Some("y")).unwrap_err().code, 3, "not in the tree");
}

#[test]
fn a_kernel_that_comes_or_goes_takes_its_builds() {
    let machine = Machine::new(&[K1])
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
