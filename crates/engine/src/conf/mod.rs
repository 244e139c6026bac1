//! What a dkms.conf says: bash reads it, we understand it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// AUTOINSTALL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Autoinstall {
    /// "yes".
    Yes,
    /// "no", explicitly.
    No,
    /// Not set, or empty.
    #[default]
    Unset,
}

/// The values of all directives that are set, by index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Values(pub BTreeMap<String, BTreeMap<usize, String>>);

impl Values {
    /// Element 0 of a directive.
    #[must_use]
    pub fn scalar(&self, directive: &str) -> Option<&str> {
        self.0.get(directive)?.get(&0).map(String::as_str)
    }

    /// One digest over all values.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(format!("{:?}", self.0).as_bytes())
    }
}
