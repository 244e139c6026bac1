//! `dkms cache`: lists or clears the build cache.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dkms_engine::dkms_tree::{BuildCache, CachedBuild};
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::{Arch, KernelRelease, ModuleName, ModuleVersion};
use serde::Serialize;

use crate::commands::change::take_lock;
use crate::output::console::Console;
use crate::output::progress::Progress;

/// The output of `dkms cache --json`.
#[derive(Serialize)]
struct CacheListing {
    /// The size of all entries in bytes.
    size: u64,
    /// The maximum size in bytes; 0 if the cache is disabled.
    limit: u64,
    /// The entries, most recently used first.
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    module: ModuleName,
    version: ModuleVersion,
    kernel: KernelRelease,
    arch: Arch,
    size: u64,
    /// The time of the last use, in seconds since 1970.
    last_used: u64,
}

impl Entry {
    fn of(entry: CachedBuild) -> Self {
        let since = entry.used.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            module: entry.module.name,
            version: entry.module.version,
            kernel: entry.kernel,
            arch: entry.arch,
            size: entry.size,
            last_used: since.as_secs(),
        }
    }
}

/// Prints the entries of the cache and returns the exit code. Takes no lock, because any user may
/// list the cache.
pub fn list(machine: &Machine, json: bool, console: &Console) -> u8 {
    let entries = BuildCache::of(&machine.trees).entries();
    let text = listed(entries, machine.settings.cache_size(), json, SystemTime::now());
    console.print(&text);
    0
}

/// Clears the cache and returns the exit code. With `dry_run`, only prints the number of cached
/// builds.
///
/// # Errors
/// [`Failure`] with exit code 1 if the lock cannot be taken or a file cannot be deleted.
pub fn clear(machine: &Machine, dry_run: bool, progress: &mut Progress<'_>) -> Result<u8, Failure> {
    if dry_run {
        let count = BuildCache::of(&machine.trees).entries().len();
        progress.say(&format!("would delete {}", builds(count)));
        return Ok(0);
    }
    let _lock = take_lock(machine, progress)?;
    let count = BuildCache::of(&machine.trees).clear()?;
    progress.say(&format!("deleted {}", builds(count)));
    Ok(0)
}

fn listed(entries: Vec<CachedBuild>, limit: u64, json: bool, now: SystemTime) -> String {
    let size = entries.iter().map(|entry| entry.size).sum();
    if json {
        let entries = entries.into_iter().map(Entry::of).collect();
        let listing = CacheListing { size, limit, entries };
        return serde_json::to_string_pretty(&listing).map(|text| text + "\n").unwrap_or_default();
    }
    let mut text = String::new();
    for CachedBuild { module, kernel, arch, size, used, .. } in &entries {
        let age = now.duration_since(*used).unwrap_or_default();
        text += &format!("{module}, {kernel}, {arch}: {}, used {}\n", amount(*size), ago(age));
    }
    let limit = match limit {
        0 => "the cache is disabled ([cache] size)".to_owned(),
        limit => format!("maximum {}", amount(limit)),
    };
    text + &format!("{}, {}; {limit}\n", builds(entries.len()), amount(size))
}

fn builds(count: usize) -> String {
    format!("{count} build{}", if count == 1 { "" } else { "s" })
}

/// Formats a number of bytes with a unit, as in `38.5K`, where 1K is 1024 bytes.
#[expect(clippy::cast_precision_loss, reason = "only one decimal place is shown")]
fn amount(bytes: u64) -> String {
    let units = ["K", "M", "G"];
    let fits = |power: &usize| bytes >= 1024_u64.pow(u32::try_from(*power).unwrap_or_default());
    match (1..=units.len()).take_while(fits).last() {
        None => format!("{bytes} bytes"),
        Some(power) => {
            let amount = bytes as f64 / 1024_f64.powi(i32::try_from(power).unwrap_or_default());
            format!("{amount:.1}{}", units[power - 1])
        }
    }
}

/// Formats the time since an event, as in `47 h ago`.
fn ago(age: Duration) -> String {
    let (minute, hour, day) = (60, 60 * 60, 24 * 60 * 60);
    match age.as_secs() {
        seconds if seconds < minute => "just now".to_owned(),
        seconds if seconds < hour => format!("{} min ago", seconds / minute),
        seconds if seconds < 2 * day => format!("{} h ago", seconds / hour),
        seconds => format!("{} days ago", seconds / day),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0 bytes")]
    #[case(1023, "1023 bytes")]
    #[case(1024, "1.0K")]
    #[case(38 * 1024 + 512, "38.5K")]
    #[case(512 << 20, "512.0M")]
    #[case(5 << 40, "5120.0G")]
    fn formats_amounts(#[case] bytes: u64, #[case] text: &str) {
        assert_eq!(amount(bytes), text);
    }

    #[rstest]
    #[case(59, "just now")]
    #[case(119, "1 min ago")]
    #[case(47 * 60 * 60, "47 h ago")]
    #[case(9 * 24 * 60 * 60, "9 days ago")]
    fn formats_ages(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(ago(Duration::from_secs(seconds)), text);
    }

    #[test]
    fn lists_an_empty_cache() {
        let listed = |limit, json| listed(Vec::new(), limit, json, UNIX_EPOCH);
        assert_eq!(listed(1 << 30, false), "0 builds, 0 bytes; maximum 1.0G\n");
        assert_eq!(listed(0, false), "0 builds, 0 bytes; the cache is disabled ([cache] size)\n");
        let json: serde_json::Value = serde_json::from_str(&listed(7, true)).expect("JSON");
        assert_eq!(json, serde_json::json!({"size": 0, "limit": 7, "entries": []}));
    }
}
