//! Parses and interprets the command line.

pub mod commands;
pub mod complete;
pub mod help;
pub mod intent;
mod kernel_args;
pub mod machine;
pub mod module_arg;
pub mod options;
pub mod parsed;
pub mod refusal;
pub mod subject;
mod suggest;
mod versions;
