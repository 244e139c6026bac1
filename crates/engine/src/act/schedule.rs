//! Chooses the next build to start, from the durations and dependencies of the builds alone.

use std::time::Duration;

/// The properties of a build that determine when it starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct BuildTask {
    /// The estimated duration.
    pub duration: Duration,
    /// The numbers of the tasks that must end before this one starts.
    pub after: Vec<usize>,
    /// The number of the group that contains the task; `None` if it is in no group. The tasks of a
    /// group run one at a time.
    pub group: Option<usize>,
}

/// The builds of a run, and the order in which they start.
///
/// Of the tasks that can start, the one with the longest critical path is next. The critical path
/// of a task is the task itself followed by the longest chain of tasks that wait for it. Long
/// builds therefore start early, and the run does not end with one long build while the other
/// processors are idle.
#[derive(Debug)]
pub(crate) struct Schedule {
    tasks: Vec<BuildTask>,
    /// The total duration of each task's critical path.
    paths: Vec<Duration>,
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    /// The task has run, but may have to be repeated. Tasks that depend on it still wait.
    Held,
    Ended,
}

impl Schedule {
    /// Returns a schedule in which no task has started. A task's number is its index in `tasks`.
    pub(crate) fn new(tasks: Vec<BuildTask>) -> Self {
        let states = vec![State::Waiting; tasks.len()];
        Self { paths: critical_paths(&tasks), states, tasks }
    }

    /// Marks the next task as running and returns its number. Returns `None` if no task can start
    /// now.
    pub(crate) fn begin(&mut self) -> Option<usize> {
        let ready = (0..self.tasks.len()).filter(|number| self.is_ready(*number));
        let next = ready.max_by_key(|number| (self.paths[*number], std::cmp::Reverse(*number)))?;
        self.states[next] = State::Running;
        Some(next)
    }

    /// Returns true if a task can start now.
    pub(crate) fn has_ready(&self) -> bool {
        (0..self.tasks.len()).any(|number| self.is_ready(number))
    }

    /// Marks a task as ended, so that the tasks that wait for it can start.
    pub(crate) fn end(&mut self, number: usize) {
        self.states[number] = State::Ended;
    }

    /// Marks a running task as held: tasks that wait for it cannot start yet, but other tasks of
    /// its group can.
    pub(crate) fn hold(&mut self, number: usize) {
        self.states[number] = State::Held;
    }

    /// Marks a held task as running until it ends.
    pub(crate) fn resume(&mut self, number: usize) {
        self.states[number] = State::Running;
    }

    /// Allows a task to start again.
    pub(crate) fn repeat(&mut self, number: usize) {
        self.states[number] = State::Waiting;
    }

    /// Moves a task to another group, or out of its group.
    pub(crate) fn set_group(&mut self, number: usize, group: Option<usize>) {
        self.tasks[number].group = group;
    }

    fn is_ready(&self, number: usize) -> bool {
        let task = &self.tasks[number];
        let is_busy = |group: usize| {
            let others = self.tasks.iter().zip(&self.states);
            others
                .into_iter()
                .any(|(other, state)| other.group == Some(group) && *state == State::Running)
        };
        self.states[number] == State::Waiting
            && task.after.iter().all(|other| self.states[*other] == State::Ended)
            && !task.group.is_some_and(is_busy)
    }
}

/// Returns the total duration of each task's critical path: the duration of the task plus the
/// longest critical path of the tasks that wait for it.
fn critical_paths(tasks: &[BuildTask]) -> Vec<Duration> {
    let mut paths: Vec<Duration> = tasks.iter().map(|task| task.duration).collect();
    // A path through all tasks would need one round for each task. Most paths are short, so few
    // rounds are needed.
    for _ in tasks {
        let mut grown = false;
        for (number, task) in tasks.iter().enumerate() {
            for before in &task.after {
                let path = tasks[*before].duration.saturating_add(paths[number]);
                grown |= path > paths[*before];
                paths[*before] = paths[*before].max(path);
            }
        }
        if !grown {
            break;
        }
    }
    paths
}

#[cfg(test)]
mod tests;
