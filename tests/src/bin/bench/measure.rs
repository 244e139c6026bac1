//! Runs programs in a root and measures wall-clock time, CPU time and the memory of our programs.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stories::{Completed, PackageFile, Root, Started};

use crate::machine::Side;

/// The time limit of a measurement.
const LIMIT: Duration = Duration::from_secs(3600);

/// A hook that aborts each transaction that installs a kernel.
const ABORTING_HOOK: &str = "[Trigger]
Type = Path
Operation = Install
Operation = Upgrade
Target = usr/lib/modules/*/vmlinuz
[Action]
When = PreTransaction
Exec = /usr/bin/false
AbortOnFail
";

/// The delay before our programs' memory is first read. Shorter runs are not disturbed.
const FIRST_GLANCE: Duration = Duration::from_millis(20);

/// The longest delay between two reads. Reading all processes disturbs the measurement, and rare
/// reads are enough because each returns the peak.
const PAUSE: Duration = Duration::from_millis(500);

/// pacman's lock file.
const LOCK: &str = "var/lib/pacman/db.lck";

/// The programs whose memory is measured.
const OURS: [&str; 5] = ["dkms", "dkms-install", "dkms-preflight", "dkms-remove", "alpm-query"];

/// The measurements of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// The wall-clock time.
    pub wall: Duration,
    /// The user and system time of the program and its descendants.
    pub cpu: Duration,
    /// The peak resident memory of our programs, in KiB, summed over those that ran at the same
    /// time.
    pub memory: u64,
}

impl Figure {
    /// Subtracts the time that starting a program takes.
    pub(crate) fn without(self, startup: Duration) -> Self {
        Self { wall: self.wall.saturating_sub(startup), ..self }
    }
}

/// Returns the number of CPUs.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Installs packages in one transaction, in a UTF-8 locale, in which pacman matches triggers more
/// slowly.
pub(crate) fn transaction(root: &Root, packages: &[PackageFile]) -> Figure {
    let pacman = ["LC_ALL=C.UTF-8", "pacman", "--noconfirm", "--noprogressbar", "-U"];
    let files = packages.iter().map(|package| package.file.as_str());
    let args: Vec<&str> = pacman.into_iter().chain(files).collect();
    measure(root, || root.start("env", &args), |output| drop(output.ok().hooks_succeed()))
}

/// Starts to install a kernel without its headers, and lets a hook abort the transaction.
///
/// With alpm-dkms, this is the preflight, because a critical module would be lost. Otherwise, it is a
/// hook that always fails, and the package is then unpacked for comparison.
pub(crate) fn abort(root: &Root, side: Side, kernel: &PackageFile) -> Figure {
    let file = &kernel.file;
    let unpacking = match side {
        Side::Ours => {
            root.write("etc/dkms/alpm-dkms.toml", "[preflight]\ncritical = \"vhba\"\n");
            String::new()
        }
        Side::Dkms | Side::PacmanOnly => {
            root.write("etc/pacman.d/hooks/04-abort.hook", ABORTING_HOOK);
            format!(" && bsdtar -xf {file} -C $(mktemp -d)")
        }
    };
    let pacman = "LC_ALL=C.UTF-8 pacman --noconfirm --noprogressbar -U";
    run(root, "bash", &["-c", &format!("! {pacman} {file}{unpacking}")])
}

/// Runs a program that must succeed.
pub(crate) fn run(root: &Root, program: &str, args: &[&str]) -> Figure {
    measure(root, || root.start(program, args), |output| drop(output.ok()))
}

/// Runs the hook with the targets that pacman passes after installing these packages.
pub(crate) fn hook(root: &Root, side: Side, packages: &[PackageFile]) -> Figure {
    let targets: String = packages.iter().map(target).collect();
    root.write("srv/targets", &targets);
    root.write(LOCK, "");
    let hook = match side {
        Side::Ours => "/usr/lib/alpm-dkms/dkms-install",
        Side::Dkms | Side::PacmanOnly => "/usr/share/libalpm/scripts/dkms install",
    };
    // The hook's parent process keeps the lock file open, as pacman does.
    let figure = in_shell(root, &format!("exec 9</{LOCK}; {hook}"));
    fs::remove_file(root.path(LOCK)).expect("remove the lock");
    figure
}

/// Runs a command that must succeed.
pub(crate) fn command(root: &Root, command: &str) -> Figure {
    root.write("srv/targets", "");
    in_shell(root, command)
}

/// Returns the median time to run `true` in a root.
pub(crate) fn startup_time(root: &Root) -> Duration {
    root.write("srv/targets", "");
    let mut walls: Vec<Duration> = (0..21).map(|_| in_shell(root, "true").wall).collect();
    walls.sort();
    walls.get(walls.len() / 2).copied().unwrap_or_default()
}

fn in_shell(root: &Root, command: &str) -> Figure {
    run(root, "sh", &["-c", &format!("{command} </srv/targets; exit $?")])
}

/// Returns the target that pacman passes for a headers package or a module package.
fn target(package: &PackageFile) -> String {
    match package.content.split_once('/') {
        Some((name, version)) => format!("usr/src/{name}-{version}/dkms.conf\n"),
        None => format!("usr/lib/modules/{}/build/include/\n", package.content),
    }
}

/// Drops the kernel's page cache, dentries and inodes.
pub(crate) fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drop the caches as root");
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

/// Returns the CPU time of all children that have exited, including their descendants.
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("read /proc/self/stat");
    // proc_pid_stat(5): cutime and cstime are fields 16 and 17; field 3 follows the `)`.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(16 - 3);
    let ticks: u64 = fields.take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // The unit is a clock tick, 1/100 s on Linux.
    Duration::from_millis(ticks * 10)
}

/// Watches our programs in a root until `ended` and returns their peak resident memory in KiB.
fn watch(root: &Root, ended: &AtomicBool) -> u64 {
    let top = root.path("");
    let (mut most, mut pause) = (0, FIRST_GLANCE);
    while !ended.load(Ordering::Relaxed) {
        thread::park_timeout(pause);
        pause = PAUSE.min(pause * 2);
        // Keyed by program name: between fork and exec, a child looks like a second parent.
        let mut peaks: BTreeMap<String, u64> = BTreeMap::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            // Other entries of /proc and processes that have exited have no such link.
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
