//! Which build goes next. Knows numbers and lengths, and neither clock nor machine.

use std::time::Duration;

/// One build, as far as its turn is concerned.
#[derive(Debug, Clone, Default)]
pub(crate) struct BuildTask {
    /// How long it probably takes.
    pub length: Duration,
    /// What has to be over before it begins.
    pub after: Vec<usize>,
    /// Of tasks with the same number here only one runs at a time.
    pub one_of: Option<usize>,
}

/// The tasks of a run, from the first to the last.
///
/// What goes first is the beginning of the longest way to the end: the task after which, with all
/// that waits for it, most time will pass. So what is started last is short, and no processor works
/// on alone while the others are idle.
#[derive(Debug)]
pub(crate) struct Schedule {
    tasks: Vec<BuildTask>,
    /// The time from a task's beginning to the end of the last that waits for it.
    ways: Vec<Duration>,
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Over,
}

impl Schedule {
    /// A schedule in which nothing has begun; a task's number is its place in `tasks`.
    pub(crate) fn new(tasks: Vec<BuildTask>) -> Self {
        let states = vec![State::Waiting; tasks.len()];
        Self { ways: ways(&tasks), states, tasks }
    }

    /// Begins the task that goes next; none if all that are left wait for others.
    pub(crate) fn begin(&mut self) -> Option<usize> {
        let ready = (0..self.tasks.len()).filter(|number| self.is_ready(*number));
        let next = ready.max_by_key(|number| (self.ways[*number], std::cmp::Reverse(*number)))?;
        self.states[next] = State::Running;
        Some(next)
    }

    /// Returns true if a task could begin now.
    pub(crate) fn has_ready(&self) -> bool {
        (0..self.tasks.len()).any(|number| self.is_ready(number))
    }

    /// A task is over, with all that others wait for.
    pub(crate) fn end(&mut self, number: usize) {
        self.states[number] = State::Over;
    }

    fn is_ready(&self, number: usize) -> bool {
        let task = &self.tasks[number];
        let is_busy = |one_of: usize| {
            let others = self.tasks.iter().zip(&self.states);
            others
                .into_iter()
                .any(|(other, state)| other.one_of == Some(one_of) && *state == State::Running)
        };
        self.states[number] == State::Waiting
            && task.after.iter().all(|other| self.states[*other] == State::Over)
            && !task.one_of.is_some_and(is_busy)
    }
}

/// For each task, its own length and the longest way from any that waits for it.
fn ways(tasks: &[BuildTask]) -> Vec<Duration> {
    let mut ways: Vec<Duration> = tasks.iter().map(|task| task.length).collect();
    // A way has at most as many tasks as there are, and most have one: this ends soon.
    for _ in tasks {
        let mut grown = false;
        for (number, task) in tasks.iter().enumerate() {
            for before in &task.after {
                let way = tasks[*before].length.saturating_add(ways[number]);
                grown |= way > ways[*before];
                ways[*before] = ways[*before].max(way);
            }
        }
        if !grown {
            break;
        }
    }
    ways
}

#[cfg(test)]
mod tests;
