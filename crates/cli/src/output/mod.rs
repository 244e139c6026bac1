//! What commands print, and where.

pub mod bars;
pub mod console;
pub mod loudness;
pub mod progress;
