//! Runs programs in a root and measures them: seconds, processor time, and the memory of our own programs.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stories::{Completed, PackageFile, Root, Started};

use crate::machine::Side;

/// How long a measurement may take at most.
const LIMIT: Duration = Duration::from_secs(3600);

/// When our own programs' memory is looked at for the first time. What takes less is not disturbed.
const FIRST_GLANCE: Duration = Duration::from_millis(20);

/// How long to wait between two looks at most. It is the peak that is read, so that little is missed, and each look at all
/// processes takes time from what is measured.
const PAUSE: Duration = Duration::from_millis(500);

/// Our own programs, which may use little memory beside the compilers.
const OURS: [&str; 4] = ["dkms", "dkms-install", "dkms-remove", "alpm-query"];

/// What was measured of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// From start to end.
    pub wall: Duration,
    /// User and system time of the program and everything it started.
    pub cpu: Duration,
    /// The greatest resident memory of our own programs, in KiB, of those that ran at the same time.
    pub memory: u64,
}

impl Figure {
    /// The same without the time that it took to start it.
    pub(crate) fn without(self, starting: Duration) -> Self {
        Self { wall: self.wall.saturating_sub(starting), ..self }
    }
}

/// How many jobs the machine does at once.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Installs packages in one transaction, in a UTF-8 locale: there, pacman takes longer to match triggers.
pub(crate) fn transaction(root: &Root, packages: &[PackageFile]) -> Figure {
    let pacman = ["LC_ALL=C.UTF-8", "pacman", "--noconfirm", "--noprogressbar", "-U"];
    let files = packages.iter().map(|package| package.file.as_str());
    let args: Vec<&str> = pacman.into_iter().chain(files).collect();
    measure(root, || root.start("env", &args), |output| drop(output.ok().hooks_succeed()))
}

/// Runs a program, which must succeed.
pub(crate) fn run(root: &Root, program: &str, args: &[&str]) -> Figure {
    measure(root, || root.start(program, args), |output| drop(output.ok()))
}

/// Runs the hook as pacman does after it installed these packages.
pub(crate) fn hook(root: &Root, side: Side, packages: &[PackageFile]) -> Figure {
    let targets: String = packages.iter().map(target).collect();
    root.write("srv/targets", &targets);
    in_shell(
        root,
        match side {
            Side::Ours => "/usr/lib/alpm-dkms/dkms-install",
            Side::Dkms | Side::Nobody => "/usr/share/libalpm/scripts/dkms install",
        },
    )
}

/// Runs `dkms status`.
pub(crate) fn status(root: &Root) -> Figure {
    root.write("srv/targets", "");
    in_shell(root, "dkms status")
}

/// How long it takes to start a program in a root that does nothing there: the median of some.
pub(crate) fn starting(root: &Root) -> Duration {
    root.write("srv/targets", "");
    let mut walls: Vec<Duration> = (0..21).map(|_| in_shell(root, "true").wall).collect();
    walls.sort();
    walls.get(walls.len() / 2).copied().unwrap_or_default()
}

fn in_shell(root: &Root, command: &str) -> Figure {
    run(root, "sh", &["-c", &format!("exec {command} </srv/targets")])
}

/// The target that pacman tells a hook of a package of headers or of a module.
fn target(package: &PackageFile) -> String {
    match package.content.split_once('/') {
        Some((name, version)) => format!("usr/src/{name}-{version}/dkms.conf\n"),
        None => format!("usr/lib/modules/{}/build/include/\n", package.content),
    }
}

/// Makes the kernel forget the files that it keeps in memory.
pub(crate) fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drop the caches, which needs root");
}

fn measure(root: &Root, start: impl FnOnce() -> Started, check: impl FnOnce(Completed)) -> Figure {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(root, &ended));
        let cpu = children_cpu();
        let began = Instant::now();
        let output = start().within(LIMIT).finish();
        let wall = began.elapsed();
        let cpu = children_cpu() - cpu;
        ended.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        check(output);
        let memory = watcher.join().expect("watch memory");
        Figure { wall, cpu, memory }
    })
}

/// The processor time of all children that have ended, with theirs.
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("read about ourselves");
    // proc_pid_stat(5): cutime and cstime are fields 16 and 17; the third one follows the name's bracket.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(16 - 3);
    let ticks: u64 = fields.take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // USER_HZ, the unit of these files, is 100 on Linux.
    Duration::from_millis(ticks * 10)
}

/// Watches our own programs in a root until the end: their greatest resident memory in KiB.
fn watch(root: &Root, ended: &AtomicBool) -> u64 {
    let top = root.path("");
    let (mut most, mut pause) = (0, FIRST_GLANCE);
    while !ended.load(Ordering::Relaxed) {
        thread::park_timeout(pause);
        pause = PAUSE.min(pause * 2);
        // By program: one that is just starting another looks as if it ran twice.
        let mut peaks: BTreeMap<String, u64> = BTreeMap::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            // Of other entries, and of processes that have ended, there is no such link.
            let Ok(program) = fs::read_link(process.path().join("exe")) else { continue };
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !program.starts_with(&top) || !OURS.contains(&name.as_str()) {
                continue;
            }
            let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            let known = peaks.entry(name).or_default();
            *known = peak.unwrap_or_default().max(*known);
        }
        most = most.max(peaks.values().sum());
    }
    most
}
