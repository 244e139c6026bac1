//! Delays installations until all builds of their group have ended.

use std::collections::{BTreeMap, BTreeSet};

use crate::dkms_tree::Record;
use crate::names::ModuleName;
use crate::plan::Job;

/// The groups of a run: the jobs that are installed [together](Job::with).
pub(super) struct Together<'a> {
    jobs: &'a [Job],
    /// The records of the builds that wait for the rest of their group.
    waiting: BTreeMap<usize, Box<Record>>,
    /// The jobs that have ended without a build to install.
    failed: BTreeSet<usize>,
}

/// The installations that the end of a build allows or rules out.
#[derive(Default)]
pub(super) struct Decision<'a> {
    /// The jobs to install now, in order, with the records of their builds.
    pub install: Vec<(usize, Box<Record>)>,
    /// The built jobs that are not installed, each with the module whose failure prevents the
    /// installation.
    pub leave: Vec<(usize, &'a ModuleName)>,
}

impl<'a> Together<'a> {
    pub(super) fn new(jobs: &'a [Job]) -> Self {
        Self { jobs, waiting: BTreeMap::new(), failed: BTreeSet::new() }
    }

    /// Records the end of a build, and returns what to do with the jobs of its group. `record` is
    /// the record of the build, or `None` if the module is not to be installed.
    pub(super) fn ended(&mut self, number: usize, record: Option<Box<Record>>) -> Decision<'a> {
        match record {
            Some(record) => drop(self.waiting.insert(number, record)),
            None => drop(self.failed.insert(number)),
        }
        let group = self.group(number);
        let mut decision = Decision::default();
        if let Some(failed) = group.iter().find(|member| self.failed.contains(member)) {
            let name = &self.jobs[*failed].module.name;
            let built = group.iter().filter(|member| self.waiting.remove(member).is_some());
            decision.leave = built.map(|member| (*member, name)).collect();
        } else if group.iter().all(|member| self.waiting.contains_key(member)) {
            let built = group.iter().filter_map(|it| Some((*it, self.waiting.remove(it)?)));
            decision.install = built.collect();
        }
        decision
    }

    /// Returns the jobs in the group of job `number`, including that job. Dependencies come first.
    fn group(&self, number: usize) -> Vec<usize> {
        let job = &self.jobs[number];
        let is_member = |other: &Job| {
            other.kernel == job.kernel
                && (other.module.name == job.module.name || job.with.contains(&other.module.name))
        };
        (0..self.jobs.len()).filter(|other| is_member(&self.jobs[*other])).collect()
    }
}
