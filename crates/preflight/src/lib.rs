//! Tries, before a transaction, whether the modules build for what it is about to install.

pub mod arriving;
#[cfg_attr(not(test), expect(dead_code, reason = "the verdict will use it"))]
mod critical;
