//! Bounds the jobs of a run by the machine's memory, and counts the kills of the OOM killer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a build takes to need as much as it ever will. Until then what it will need is not
/// missing from what is available.
const YOUNG: Duration = Duration::from_secs(15);

/// Where the kernel describes its memory.
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
    /// Reads the files in these places, see proc(5) and the kernel's cgroup-v2 documentation.
    #[must_use]
    pub fn at(proc: &Path, cgroups: &Path) -> Self {
        Self { proc: proc.to_owned(), cgroups: cgroups.to_owned() }
    }

    /// How many bytes can be used before the machine swaps, or before a control group that we are
    /// in is at its limit. `None` if that is not known.
    #[must_use]
    pub(crate) fn available(&self) -> Option<u64> {
        let machine = fs::read_to_string(self.proc.join("meminfo")).ok();
        let machine = machine.and_then(|text| number(&text, "MemAvailable:"));
        let machine = machine.map(|kib| kib.saturating_mul(1024));
        let groups = self.own_group().unwrap_or_default();
        let groups = groups.ancestors().filter_map(|group| self.left_in(group));
        groups.chain(machine).min()
    }

    /// How many processes the kernel has killed for want of memory since it started.
    #[must_use]
    pub(crate) fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.proc.join("vmstat")).unwrap_or_default();
        number(&text, "oom_kill").unwrap_or_default()
    }

    /// Our control group, as a path below their root.
    fn own_group(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.proc.join("self/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from)
    }

    /// What a group may still take; `None` if it has no limit. The files that it keeps in memory
    /// make room when they have to.
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

/// The number in the line that begins with the word `name`.
fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    line.next()?.parse().ok()
}

/// Lets as many builds run as fit into memory, and at least one.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    memory: &'a Memory,
    per_job: u64,
    starts: Vec<Instant>,
}

impl<'a> Gate<'a> {
    /// A gate that counts on `per_job` bytes for each job; 0 disables it.
    pub(crate) fn new(memory: &'a Memory, per_job: u64) -> Self {
        Self { memory, per_job, starts: Vec::new() }
    }

    /// How many jobs fit into what is available now, at most `most`; and in words if that is less.
    pub(crate) fn jobs(&self, most: usize) -> (usize, Option<String>) {
        let Some(available) = self.memory.available() else { return (most, None) };
        let fit = fitting(available, self.per_job, most);
        let less = || {
            const MIB: u64 = 1024 * 1024;
            format!(
                "{fit} instead of {most} jobs at once: {} MiB of memory are available, and [build] \
                 memory_per_job in /etc/dkms/alpm-dkms.toml counts on {} MiB for each",
                available / MIB,
                self.per_job / MIB
            )
        };
        (fit, (fit < most).then(less))
    }

    /// Returns true if one more build may start while `running` others run.
    pub(crate) fn admits(&mut self, running: usize) -> bool {
        self.starts.retain(|start| start.elapsed() < YOUNG);
        let Some(available) = self.memory.available() else { return true };
        let young = self.starts.len().min(running);
        running == 0 || fitting(available, self.per_job, young + 1) > young
    }

    /// Notes that a build starts now.
    pub(crate) fn starts(&mut self) {
        self.starts.push(Instant::now());
    }
}

/// How many jobs that take `per_job` bytes fit into `available` bytes: one to `most`.
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

    /// A machine with these files and their content.
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
    #[case::a_limit_above_us(
        &[
            MEMINFO,
            GROUP,
            ("cgroup/system.slice/memory.max", "3221225472\n"),
            ("cgroup/system.slice/memory.current", "2147483648\n"),
        ],
        Some(GIB)
    )]
    #[case::files_make_room(
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
    fn knows_what_is_available(#[case] files: &[(&str, &str)], #[case] want: Option<u64>) {
        assert_eq!(machine(files).1.available(), want);
    }

    #[test]
    fn counts_kills() {
        assert_eq!(machine(&[]).1.kills(), 0);
        assert_eq!(machine(&[("proc/vmstat", "pgscan 5\noom_kill 7\n")]).1.kills(), 7);
    }

    #[test]
    fn reads_what_this_machine_tells() {
        assert!(Memory::default().available().is_some_and(|bytes| bytes > 0));
    }

    #[rstest]
    #[case::plenty(64 * GIB, GIB, 8, 8)]
    #[case::some(3 * GIB + 5, GIB, 8, 3)]
    #[case::one_always(5, GIB, 8, 1)]
    #[case::no_limit(0, 0, 8, 8)]
    fn as_many_as_fit(
        #[case] available: u64,
        #[case] per_job: u64,
        #[case] most: usize,
        #[case] want: usize,
    ) {
        assert_eq!(fitting(available, per_job, most), want);
    }

    #[test]
    fn reports_when_fewer_run() {
        let (_root, memory) = machine(&[MEMINFO]);
        assert_eq!(Gate::new(&memory, GIB).jobs(4), (4, None));
        let (jobs, said) = Gate::new(&memory, GIB).jobs(16);
        assert_eq!(jobs, 4);
        insta::assert_snapshot!(said.unwrap(), @"4 instead of 16 jobs at once: 4096 MiB of memory are available, and [build] memory_per_job in /etc/dkms/alpm-dkms.toml counts on 1024 MiB for each");
    }

    #[test]
    fn keeps_memory_for_those_that_have_just_started() {
        let (_root, memory) = machine(&[MEMINFO]);
        let mut gate = Gate::new(&memory, 2 * GIB);
        for running in 0..2 {
            assert!(gate.admits(running));
            gate.starts();
        }
        assert!(!gate.admits(2), "4 GiB are available, and both are for those that run");
        assert!(gate.admits(0), "one always runs");
        assert!(gate.admits(1), "one of those has ended, and what it had is there again");
    }
}
