//! Counts the attempts at pending work in order to limit them.

use serde::{Deserialize, Serialize};

use crate::os::digest::Digest;

/// The unsuccessful attempts at pending work.
///
/// An attempt counts from its start, because a crash of the machine leaves no other trace. A run
/// that is ended by a signal takes back its attempt. After [`Attempts::MOST`] attempts with the
/// same inputs, the work is parked: only a command repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// The number of attempts with these inputs.
    pub count: u32,
    /// The fingerprint of the inputs.
    pub(crate) inputs: Digest,
}

impl Attempts {
    /// The maximum number of attempts with the same inputs.
    pub const MOST: u32 = 3;

    /// Returns the attempts with `inputs`, including a new one that starts now.
    #[must_use]
    pub(crate) fn after(previous: Option<&Self>, inputs: Digest) -> Self {
        let same = previous.filter(|previous| previous.inputs == inputs);
        Self { count: same.map_or(0, |same| same.count).saturating_add(1), inputs }
    }

    /// Returns true if no further attempt is made until the inputs change.
    #[must_use]
    pub fn are_used_up(&self) -> bool {
        self.count >= Self::MOST
    }
}
