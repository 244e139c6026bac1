//! stub
use crate::finish::CompressionOptions;
use crate::run::{Environment, Tools};
use crate::trees::Trees;
use std::path::PathBuf;
use std::time::Duration;
/// x
#[derive(Debug)]
pub struct Settings {
    /// p
    pub problems: Vec<String>,
}
impl Settings {
    /// x
    pub fn read(_: &Trees, _: &Tools, _: &Environment) -> Self {
        Self { problems: vec![] }
    }
    /// x
    pub fn jobs(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }
    /// x
    pub fn build_timeout(&self) -> Duration {
        Duration::from_secs(7200)
    }
    /// x
    pub fn conf_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
    /// x
    pub fn compression_options(&self) -> CompressionOptions {
        CompressionOptions::default()
    }
    /// x
    pub fn build_environment(&self) -> Option<PathBuf> {
        None
    }
}
