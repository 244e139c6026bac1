//! The facts about a generated machine.

use std::sync::LazyLock;

use super::scenario::*;
use super::*;
use crate::dkms_tree::{BuiltObject, Condition, Journal, Placed};
use crate::facts::{Stage, TransactionFacts};
use crate::machine::{Transaction, Trees};

static TRANSACTION: LazyLock<Transaction> =
    LazyLock::new(|| Transaction::of_this_hook(&Trees::under("/nonexistent".as_ref())));

/// Returns the only object of a module.
pub fn object(module: &ModuleId) -> BuiltObject {
    let name = module.name.as_str().split('-').next().unwrap();
    BuiltObject {
        name: format!("{name}.ko"),
        digest: digest(&module.to_string()),
        location: "updates/dkms".into(),
        built_for: None,
    }
}

impl Scenario {
    pub fn facts(&self) -> Facts {
        let mut machine = TestMachine::new(&[]);
        for (release, state) in RELEASES.iter().zip(&self.kernels) {
            match state {
                KernelState::Link => drop(machine.0.kernel_links.insert(kernel(release))),
                KernelState::Absent => {}
                state => machine = machine.kernel(release, |about| state.apply(about)),
            }
        }
        for (name, state) in MODULES.iter().zip(&self.modules) {
            let Some(state) = state else { continue };
            machine = machine.module(name);
            state.apply(name, &mut machine.0);
        }
        machine.0.kernels_known = self.install_tree_is_readable;
        machine.0.pending.clone_from(&self.pending);
        machine.0.transactions = self.journals.iter().map(|it| it.facts(self)).collect();
        machine.0
    }

    pub fn source(&self, name: &str) -> Option<Source> {
        let at = MODULES.iter().position(|it| *it == name)?;
        self.modules[at].as_ref().map(|module| module.source)
    }

    pub fn kernel(&self, release: &str) -> KernelState {
        let at = RELEASES.iter().position(|it| *it == release).unwrap();
        self.kernels[at]
    }

    fn is_there(&self, subject: Subject) -> bool {
        match subject {
            Subject::Source(name) => self.source(name) == Some(Source::Present),
            Subject::Kernel(release) => self.kernel(release).is_alive(),
        }
    }
}

impl KernelState {
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Complete | Self::WithoutHeaders | Self::Copy)
    }

    fn apply(self, about: &mut KernelFacts) {
        about.kernel.alive = self.is_alive();
        about.owned = self != Self::Copy;
        if matches!(self, Self::WithoutHeaders | Self::Leftovers) {
            (about.kernel.headers, about.inputs) = (None, None);
        }
    }
}

impl ModuleState {
    fn apply(&self, name: &str, facts: &mut Facts) {
        let id = id(name);
        let module = facts.modules.get_mut(&id).unwrap();
        module.source = match self.source {
            Source::Present => SourcePlace::Present,
            Source::Absent | Source::Unknown => SourcePlace::Kept,
            Source::Lost => SourcePlace::Missing,
        };
        module.source_is_absent = matches!(self.source, Source::Absent | Source::Lost);
        for (release, state) in RELEASES.iter().zip(&self.pairs) {
            let release = kernel(release);
            let is_other_installed = facts.installed(&id.name, &release).is_some();
            let about = facts.kernels.get_mut(&release);
            let mut pair = pair(name, &release);
            state.apply(name, &mut pair, is_other_installed);
            if self.needs_foo
                && object(&id).name != "foo.ko"
                && let Some(Ok(conf)) = &mut pair.conf
            {
                conf.depends = vec!["foo".parse().unwrap()];
            }
            if self.source == Source::Lost {
                (pair.conf, pair.inputs) = (None, None);
            }
            if about.as_ref().is_none_or(|about| !about.has_headers()) {
                pair.inputs = None;
            }
            pair.placed &= about.is_some();
            if let Some(about) = about.filter(|_| pair.placed) {
                let mut placed = Placed::intended(&id, &facts.arch, &object(&id), None);
                placed.condition = match state.build {
                    BuildState::Incomplete => Condition::Missing,
                    _ => Condition::Intact,
                };
                about.inventory.list(placed);
            }
            let is_known = facts.kernels.contains_key(&release) || pair.built.is_some();
            let pairs = &mut facts.modules.get_mut(&id).unwrap().pairs;
            if is_known {
                pairs.insert(release, pair);
            } else {
                pairs.remove(&release);
            }
        }
        let module = facts.modules.get_mut(&id).unwrap();
        module.link = match self.source {
            _ if !self.added && module.pairs.values().all(|pair| pair.built.is_none()) => {
                SourceLink::None
            }
            Source::Present => SourceLink::Source,
            Source::Absent | Source::Unknown => SourceLink::Mendable,
            Source::Lost => SourceLink::Broken,
        };
    }
}

impl PairState {
    fn apply(&self, name: &str, pair: &mut Pair, is_other_installed: bool) {
        let release = pair.inputs.as_ref().unwrap().kernel.release.clone();
        let mut inputs = pair.inputs.clone().unwrap();
        if self.build == BuildState::Outdated {
            inputs.source = digest("another source");
        }
        let mut record = record(name, release.as_str(), inputs);
        record.objects.push(object(&id(name)));
        let installed = Built {
            record: Some(record).filter(|_| self.build != BuildState::ByDkms),
            installed: true,
            in_place: self.build != BuildState::Incomplete,
            ..Built::default()
        };
        let build = match self.build {
            // Only one version of a module can be installed.
            BuildState::OnlyPlaced if is_other_installed => BuildState::None,
            BuildState::None | BuildState::OnlyPlaced => self.build,
            _ if is_other_installed => BuildState::Built,
            other => other,
        };
        pair.placed = !matches!(build, BuildState::None | BuildState::Built | BuildState::ByDkms);
        pair.built = match build {
            BuildState::None | BuildState::OnlyPlaced => None,
            BuildState::Built => Some(Built { installed: false, in_place: false, ..installed }),
            _ => Some(installed),
        };
        if self.has_failed {
            pair.failure = Some(KnownFailure {
                transient: false,
                fingerprint: pair.inputs.as_ref().unwrap().fingerprint(),
                what: String::new(),
                log: PathBuf::new(),
                programs: BTreeMap::new(),
            });
        }
        pair.conf = match self.conf {
            ConfState::Invalid => Some(Err(Failure::new(8, "invalid dkms.conf"))),
            other => pair.conf.take().map(|conf| {
                conf.map(|conf| ConfFacts {
                    autoinstall: match other {
                        ConfState::Manual => Autoinstall::No,
                        _ => conf.autoinstall,
                    },
                    excluded: (other == ConfState::Excluded).then(|| "excluded".to_owned()),
                    ..conf
                })
            }),
        };
    }
}

impl JournalState {
    /// Returns true if everything that was to arrive has provably arrived.
    pub fn has_arrived(&self) -> bool {
        match self.progress {
            Progress::Running | Progress::InScriptlet => false,
            Progress::Own => true,
            Progress::Ended => self.paths.iter().all(|path| !path.arrives || path.is_done),
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.progress, Progress::Running | Progress::InScriptlet)
    }

    /// Returns the facts as the documentation of [`TransactionFacts`] defines them.
    fn facts(&self, scenario: &Scenario) -> TransactionFacts {
        let (mut arrived, mut lacking) = (Subjects::default(), Subjects::default());
        let (mut departed, mut held) = (Subjects::default(), Subjects::default());
        for path in &self.paths {
            let is_done = match self.progress {
                Progress::Running | Progress::InScriptlet => false,
                Progress::Own => true,
                Progress::Ended if path.arrives => path.is_done,
                Progress::Ended => {
                    path.is_done && self.has_arrived() || scenario.is_there(path.subject)
                }
            };
            let part = match (path.arrives, is_done) {
                (true, true) => &mut arrived,
                (true, false) => &mut lacking,
                (false, true) => &mut departed,
                (false, false) => &mut held,
            };
            match path.subject {
                Subject::Source(name) => drop(part.sources.insert(id(name).source_dir())),
                Subject::Kernel(release) => drop(part.kernels.insert(kernel(release))),
            }
        }
        let is_completed = lacking.is_empty() && held.is_empty();
        let has_ended = self.progress == Progress::Ended;
        TransactionFacts {
            stage: match self.progress {
                Progress::Running => Stage::Running { waits_for_us: false },
                Progress::InScriptlet => Stage::Running { waits_for_us: true },
                Progress::Own => Stage::Completed,
                Progress::Ended if is_completed => Stage::Completed,
                Progress::Ended => Stage::Interrupted,
            },
            arrived,
            unlisted: if has_ended { lacking.clone() } else { Subjects::default() },
            lacking,
            departed,
            held,
            packages: BTreeMap::new(),
            is_own: self.progress == Progress::Own,
            journal: Journal {
                transaction: TRANSACTION.clone(),
                arriving: BTreeMap::new(),
                departing: BTreeMap::new(),
                files: Vec::new(),
            },
        }
    }
}
