//! Computes the schedule of a plan's jobs from their dependencies and estimated durations.

use std::collections::BTreeSet;
use std::time::Duration;

use super::schedule::{BuildTask, Schedule};
use crate::dkms_tree::are_private;
use crate::facts::{Facts, Pair};
use crate::machine::Machine;
use crate::names::ModuleName;
use crate::os::symlinks;
use crate::plan::Job;

/// Returns the schedule of `jobs`.
///
/// If builds cannot have private directories, the builds of a module run one at a time.
pub(super) fn schedule(jobs: &[Job], facts: &Facts, machine: &Machine) -> Schedule {
    let share_dirs = !are_private(machine);
    let modules: Vec<&ModuleName> =
        jobs.iter().map(|job| &job.module.name).collect::<BTreeSet<_>>().into_iter().collect();
    let task = |job: &Job| BuildTask {
        duration: estimate(job, facts, machine),
        after: (0..jobs.len())
            .filter(|other| {
                let other = &jobs[*other];
                other.kernel == job.kernel && job.after.contains(&other.module.name)
            })
            .collect(),
        group: modules.binary_search(&&job.module.name).ok().filter(|_| share_dirs),
    };
    Schedule::new(jobs.iter().map(task).collect())
}

/// Estimates the duration of a job's build; zero if the build is restored from the cache.
///
/// The estimate is the duration of the module's last build for this kernel. Without such a build,
/// it is the longest duration of a build for another kernel or of another version, or else one
/// second per C file. File sizes hardly matter, since the compiler spends most of its time on the
/// kernel's headers.
fn estimate(job: &Job, facts: &Facts, machine: &Machine) -> Duration {
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
