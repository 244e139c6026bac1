//! pacman is killed while it replaces files: no kernel loses its working module, and the same
//! transaction completes later.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{
    assert_no_processes, assert_status, installed, kernel, machine, release, tell, traces,
};

/// The calls with which pacman changes files and starts hooks.
const CHANGES: &str = "/^unlink,/^rename,/^mkdir,/^symlink,/^link,rmdir,/^clone,/fork";

/// With [`ALL`], the number of kills while headers are replaced, which have thousands of similar
/// files.
const IN_HEADERS: usize = 60;
/// With [`ALL`], the number of kills while pacman writes files.
const WRITING: usize = 30;

/// As `points`: every change outside the headers, and some of the other moments.
const ALL: usize = usize::MAX;

/// Deletes the incomplete entries of pacman's database, with which pacman refuses to work.
const MEND_DATABASE: &str = "cd /var/lib/pacman/local && \
    for entry in */; do test -e $entry/desc -a -e $entry/files || rm -r $entry; done";

/// A transaction on a machine.
struct Transaction {
    before: Root,
    args: String,
}

/// A call of pacman.
#[derive(Clone)]
struct Call {
    name: String,
    /// The number among the calls of that name.
    number: usize,
    /// Whether the call changes a file of headers.
    in_headers: bool,
}

/// Returns `points` of the calls, spread over all of them.
fn spread(calls: &[Call], points: usize) -> Vec<Call> {
    let points = points.min(calls.len());
    (0..points).map(|point| calls[(2 * point + 1) * calls.len() / (2 * points)].clone()).collect()
}

impl Transaction {
    fn new(before: Root, action: &str, packages: &[&str]) -> Self {
        // After an interruption, files exist that no package owns.
        let overwrite = if action == "-R" { "" } else { "--overwrite '*' " };
        let args = format!("{action} --noconfirm {overwrite}{}", packages.join(" "));
        Self { before, args }
    }

    fn of(before: Root, packages: &[PackageFile]) -> Self {
        let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
        Self::new(before, "-U", &files)
    }

    /// Returns the command that repeats the transaction. A package that is gone cannot be removed.
    fn again(&self) -> String {
        match self.args.strip_prefix("-R --noconfirm ") {
            Some(package) => format!("! pacman -Qq {package} || pacman {}", self.args),
            None => format!("pacman {}", self.args),
        }
    }

    /// Runs the transaction under strace, which traces pacman but not its hooks.
    fn trace(&self, root: &Root, options: &str) -> stories::Completed {
        root.shell(&format!("exec strace -o /srv/calls {options} pacman {}", self.args))
    }

    /// Returns the calls of an uninterrupted run with these names, in order.
    fn calls(&self, names: &str) -> Vec<Call> {
        let root = self.before.fork();
        self.trace(&root, &format!("-e trace={names}")).ok();
        let text = root.read("srv/calls");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut calls = Vec::new();
        for (name, rest) in text.lines().filter_map(|line| line.split_once('(')) {
            if name.contains(' ') {
                continue; // a signal
            }
            let number = counts.entry(name).and_modify(|count| *count += 1).or_insert(1);
            let in_headers = rest.contains("/build/");
            calls.push(Call { name: name.to_owned(), number: *number, in_headers });
        }
        calls
    }

    /// Returns the calls at which pacman is killed.
    fn moments(&self, points: usize) -> Vec<Call> {
        let changes = self.calls(CHANGES);
        assert!(changes.len() > 10, "only {} changes", changes.len());
        if points != ALL {
            return spread(&changes, points);
        }
        let (headers, mut moments): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|call| call.in_headers);
        moments.extend(spread(&headers, IN_HEADERS));
        moments.extend(spread(&self.calls("write"), WRITING));
        moments
    }

    /// Kills pacman at `points` of its changes. After each, calls `look` once the boot unit has run,
    /// and then `finish` once the transaction has been repeated.
    #[track_caller]
    fn kill(&self, points: usize, look: impl Fn(&Root, &str), finish: impl Fn(&Root, &str)) {
        let moments = self.moments(points);
        let mut faults = Vec::new();
        for Call { name, number, .. } in &moments {
            let when = format!("killed at {name} number {number} of {}", self.args);
            let trial = || {
                let root = self.before.fork();
                let inject = format!("-e trace={name} -e inject={name}:signal=KILL:when={number}");
                let output = self.trace(&root, &inject);
                assert_eq!(output.code, 128 + 9, "{when}: {}", output.text);
                wait_for_hook(&root);
                assert_no_processes(&root, &when);
                root.shell("rm -f /var/lib/pacman/db.lck").ok();
                let unit = root.boot_unit();
                look(&root, &format!("{when}\n{}", unit.text));
                root.shell(MEND_DATABASE).ok();
                let again = root.shell(&self.again()).ok();
                finish(&root, &format!("{when}, then again\n{}\n{}", unit.text, again.text));
            };
            // After a failure, go on with the other kills. The panic's message has already been
            // printed.
            if catch_unwind(AssertUnwindSafe(trial)).is_err() {
                faults.push(when);
            }
        }
        let count = moments.len();
        assert!(faults.is_empty(), "{} of {count} kills:\n{}", faults.len(), faults.join("\n"));
        tell(&format!("killed {count} times, no faults: {}", self.args));
    }
}

/// pacman is killed while it unpacks a source again. Other transactions do not complete the source,
/// so hooks do not build it, and the preflight does not count on it. The printed command installs
/// the package again.
#[test]
fn an_incomplete_source_is_left_alone_until_its_package_is_installed_again() {
    let again = Transaction::of(machine(&[find("bbswitch")]), &[find("bbswitch")]);
    let root = &again.before;
    let inject =
        "-P /usr/src/bbswitch-0.8/bbswitch.c -e trace=openat -e inject=openat:signal=KILL:when=1";
    again.trace(root, inject).exits(128 + 9);
    let advice = "/var/lib/pacman/local/bbswitch-dkms-0.8-1 && \
                  pacman -S --overwrite '*' bbswitch-dkms";
    root.boot_unit().ok().has(&format!("run: rm -rf /var/lib/pacman/db.lck {advice}"));
    root.shell("rm /var/lib/pacman/db.lck").ok();
    let advice = format!("run: rm -rf {advice}");
    let advice = advice.as_str();
    root.install(&[find("acpi-call")]).hooks_succeed().has(advice);
    root.dkms(&["autoinstall", "--all"])
        .ok()
        .has("/usr/src/bbswitch-0.8: skipped: pacman was interrupted")
        .has(advice);
    root.dkms(&["verify"]).exits(11).has(advice);
    root.assert_works(&release(), "bbswitch");
    root.write("etc/dkms/alpm-dkms.toml", "[preflight]\ncritical = [\"bbswitch\"]\n");
    root.unmask_preflight();
    let [kernel, headers] = kernel("linux", 2);
    let upgrade = root.pacman(&["-U", &kernel.file, &headers.file]).exits(1);
    upgrade.has("its source is incomplete: /usr/src/bbswitch-0.8;");
    assert_eq!(root.kernels(), [release()]);
    root.make_repository(&[find("bbswitch")]);
    root.pacman(&["-Sy"]).ok();
    root.shell(&format!("yes | {{ {}; }}", advice.trim_start_matches("run: "))).ok();
    root.install(&[kernel.clone(), headers]).hooks_succeed();
    root.assert_works(kernel.release(), "bbswitch");
    root.assert_settled();
}

/// Even if nothing is left of an interrupted transaction but the entry that pacman had begun.
#[test]
fn verify_names_a_package_that_pacman_refuses() {
    let root = machine(&[find("bbswitch")]);
    root.dkms(&["verify"]).ok();
    root.shell("mkdir /var/lib/pacman/local/acpi-call-dkms-1.2.2-1").ok();
    root.pacman(&["-U", &find("acpi-call").file]).exits(1).has("acpi-call-dkms-1.2.2-1/desc");
    root.dkms(&["verify"]).exits(11).has(
        "run: rm -rf /var/lib/pacman/local/acpi-call-dkms-1.2.2-1 && pacman -S --overwrite '*' \
         acpi-call-dkms",
    );
    root.shell("rm -r /var/lib/pacman/local/acpi-call-dkms-1.2.2-1").ok();
    root.dkms(&["verify"]).ok();
    root.install(&[find("acpi-call")]).hooks_succeed();
}

/// Waits for a hook that still runs after pacman has been killed.
fn wait_for_hook(root: &Root) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !root.processes().is_empty() && Instant::now() < patience {
        sleep(Duration::from_millis(50));
    }
}

/// Installs `new` and then `old` again for [`ALL`], so that the builds of `new` are in the cache.
/// Otherwise the trials would spend most of their time compiling.
fn cache(root: &Root, points: usize, new: &[PackageFile], old: &[PackageFile]) {
    if points == ALL {
        root.install(new).hooks_succeed();
        root.install(old).hooks_succeed();
    }
}

/// Asserts that a module is in a kernel's directory and in its index.
#[track_caller]
fn assert_has(root: &Root, release: &str, module: &str, when: &str) {
    assert!(root.indexed(release, module).is_some(), "{release} lacks {module}: {when}");
    root.assert_works(release, module);
}

/// bbswitch is upgraded.
fn module_upgrade(points: usize) {
    let new = find("bbswitch-next");
    let packages = std::slice::from_ref(&new);
    let before = machine(&[find("bbswitch")]);
    cache(&before, points, packages, &[find("bbswitch")]);
    let upgrade = Transaction::of(before, packages);
    upgrade.kill(
        points,
        |root, when| assert_has(root, &release(), "bbswitch", when),
        |root, when| {
            assert_has(root, &release(), "bbswitch", when);
            assert_status(root, &[installed(new.module(), &release())]);
            root.assert_settled();
        },
    );
}

#[test]
fn a_module_upgrade_loses_no_module() {
    module_upgrade(8);
}

/// Returns true if a kernel and its headers are in pacman's database.
fn is_complete(root: &Root, release: &str) -> bool {
    let order = format!("/usr/lib/modules/{release}/modules.order");
    let headers = format!("/usr/lib/modules/{release}/build/include/");
    root.shell(&format!("pacman -Qqo {order} {headers}")).code == 0
}

/// The kernel is upgraded, and bbswitch with it if `module` is true.
fn kernel_upgrade(points: usize, module: bool) {
    let new = kernel("linux", 2);
    let release = new[0].release().to_owned();
    let mut packages = new.to_vec();
    packages.extend(module.then(|| find("bbswitch-next")));
    let before = machine(&[find("bbswitch")]);
    cache(&before, points, &packages, &[&kernel("linux", 1)[..], &[find("bbswitch")]].concat());
    let upgrade = Transaction::of(before, &packages);
    let old = crate::fixture::release();
    upgrade.kill(
        points,
        |root, when| {
            for kernel in [&old, &release].into_iter().filter(|kernel| is_complete(root, kernel)) {
                assert_has(root, kernel, "bbswitch", when);
            }
        },
        |root, when| {
            assert_has(root, &release, "bbswitch", when);
            assert_eq!(root.kernels(), [release.as_str()], "{when}");
            root.assert_settled();
        },
    );
}

#[test]
fn a_kernel_upgrade_leaves_no_complete_kernel_without_its_module() {
    kernel_upgrade(6, false);
}

#[test]
fn an_upgrade_of_kernel_and_module_leaves_no_complete_kernel_without_its_module() {
    kernel_upgrade(5, true);
}

/// bbswitch is removed.
fn removal(points: usize) {
    let before = machine(&[find("bbswitch"), find("acpi-call")]);
    let removal = Transaction::new(before, "-R", &["bbswitch-dkms"]);
    removal.kill(
        points,
        |root, when| {
            assert_has(root, &release(), "acpi_call", when);
            // As long as pacman lists the package, its module stays.
            if root.shell("pacman -Qq bbswitch-dkms").code == 0 {
                assert_has(root, &release(), "bbswitch", when);
            }
        },
        |root, when| {
            let unit = root.boot_unit();
            // Once the package's entry is gone from the database, pacman does not delete the
            // package's remaining files.
            if !root.exists("usr/src/bbswitch-0.8/dkms.conf") {
                assert_eq!(traces(root, "bbswitch"), [""; 0], "{when}\n{}", unit.text);
            }
            root.assert_settled();
        },
    );
}

#[test]
fn a_removal_takes_no_other_module() {
    removal(4);
}

/// A package of another name replaces tiny-dkms and brings the same module in a newer version.
fn replacement(points: usize) {
    let before = machine(&[]);
    before.install(&[Recipe::module("tiny", "1.0").make(&before)]).hooks_succeed();
    let new = Recipe::module("tiny", "2.0").package("tiny-open-dkms").replacing("tiny-dkms");
    let new = new.make(&before);
    // --noconfirm answers no where packages conflict.
    let mut replacement = Transaction::of(before, &[new]);
    replacement.args = format!("--ask 4 {}", replacement.args);
    replacement.kill(
        points,
        |root, when| assert_has(root, &release(), "tiny", when),
        |root, when| {
            assert_has(root, &release(), "tiny", when);
            assert_status(root, &[installed("tiny/2.0", &release())]);
            root.assert_settled();
        },
    );
}

#[test]
fn a_replacement_loses_no_module() {
    replacement(6);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_kill_of_a_module_upgrade() {
    module_upgrade(ALL);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_kill_of_a_kernel_upgrade() {
    kernel_upgrade(ALL, false);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_kill_of_an_upgrade_of_kernel_and_module() {
    kernel_upgrade(ALL, true);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_kill_of_a_removal() {
    removal(ALL);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_kill_of_a_replacement() {
    replacement(ALL);
}
