//! Limits parallel jobs by available memory and counts the processes killed by the OOM killer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time within which a new build is expected to allocate its memory. Until then, the system
/// reports that memory as available.
const YOUNG: Duration = Duration::from_secs(15);

/// The directories in which the kernel reports memory usage.
#[derive(Debug, Clone)]
pub struct Memory {
    proc: PathBuf,
    cgroups: PathBuf,
}

impl Default for Memory {
    fn default() -> Self {
        Self::at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }
}

impl Memory {
    /// Creates a reader of the files below `proc` (see proc(5)) and `cgroups` (see the kernel's
    /// cgroup-v2 documentation).
    #[must_use]
    pub fn at(proc: &Path, cgroups: &Path) -> Self {
        Self { proc: proc.to_owned(), cgroups: cgroups.to_owned() }
    }

    /// Returns the number of bytes that can be allocated before the machine swaps or a control
    /// group of this process reaches its limit. Returns `None` if the number is unknown.
    #[must_use]
    pub fn available(&self) -> Option<u64> {
        let machine = fs::read_to_string(self.proc.join("meminfo")).ok();
        let machine = machine.and_then(|text| number(&text, "MemAvailable:"));
        let machine = machine.map(|kib| kib.saturating_mul(1024));
        let groups = self.own_group().unwrap_or_default();
        let groups = groups.ancestors().filter_map(|group| self.left_in(group));
        groups.chain(machine).min()
    }

    /// Returns the number of processes that the OOM killer has killed since boot.
    #[must_use]
    pub(crate) fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.proc.join("vmstat")).unwrap_or_default();
        number(&text, "oom_kill").unwrap_or_default()
    }

    /// Returns the path of this process's control group, relative to the root group. Returns `None`
    /// without cgroup v2.
    fn own_group(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.proc.join("self/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from)
    }

    /// Returns the number of bytes that the control group `group` can still allocate, or `None` if
    /// the group has no limit. Page cache does not count as used, since the kernel can reclaim it.
    fn left_in(&self, group: &Path) -> Option<u64> {
        let dir = self.cgroups.join(group);
        let read = |file: &str| fs::read_to_string(dir.join(file)).ok();
        let limit: u64 = read("memory.max")?.trim().parse().ok()?;
        let used: u64 = read("memory.current")?.trim().parse().ok()?;
        let stat = read("memory.stat").unwrap_or_default();
        let files = ["inactive_file", "active_file"].map(|it| number(&stat, it).unwrap_or(0));
        Some(limit.saturating_sub(used.saturating_sub(files.iter().sum())))
    }
}

/// Returns the number that follows the word `name` at the start of a line. Returns `None` if there
/// is no such line.
fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    line.next()?.parse().ok()
}

/// A gate that admits as many builds as fit into memory, but at least one.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    memory: &'a Memory,
    per_job: u64,
    starts: Vec<Instant>,
}

impl<'a> Gate<'a> {
    /// Creates a gate that expects each job to need `per_job` bytes; 0 disables the limit.
    pub(crate) fn new(memory: &'a Memory, per_job: u64) -> Self {
        Self { memory, per_job, starts: Vec::new() }
    }

    /// Returns the number of jobs, from 1 to `most`, that fit into the available memory. Also
    /// returns a message for the user if that number is less than `most`.
    pub(crate) fn jobs(&self, most: usize) -> (usize, Option<String>) {
        let Some(available) = self.memory.available() else { return (most, None) };
        let fit = fitting(available, self.per_job, most);
        let less = || {
            const MIB: u64 = 1024 * 1024;
            format!(
                "parallel jobs limited to {fit} instead of {most}: {} MiB of memory available, \
                 {} MiB per job (memory_per_job in /etc/dkms/alpm-dkms.toml)",
                available / MIB,
                self.per_job / MIB
            )
        };
        (fit, (fit < most).then(less))
    }

    /// Returns true if another build can start in addition to the `running` ones.
    pub(crate) fn admits(&mut self, running: usize) -> bool {
        self.starts.retain(|start| start.elapsed() < YOUNG);
        let Some(available) = self.memory.available() else { return true };
        let young = self.starts.len().min(running);
        running == 0 || fitting(available, self.per_job, young + 1) > young
    }

    /// Records that a build starts now.
    pub(crate) fn starts(&mut self) {
        self.starts.push(Instant::now());
    }
}

/// Returns the number of jobs, from 1 to `most`, that fit into `available` bytes. Returns
/// `most` if `per_job` is 0.
fn fitting(available: u64, per_job: u64, most: usize) -> usize {
    let fit =
        available.checked_div(per_job).map_or(most, |fit| usize::try_from(fit).unwrap_or(most));
    fit.min(most).max(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// Creates `files`, each a path and its content, in a new root. Returns the root and a reader
    /// of the files.
    fn machine(files: &[(&str, &str)]) -> (TestRoot, Memory) {
        let root = TestRoot::new();
        for (file, text) in files {
            root.write(file, text);
        }
        let memory = Memory::at(&root.at("proc"), &root.at("cgroup"));
        (root, memory)
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       16777216 kB\nMemFree:          524288 kB\nMemAvailable:    4194304 kB\n",
    );
    const GROUP: (&str, &str) = ("proc/self/cgroup", "1:name=x:/\n0::/system.slice/x.service\n");

    #[rstest]
    #[case::machine(&[MEMINFO], Some(4 * GIB))]
    #[case::unknown(&[], None)]
    #[case::no_limit(
        &[MEMINFO, GROUP, ("cgroup/system.slice/memory.max", "max\n"), ("cgroup/system.slice/memory.current", "7")],
        Some(4 * GIB)
    )]
    #[case::limit_of_parent_group(
        &[
            MEMINFO,
            GROUP,
            ("cgroup/system.slice/memory.max", "3221225472\n"),
            ("cgroup/system.slice/memory.current", "2147483648\n"),
        ],
        Some(GIB)
    )]
    #[case::page_cache_is_reclaimable(
        &[
            MEMINFO,
            GROUP,
            ("cgroup/system.slice/x.service/memory.max", "2147483648\n"),
            ("cgroup/system.slice/x.service/memory.current", "2147483648\n"),
            ("cgroup/system.slice/x.service/memory.stat", "anon 1\nfile 2\nactive_file 1073741824\ninactive_file 0\n"),
        ],
        Some(GIB)
    )]
    #[case::over_its_limit(
        &[GROUP, ("cgroup/memory.max", "5"), ("cgroup/memory.current", "9")],
        Some(0)
    )]
    fn determines_the_available_memory(#[case] files: &[(&str, &str)], #[case] want: Option<u64>) {
        assert_eq!(machine(files).1.available(), want);
    }

    #[test]
    fn counts_oom_kills() {
        assert_eq!(machine(&[]).1.kills(), 0);
        assert_eq!(machine(&[("proc/vmstat", "pgscan 5\noom_kill 7\n")]).1.kills(), 7);
    }

    #[test]
    fn reads_the_memory_of_this_machine() {
        assert!(Memory::default().available().is_some_and(|bytes| bytes > 0));
    }

    #[rstest]
    #[case::plenty(64 * GIB, GIB, 8, 8)]
    #[case::some(3 * GIB + 5, GIB, 8, 3)]
    #[case::at_least_one(5, GIB, 8, 1)]
    #[case::no_limit(0, 0, 8, 8)]
    fn memory_limits_the_number_of_jobs(
        #[case] available: u64,
        #[case] per_job: u64,
        #[case] most: usize,
        #[case] want: usize,
    ) {
        assert_eq!(fitting(available, per_job, most), want);
    }

    #[test]
    fn reports_that_memory_limits_the_jobs() {
        let (_root, memory) = machine(&[MEMINFO]);
        assert_eq!(Gate::new(&memory, GIB).jobs(4), (4, None));
        let (jobs, message) = Gate::new(&memory, GIB).jobs(16);
        assert_eq!(jobs, 4);
        insta::assert_snapshot!(message.unwrap(), @"parallel jobs limited to 4 instead of 16: 4096 MiB of memory available, 1024 MiB per job (memory_per_job in /etc/dkms/alpm-dkms.toml)");
    }

    #[test]
    fn gate_reserves_memory_for_recently_started_builds() {
        let (_root, memory) = machine(&[MEMINFO]);
        let mut gate = Gate::new(&memory, 2 * GIB);
        for running in 0..2 {
            assert!(gate.admits(running));
            gate.starts();
        }
        assert!(!gate.admits(2), "4 GiB available, all reserved by running builds");
        assert!(gate.admits(0), "at least one build runs");
        assert!(gate.admits(1), "a build has ended and released its memory");
    }
}
