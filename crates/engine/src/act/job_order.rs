//! Which jobs wait for which others, and how long each probably takes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::schedule::{BuildTask, Schedule};
use crate::dkms_tree::are_private;
use crate::facts::{Facts, Pair};
use crate::machine::Machine;
use crate::names::ModuleName;
use crate::os::symlinks;
use crate::plan::Job;

/// The order of jobs. Where a build cannot have its directory for itself, those of one module
/// follow each other.
pub(super) fn schedule(jobs: &[Job], facts: &Facts, machine: &Machine) -> Schedule {
    let alone = !are_private(machine);
    let modules: Vec<&ModuleName> =
        jobs.iter().map(|job| &job.module.name).collect::<BTreeSet<_>>().into_iter().collect();
    let task = |job: &Job| BuildTask {
        length: length(job, facts, machine),
        after: (0..jobs.len())
            .filter(|other| {
                let other = &jobs[*other];
                other.kernel == job.kernel && job.after.contains(&other.module.name)
            })
            .collect(),
        one_of: modules.binary_search(&&job.module.name).ok().filter(|_| alone),
    };
    Schedule::new(jobs.iter().map(task).collect())
}

/// How long a build probably takes: as long as it took for this kernel; else as long as it took at
/// most for another, or in another version; else a second for each C file, since most of the
/// time goes into the kernel's own headers, for each anew.
fn length(job: &Job, facts: &Facts, machine: &Machine) -> Duration {
    if job.is_cached() {
        return Duration::ZERO;
    }
    let taken = |pair: &Pair| {
        let record = pair.built.as_ref()?.record.as_ref()?;
        (!record.adopted).then_some(record.build_seconds)
    };
    let before = facts.pair(&job.module, &job.kernel).and_then(taken).or_else(|| {
        let pairs = facts.versions(&job.module.name).flat_map(|(_, module)| module.pairs.values());
        pairs.filter_map(taken).max()
    });
    let seconds = before.unwrap_or_else(|| {
        let source =
            symlinks::resolve(&machine.trees.root, &machine.trees.source_link(&job.module));
        let files = source.map(|dir| walkdir::WalkDir::new(dir).into_iter().flatten());
        let is_c = |entry: &walkdir::DirEntry| entry.path().extension() == Some("c".as_ref());
        files.map_or(0, |files| files.filter(is_c).count() as u64)
    });
    Duration::from_secs(seconds)
}
