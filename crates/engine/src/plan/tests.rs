//! Tests of planning, with constructed facts.

mod commands;
mod departures;
mod dependencies;
mod groups;
mod pending;
mod property;
mod removals;
mod successors;
mod transactions;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use super::{Note, Plan, Request, Verb, make};
use crate::conf::{Autoinstall, Values};
use crate::dkms_tree::{
    CacheKey, Inputs, Inventory, KernelIdentity, KnownFailure, PendingWork, Record,
};
use crate::facts::{
    Built, ConfFacts, Facts, KernelFacts, ModuleFacts, Pair, SourceLink, SourcePlace, Subjects,
};
use crate::failure::Failure;
use crate::machine::{Kernel, Leftovers};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;

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

fn subjects(sources: &[&str], kernels: &[&str]) -> Subjects {
    Subjects {
        sources: sources.iter().map(|dir| (*dir).to_owned()).collect(),
        kernels: kernels.iter().map(|release| kernel(release)).collect(),
    }
}

/// The facts about a machine. Methods that return `Self` add facts or change them.
struct TestMachine(Facts);

impl TestMachine {
    fn new(kernels: &[&str]) -> Self {
        let mut machine = Self(Facts {
            arch: Arch::of_this_machine(),
            kernels: BTreeMap::new(),
            modules: BTreeMap::new(),
            cached: HashSet::new(),
            environment: digest("environment"),
            started: std::time::UNIX_EPOCH,
            lacking: BTreeMap::new(),
            pending: Vec::new(),
            attempts: BTreeMap::new(),
            by_systemd: false,
            running: None,
            transactions: Vec::new(),
            leftovers: Leftovers::default(),
            outer: Vec::new(),
            kernels_known: true,
            kernel_links: BTreeSet::new(),
            import: None,
            no_autoinstall: false,
            tried: BTreeMap::new(),
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

    /// Adds a module in the source tree, without builds.
    fn module(mut self, name: &str) -> Self {
        let pairs = self.0.kernels.keys().map(|k| (k.clone(), pair(name, k))).collect();
        let module = ModuleFacts {
            source_dir: id(name).source_dir(),
            source: SourcePlace::Present,
            source_is_absent: false,
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

    /// Sets the objects that a module's dkms.conf names.
    fn objects(self, name: &str, objects: &[&str]) -> Self {
        self.change(name, |module| {
            for pair in module.pairs.values_mut() {
                if let Some(Ok(conf)) = &mut pair.conf {
                    conf.objects = objects.iter().map(|object| (*object).to_owned()).collect();
                }
            }
        })
    }

    /// Removes a module's source but keeps a copy.
    fn gone(self, name: &str) -> Self {
        self.change(name, |module| {
            module.source = SourcePlace::Kept;
            module.source_is_absent = true;
            module.link = SourceLink::Mendable;
        })
    }

    /// Adds the build of a module for a kernel to the cache.
    fn cached(mut self, name: &str, release: &str) -> Self {
        let inputs = self.0.pair(&id(name), &kernel(release)).unwrap().inputs.clone().unwrap();
        let key = CacheKey::of(&id(name), &self.0.arch, &inputs, &self.0.environment);
        self.0.cached.insert(key);
        self
    }

    fn pending(mut self, work: PendingWork) -> Self {
        self.0.pending.push(work);
        self
    }

    /// Plans after a transaction that installed, replaced or removed `sources` and `kernels`. The
    /// sources that exist and the kernels with headers have arrived, and the rest has departed.
    fn sync(&self, sources: &[&str], kernels: &[&str]) -> Plan {
        let is_there = |dir: &&str| {
            let present = self.0.modules.values().filter(|it| it.source == SourcePlace::Present);
            present.into_iter().any(|module| module.source_dir == *dir)
        };
        let (here, gone): (Vec<&str>, Vec<&str>) = sources.iter().partition(|dir| is_there(dir));
        let (present, absent): (Vec<&str>, Vec<&str>) = kernels.iter().partition(|release| {
            let about = self.0.kernels.get(&kernel(release));
            about.is_some_and(|about| about.owned && about.has_headers())
        });
        let arrived = subjects(&here, &present);
        let departed = subjects(&gone, &absent);
        make(&Request::Sync { arrived, departed, headers: BTreeSet::new() }, &self.0).unwrap()
    }

    fn command(&self, verb: Verb, name: &str, kernels: &[&str]) -> Result<Plan, Failure> {
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
        bad_headers: None,
        index_outdated: false,
        inventory: Inventory::default(),
        inventory_changed: false,
        replaced: Vec::new(),
        dangling: None,
        kernel: Kernel {
            release: kernel(release),
            headers: Some(dir.join("build")),
            config: None,
            dir,
            alive,
            pkgbase: Some("linux".into()),
            package: Some("linux".into()),
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
            objects: vec![id(name).name.to_string()],
            depends: Vec::new(),
            autoinstall: Autoinstall::Yes,
            excluded: None,
        })),
        evaluated: None,
        inputs: Some(Inputs {
            source: digest(name),
            overrides: digest(""),
            conf: digest("conf"),
            kernel: identity(release.as_str()),
            depends: BTreeMap::new(),
        }),
        built: None,
        placed: false,
        failure: None,
    }
}

fn record(name: &str, release: &str, inputs: Inputs) -> Record {
    Record {
        format: crate::dkms_tree::FORMAT,
        module: id(name),
        kernel: kernel(release),
        arch: Arch::of_this_machine(),
        adopted: false,
        build_seconds: 1,
        compiler: String::new(),
        changes_source: false,
        inputs,
        values: Values::default(),
        objects: Vec::new(),
        refused: Vec::new(),
        signing: None,
    }
}

#[test]
fn new_kernel_gets_all_modules() {
    let plan = TestMachine::new(&[K1, K2])
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
    run depmod for 7.2.13-arch1-1
    ");
}

#[test]
fn new_source_is_built_for_all_kernels() {
    let plan = TestMachine::new(&[K1, K2]).module("zfs/2.4").sync(&["zfs-2.4"], &[]);
    insta::assert_snapshot!(plan, @r"
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.12-arch1-1
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    run depmod for 7.2.12-arch1-1
    run depmod for 7.2.13-arch1-1
    ");
}

#[test]
fn unchanged_inputs_give_an_empty_plan() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .sync(&["zfs-2.4"], &[K1]);
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn changed_kernel_symbols_cause_a_rebuild() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .pair("zfs/2.4", K1, |pair| {
            pair.inputs.as_mut().unwrap().kernel.symvers = Some(digest("other"));
        })
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    build zfs/2.4 for 7.2.12-arch1-1 (kernel symbols changed)
    install zfs/2.4 for 7.2.12-arch1-1
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn note_about_missing_headers_names_their_package() {
    let plan = TestMachine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2.4")
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    note: 7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
    ");
}

#[test]
fn missing_headers_are_noted_once_even_without_modules() {
    let machine = TestMachine::new(&[K2])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .kernel("6.12.8-1-lts", |k| (k.kernel.headers, k.inputs, k.owned) = (None, None, false));
    let mut plan = machine.sync(&[], &[K1]);
    assert!(plan.notes.is_empty(), "{plan}");
    plan.note_missing_headers(&machine.0);
    plan.note_missing_headers(&machine.0);
    insta::assert_snapshot!(plan, @r"
    note: 7.2.12-arch1-1: no kernel headers installed
      run: pacman -S linux-headers
    ");
}

#[test]
fn headers_of_another_release_are_noted() {
    let plan = TestMachine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .kernel(K2, |k| k.kernel.alive = false)
        .module("zfs/2.4")
        .sync(&[], &[K1]);
    assert!(matches!(&plan.notes[..], [Note::NoHeaders { other: Some(_), .. }]), "{plan}");
}

#[test]
fn known_failure_is_noted_and_not_retried() {
    let failed = KnownFailure {
        transient: false,
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/log"),
        programs: BTreeMap::new(),
    };
    let machine = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    insta::assert_snapshot!(machine.sync(&[], &[K1]), @r"
    note: zfs/2.4: skipped for 7.2.12-arch1-1: an earlier build failed and nothing has changed since
      cause: zfs.c:1: error: no
      log: /log
      see: dkms explain zfs/2.4 -k 7.2.12-arch1-1
    ");
    let plan = machine.command(Verb::Install, "zfs/2.4", &[K1]).unwrap();
    assert!(plan.to_string().contains("build zfs/2.4"), "requested: {plan}");
    // Reinstalling the module or the headers is a request to retry the build.
    let plan = machine.sync(&["zfs-2.4"], &[]);
    assert!(plan.to_string().contains("build zfs/2.4"), "reinstalled: {plan}");
    let headers = BTreeSet::from([kernel(K1)]);
    let (arrived, departed) = (subjects(&[], &[K1]), Subjects::default());
    let plan = make(&Request::Sync { arrived, departed, headers }, &machine.0).unwrap();
    assert!(plan.to_string().contains("build zfs/2.4"), "new headers: {plan}");
    let changed = machine.pair("zfs/2.4", K1, |pair| {
        pair.inputs.as_mut().unwrap().source = digest("fixed");
    });
    assert!(changed.sync(&[], &[K1]).to_string().contains("build zfs/2.4"));
}

#[test]
fn cached_builds_are_not_compiled() {
    let failed = KnownFailure {
        transient: false,
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/log"),
        programs: BTreeMap::new(),
    };
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2.4")
        .cached("zfs/2.4", K1)
        // Compiling fails now, for example because the compiler is newer.
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    insta::assert_snapshot!(machine.sync(&[], &[K1, K2]), @r"
    add zfs/2.4
    restore the build of zfs/2.4 for 7.2.12-arch1-1 from the cache
    install zfs/2.4 for 7.2.12-arch1-1
    build zfs/2.4 for 7.2.13-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.13-arch1-1
    run depmod for 7.2.12-arch1-1
    run depmod for 7.2.13-arch1-1
    ");
    let plan = machine.forced(Verb::Build, "zfs/2.4", K1);
    assert!(!plan.jobs.iter().any(super::Job::is_cached), "{plan}");
    let changed = machine.pair("zfs/2.4", K1, |pair| {
        pair.inputs.as_mut().unwrap().kernel.symvers = Some(digest("others"));
    });
    assert!(!changed.sync(&[], &[K1]).jobs.iter().any(super::Job::is_cached));
}

#[test]
fn invalid_conf_fails_only_its_module() {
    let plan = TestMachine::new(&[K1])
        .module("bad/1")
        .module("zfs/2.4")
        .pair("bad/1", K1, |pair| {
            pair.conf = Some(Err(Failure::new(8, "dkms.conf: no")));
        })
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    fail bad/1 for 7.2.12-arch1-1: dkms.conf: no
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.12-arch1-1
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn builds_made_by_dkms_are_adopted() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .change("zfs/2.4", |module| module.link = SourceLink::Source)
        .pair("zfs/2.4", K1, |pair| {
            pair.built = Some(Built { installed: true, in_place: true, ..Built::default() });
        })
        .sync(&["zfs-2.4"], &[]);
    insta::assert_snapshot!(plan, @"adopt zfs/2.4 for 7.2.12-arch1-1 from dkms");
}

#[test]
fn interrupted_installation_is_finished() {
    let work = PendingWork::Install { module: id("zfs/2.4"), kernel: kernel(K1) };
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .pending(work.clone())
        .sync(&[], &[]);
    insta::assert_snapshot!(plan, @r"
    install zfs/2.4 for 7.2.12-arch1-1 (not finished by an earlier run)
    run depmod for 7.2.12-arch1-1
    ");
    assert_eq!(plan.finishes, [work].into());
}

#[test]
fn autoinstall_no_prevents_a_build() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| {
            pair.conf.as_mut().unwrap().as_mut().unwrap().autoinstall = Autoinstall::No;
        })
        .sync(&[], &[K1]);
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn equal_facts_give_equal_plans() {
    let machine =
        TestMachine::new(&[K1, K2]).module("zfs/2.4").module("spl/1").depends("zfs/2.4", "spl");
    let (arrived, departed) = (subjects(&[], &[K1, K2]), Subjects::default());
    let request = Request::Sync { arrived, departed, headers: BTreeSet::new() };
    assert_eq!(make(&request, &machine.0), make(&request, &machine.0.clone()));
}

#[test]
fn new_request_cancels_opposite_pending_work() {
    let (module, release) = (id("zfs/2.4"), kernel(K1));
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .pending(PendingWork::Uninstall { module: module.clone(), kernel: release.clone() })
        .sync(&["zfs-2.4"], &[]);
    assert!(!plan.to_string().contains("uninstall"), "{plan}");
    // The source was removed while the module's installation was pending.
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.4")
        .gone("zfs/2.4")
        .pending(PendingWork::Install { module, kernel: release })
        .sync(&["zfs-2.4"], &[]);
    assert!(!plan.to_string().contains("build zfs"), "{plan}");
}

#[test]
fn new_kernel_gets_modules_from_kept_sources() {
    let plan = TestMachine::new(&[K1, K2])
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .sync(&[], &[K2]);
    let text = plan.to_string();
    assert!(text.contains("build zfs/2 for 7.2.13") && text.contains("missing"), "{text}");
}
