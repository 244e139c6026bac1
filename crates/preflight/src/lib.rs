//! Tries, before a transaction, whether the modules build for what it is about to install.

pub mod arriving;
