//! Computes the schedule of a plan's jobs from their dependencies and estimated durations.

use std::collections::BTreeSet;
use std::time::Duration;

use super::schedule::{BuildTask, Schedule};
use super::side_by_side::SideBySide;
use crate::facts::{Facts, Pair};
use crate::machine::Machine;
use crate::names::ModuleName;
use crate::os::symlinks;
use crate::plan::Job;

/// The directives whose commands run during a build.
const COMMANDS: [&str; 3] = ["MAKE", "PRE_BUILD", "POST_BUILD"];

/// Returns the schedule of `jobs`, and a [`SideBySide`] that tracks their builds.
///
/// The builds of a module run one at a time if they cannot have private directories, or if they
/// [share the source tree](shares_source).
pub(super) fn schedule(jobs: &[Job], facts: &Facts, machine: &Machine) -> (Schedule, SideBySide) {
    let share_dirs = !machine.has_own_mounts();
    let names: Vec<&ModuleName> =
        jobs.iter().map(|job| &job.module.name).collect::<BTreeSet<_>>().into_iter().collect();
    let in_turn: BTreeSet<usize> = (0..names.len())
        .filter(|number| share_dirs || shares_source(names[*number], facts, machine))
        .collect();
    let number_of = |job: &Job| names.binary_search(&&job.module.name).unwrap_or_default();
    let task = |job: &Job| BuildTask {
        duration: estimate(job, facts, machine),
        after: (0..jobs.len())
            .filter(|other| {
                let other = &jobs[*other];
                other.kernel == job.kernel && job.after.contains(&other.module.name)
            })
            .collect(),
        group: Some(number_of(job)).filter(|number| in_turn.contains(number)),
    };
    let schedule = Schedule::new(jobs.iter().map(task).collect());
    (schedule, SideBySide::new(jobs.iter().map(number_of).collect(), in_turn))
}

/// Returns true if the builds of a module probably write into its source tree: if a command in
/// dkms.conf names the source tree, or if an existing build did so.
pub(super) fn shares_source(name: &ModuleName, facts: &Facts, machine: &Machine) -> bool {
    let tree = machine.trees.source.to_string_lossy();
    let is_named =
        |text: &str| ["source_tree", "/usr/src", &*tree].iter().any(|name| text.contains(name));
    facts.versions(name).flat_map(|(_, module)| module.pairs.values()).any(|pair| {
        let record = pair.built.as_ref().and_then(|built| built.record.as_ref());
        let values = pair.values();
        let mut commands = COMMANDS
            .iter()
            .flat_map(|name| values.into_iter().flat_map(move |values| values.elements(name)));
        record.is_some_and(|record| record.changes_source)
            || commands.any(|(_, text)| is_named(text))
    })
}

/// Estimates the duration of a job's build; zero if the build is restored from the cache.
///
/// The estimate is the duration of the module's last build for this kernel. Without such a build,
/// it is the duration of the module's longest build for another kernel or of another version.
/// Without any build, the estimate is one second per C file: file sizes hardly matter, since the
/// compiler spends most of its time on the kernel's headers.
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
