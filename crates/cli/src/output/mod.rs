//! What commands print.

pub mod bars;
pub mod loudness;
pub mod progress;
