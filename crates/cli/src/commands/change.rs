//! The commands that change something: the lock, the facts, the plan, the act.

use std::collections::BTreeSet;
use std::path::Path;

use dkms_engine::act;
use dkms_engine::debts::Debts;
use dkms_engine::facts::Facts;
use dkms_engine::failure::Failure;
use dkms_engine::kernels::Kernels;
use dkms_engine::lock::Lock;
use dkms_engine::names::{Arch, KernelRelease, ModuleId, ModuleName};
use dkms_engine::plan::{self, Plan, Request, Verb};
use dkms_engine::site::Site;
use dkms_engine::state::State;
use dkms_engine::survey::{self, Scope};
use dkms_engine::trees::Trees;
use nix::unistd::{AccessFlags, Uid, access};

use crate::args::refusal::{NOT_ROOT, refuse};
use crate::args::subject::{KernelChoice, Target};
use crate::commands::archive::Arrival;
use crate::output::progress::Progress;

/// How a command is carried out.
#[derive(Debug)]
pub struct ChangeOptions {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Do it even if it is done.
    pub force: bool,
    /// autoinstall: the exit code of any failure (dkms-behaviour 9), whatever that of its module.
    pub failure_code: Option<u8>,
}

/// What a command asks of the engine.
#[derive(Debug)]
pub struct Operation {
    request: Request,
    scope: Scope,
    needs: Rights,
}

/// What one has to be allowed (dkms-behaviour 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// Writing below the dkms tree.
    Write,
    /// Being root.
    Root,
}

impl Operation {
    /// `dkms autoinstall` for a kernel, or for every one with headers. Other kernels are looked at
    /// if something is owed.
    pub fn autoinstall(trees: &Trees, kernel: Option<&KernelRelease>) -> Self {
        let Some(kernel) = kernel else {
            return Self {
                request: Request::Autoinstall { kernels: None },
                scope: Scope::default(),
                needs: Rights::Root,
            };
        };
        let mut kernels = BTreeSet::from([kernel.clone()]);
        if !Debts::of(trees).read().is_empty() {
            let all = Kernels::read(trees).map(|kernels| kernels.all).unwrap_or_default();
            kernels.extend(all.into_iter().map(|kernel| kernel.release));
        }
        Self {
            request: Request::Autoinstall { kernels: Some(vec![kernel.clone()]) },
            scope: Scope { kernels: Some(kernels), ..Scope::default() },
            needs: Rights::Root,
        }
    }

    /// Finishes what interrupted runs left.
    pub fn finish_pending() -> Self {
        let nothing = Request::Sync { sources: BTreeSet::new(), kernels: BTreeSet::new() };
        Self { request: nothing, scope: Scope::default(), needs: Rights::Root }
    }

    /// `dkms match`.
    pub fn matching(
        template: KernelRelease,
        kernel: KernelRelease,
        module: Option<ModuleName>,
        force: bool,
    ) -> Self {
        Self {
            scope: Scope { kernels: Some([kernel.clone()].into()), ..Scope::default() },
            request: Request::Match { template, kernel, module, force },
            needs: Rights::Root,
        }
    }

    /// `dkms kernel_preinst` (only what autoinstall brings back) and `kernel_prerm`.
    pub fn clear(kernel: KernelRelease, only_willing: bool) -> Self {
        Self {
            scope: Scope {
                kernels: Some([kernel.clone()].into()),
                shallow: !only_willing,
                ..Scope::default()
            },
            request: Request::Clear { kernel, only_willing },
            needs: Rights::Root,
        }
    }

    /// `dkms add` of a module that comes from elsewhere.
    pub fn import(arrival: &Arrival, force: bool) -> Self {
        let (module, kernel) = (arrival.import.id.clone(), arrival.kernel.clone());
        Self {
            scope: Scope {
                kernels: Some([kernel.clone()].into()),
                modules: Some([module.clone()].into()),
                import: Some(arrival.import.clone()),
                ..Scope::default()
            },
            request: Request::Command {
                verb: Verb::Add,
                module,
                kernels: Some(vec![kernel]),
                force,
            },
            needs: Rights::Root,
        }
    }

    /// What `verb` does to a module, once for each architecture, in the order they were named.
    pub fn of_verb(
        verb: Verb,
        module: &ModuleId,
        kernels: &KernelChoice,
        force: bool,
        trees: &Trees,
    ) -> Vec<(Option<Arch>, Self)> {
        let groups = match kernels {
            // Builds are for this machine.
            KernelChoice::All if !verb.unmakes() => vec![(None, None)],
            KernelChoice::All => {
                arches(trees, module).into_iter().map(|arch| (arch, None)).collect()
            }
            KernelChoice::These(targets) => by_arch(targets),
        };
        let task = |kernels: Option<Vec<KernelRelease>>| Self {
            scope: Scope {
                kernels: kernels.as_ref().map(|these| these.iter().cloned().collect()),
                modules: Some([module.clone()].into()),
                shallow: verb.unmakes(),
                ..Scope::default()
            },
            request: Request::Command { verb, module: module.clone(), kernels, force },
            needs: match verb {
                Verb::Install | Verb::Uninstall => Rights::Root,
                Verb::Add | Verb::Build | Verb::Unbuild | Verb::Remove => Rights::Write,
            },
        };
        groups.into_iter().map(|(arch, kernels)| (arch, task(kernels))).collect()
    }

    /// Carries the task out and gives the exit code.
    pub fn carry_out(
        &self,
        site: &Site,
        options: &ChangeOptions,
        progress: &mut Progress<'_>,
    ) -> u8 {
        if !options.dry_run
            && let Err(lacking) = self.needs.check(site)
        {
            let refused = self.refusal_before_rights(site);
            let message = refused.as_ref().map_or(lacking, ToString::to_string);
            progress.complain(&format!("dkms: {message}"));
            return refused.map_or(1, |refusal| refusal.code);
        }
        let lock = if options.dry_run {
            None
        } else {
            match Lock::take(&site.trees, &site.env, &mut |text| progress.say(text)) {
                Ok(lock) => Some(lock),
                Err(why) => {
                    progress.complain(&format!("dkms: {why}"));
                    return 1;
                }
            }
        };
        let code = match self.plan(site) {
            Err(refusal) => {
                progress.complain(&format!("dkms: {refusal}"));
                refusal.code
            }
            Ok((plan, _)) if options.dry_run => {
                progress.say(plan.to_string().trim_end());
                0
            }
            Ok((plan, facts)) => act_on(&plan, &facts, site, options, progress),
        };
        drop(lock);
        code
    }

    /// What dkms complains about before it looks at rights: a broken module, or one that is to be
    /// taken away and is not there. `add` looks at rights first.
    fn refusal_before_rights(&self, site: &Site) -> Option<Failure> {
        let refusal = self.plan(site).err()?;
        let first = matches!(self.request, Request::Command { verb, .. } if verb != Verb::Add)
            && [3, 4].contains(&refusal.code);
        first.then_some(refusal)
    }

    fn plan(&self, site: &Site) -> Result<(Plan, Facts), Failure> {
        let facts = survey::read(site, &self.scope);
        Ok((plan::make(&self.request, &facts)?, facts))
    }
}

fn act_on(
    plan: &Plan,
    facts: &Facts,
    site: &Site,
    options: &ChangeOptions,
    progress: &mut Progress<'_>,
) -> u8 {
    progress.notes(plan);
    if let Err(why) = site.tools.stop.listen() {
        progress.complain(&format!("dkms: Ctrl-C ends this at once, tidily or not: {why}"));
    }
    let report = act::carry_out(plan, facts, site, progress);
    progress.trouble(&report);
    if let Some(interruption) = &report.interrupted {
        progress.complain(&format!("dkms: {interruption}"));
        return interruption.exit_code();
    }
    match (report.exit_code(), options.failure_code) {
        (0, _) => 0,
        (_, Some(code)) | (code, None) => code,
    }
}

/// The kernels of each architecture. The engine works for one at a time.
fn by_arch(targets: &[Target]) -> Vec<(Option<Arch>, Option<Vec<KernelRelease>>)> {
    let mut groups: Vec<(Option<Arch>, Option<Vec<KernelRelease>>)> = Vec::new();
    for Target { kernel, arch } in targets {
        let group = groups.iter_mut().find(|(of, _)| of.as_ref() == Some(arch));
        match group {
            Some((_, Some(kernels))) if kernels.contains(kernel) => {}
            Some((_, Some(kernels))) => kernels.push(kernel.clone()),
            _ => groups.push((Some(arch.clone()), Some(vec![kernel.clone()]))),
        }
    }
    groups
}

/// The architectures that a module is built for; this machine's if for none.
fn arches(trees: &Trees, module: &ModuleId) -> Vec<Option<Arch>> {
    let state = State::read(trees);
    let built = state.modules.iter().filter(|added| added.id == *module);
    let arches: BTreeSet<Arch> =
        built.flat_map(|added| &added.kernels).map(|built| built.arch.clone()).collect();
    if arches.is_empty() { vec![None] } else { arches.into_iter().map(Some).collect() }
}

/// Whether it is root who asks. In another root the files themselves say who may change them.
pub fn is_root(site: &Site) -> bool {
    site.trees.root != Path::new("/") || Uid::effective().is_root()
}

/// Looks whether the dkms tree can be written to, before anything else is looked at.
///
/// # Errors
/// [`Failure`] (dkms's 1) if not.
pub fn check_writable(site: &Site) -> Result<(), Failure> {
    Rights::Write.check(site).or_else(|why| refuse(1, why))
}

impl Rights {
    fn check(self, site: &Site) -> Result<(), String> {
        if self == Self::Root && !is_root(site) {
            return Err(NOT_ROOT.into());
        }
        let there = site.trees.dkms.ancestors().find(|dir| dir.exists());
        let writable = there.is_some_and(|dir| access(dir, AccessFlags::W_OK).is_ok());
        if writable {
            Ok(())
        } else {
            Err(format!("{} cannot be written to; are you root?", site.trees.dkms.display()))
        }
    }
}
