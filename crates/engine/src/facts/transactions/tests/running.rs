//! Tests of running transactions, and of everything that transactions and pending work concern.

use std::fs;

use super::*;

impl Upgrade {
    /// Records an upgrade of foo-dkms that the process `pid` performs.
    fn by(pid: u32) -> Self {
        let upgrade = Self::recorded();
        let trees = &upgrade.machine.trees;
        Journal::read_all(trees)[0].clear(trees).unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let started = fields.split(' ').nth(19).unwrap();
        let text = toml::to_string(&Transaction::of_this_hook(trees)).unwrap();
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("pid", _)) => format!("pid = {pid}\n"),
            Some(("started", _)) => format!("started = {started}\n"),
            _ => format!("{line}\n"),
        });
        let transaction = toml::from_str(&lines.collect::<String>()).unwrap();
        let running = Self { transaction, ..upgrade };
        running.record(Operation::Arriving, &[NEW]);
        running
    }
}

#[test]
fn names_the_process_of_a_running_transaction() {
    // This process is running, but is not one of its own ancestors.
    let this = std::process::id();
    let running = Upgrade::by(this);
    assert_eq!(running.judge().stage, Stage::Running { waits_for_us: false });
    assert!(running.judge().is_running());
    assert_eq!(running_pacman(&running.machine), Some(this));
    // pacman waits for the processes that it has started.
    let parent = std::os::unix::process::parent_id();
    let around = Upgrade::by(parent);
    assert_eq!(around.judge().stage, Stage::Running { waits_for_us: true });
    assert!(around.judge().is_running());
    assert_eq!(running_pacman(&around.machine), None);
    // The process of this transaction has ended.
    let ended = Upgrade::recorded();
    assert!(!ended.judge().is_running());
    assert_eq!(running_pacman(&ended.machine), None);
}

#[test]
fn collects_everything_that_transactions_and_pending_work_concern() {
    let kernel = |release: &str| release.parse::<KernelRelease>().unwrap();
    let dir = |name: &str| name.to_owned();
    let pending = [
        PendingWork::Source(dir("source-1")),
        PendingWork::DepartedSource(dir("departed-1")),
        PendingWork::Kernel(kernel("7.1")),
        PendingWork::DepartedKernel(kernel("7.2")),
        PendingWork::Install { module: "a/1".parse().unwrap(), kernel: kernel("7.3") },
        PendingWork::Uninstall { module: "a/1".parse().unwrap(), kernel: kernel("7.4") },
        PendingWork::Transaction { sources: [dir("b-1")].into(), kernels: [kernel("7.5")].into() },
        PendingWork::Remove("removed/1".parse().unwrap()),
        PendingWork::Image { kernel: kernel("7.9"), objects: BTreeSet::new() },
    ];
    let upgrade = Upgrade::recorded();
    upgrade.remove_old();
    let all = concerned(&pending, &[upgrade.judge()]);
    let want = ["b-1", "departed-1", "foo-1", "foo-2", "removed-1", "source-1"];
    assert_eq!(sources(&all), want);
    let kernels: Vec<&str> = all.kernels.iter().map(KernelRelease::as_str).collect();
    assert_eq!(kernels, ["7.1", "7.2", "7.2.12-arch1-1", "7.3", "7.4", "7.5"]);
}
