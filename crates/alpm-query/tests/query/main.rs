//! Tests of the program with the real libalpm, handwritten databases and real package files.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "this program does not use the engine; these files contain only tests"
)]

mod answers;
mod arriving;
mod described;
mod machine;
