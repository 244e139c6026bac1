//! The root of a story: an overlay over a stage of the testbed, discarded afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use walkdir::WalkDir;

use crate::packages::{PackageFile, real_mkinitcpio, stages, testbed};
use crate::run::{Completed, Started, run, start};

/// The directory of our hook programs.
const LIB: &str = "usr/lib/alpm-dkms";

/// The override that turns the hook off (alpm-hooks(5)).
const PREFLIGHT_MASK: &str = "etc/pacman.d/hooks/04-dkms-preflight.hook";

/// A fresh machine with real pacman, entered with chroot. Dropping it kills its processes and
/// unmounts it, also after a panic.
#[derive(Debug)]
pub struct Root {
    /// A tmpfs that contains the directories of the overlay and its mount point.
    home: PathBuf,
    mount: PathBuf,
    /// The lower directories of the overlay, uppermost first.
    below: Vec<PathBuf>,
}

impl Root {
    /// Creates a root with our package installed. Its preflight hook is masked, in the way an
    /// administrator would mask it, so that the PostTransaction hooks do all the work.
    ///
    /// If `$STORIES_BINARIES` names a directory such as `target/debug`, programs from there and the
    /// .hook files of the checkout replace those of the package. This saves building the package.
    pub fn ready() -> Self {
        Self::ready_over(&[], "ready")
    }

    /// Masks the preflight hook, in the way an administrator would.
    pub fn mask_preflight(&self) {
        symlink("/dev/null", self.path(PREFLIGHT_MASK)).expect("mask the preflight");
    }

    /// Creates a root like [`ready`](Self::ready) that also has the kernel `linux-1` and its headers.
    pub fn with_kernel() -> Self {
        Self::ready_over(&[], "machine")
    }

    /// Creates a root with our package installed and its preflight enabled.
    pub fn with_preflight() -> Self {
        let root = Self::ready();
        root.unmask_preflight();
        root
    }

    /// Undoes [`mask_preflight`](Self::mask_preflight).
    pub fn unmask_preflight(&self) {
        fs::remove_file(self.path(PREFLIGHT_MASK)).expect("unmask the preflight");
    }

    /// Creates a root with our package installed and the files of another stage of the testbed.
    pub fn ready_with(stage: &str) -> Self {
        Self::ready_over(&[testbed().join(stage).join("files")], "ready")
    }

    /// Creates a root over the directories `more`, uppermost first, and a stage of the testbed in
    /// which our package is installed.
    fn ready_over(more: &[PathBuf], stage: &str) -> Self {
        let programs = real_mkinitcpio().map(|stage| stage.join("files"));
        let below = more.iter().cloned().chain(programs).chain([testbed().join(stage)]);
        let root = Self::over(below.collect());
        root.mask_preflight();
        if let Some(built) = std::env::var_os("STORIES_BINARIES") {
            let built =
                Path::new(&built).canonicalize().expect("STORIES_BINARIES names a directory");
            let programs = [
                ("dkms", "usr/bin"),
                ("dkms-install", LIB),
                ("dkms-preflight", LIB),
                ("dkms-remove", LIB),
                ("mkinitcpio-dkms", LIB),
                ("compile-once", LIB),
                ("dkms-confine", LIB),
                // Built only in the testbed.
                ("alpm-query", LIB),
            ];
            let there = |(program, _): &(&str, &str)| built.join(program).exists();
            for (program, place) in programs.into_iter().filter(there) {
                fs::copy(built.join(program), root.path(place).join(program))
                    .expect("copy a program from STORIES_BINARIES");
            }
            let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let script = root.path("usr/share/libalpm/scripts/dkms");
            fs::copy(checkout.join("packaging/scripts-dkms"), script).expect("copy the script");
            let hooks = checkout.join("libalpm-hooks");
            root.shell("pacman -Qlq alpm-dkms | grep '[.]hook$' | xargs rm").ok();
            for hook in fs::read_dir(hooks).expect("list our hooks").flatten() {
                let place = root.path("usr/share/libalpm/hooks").join(hook.file_name());
                fs::copy(hook.path(), place).expect("copy a hook of the checkout");
            }
        }
        root
    }

    /// Creates a root without our package, for the migration from dkms.
    pub fn bare() -> Self {
        Self::over(vec![testbed().join("bare")])
    }

    /// Creates a root with the present state of this one.
    ///
    /// This root must not be changed while the fork exists: the fork's overlay is mounted over it.
    pub fn fork(&self) -> Self {
        let mut below = self.below.clone();
        below.insert(0, self.home.join("upper"));
        Self::over(below)
    }

    /// Creates a root over these directories, uppermost first.
    fn over(below: Vec<PathBuf>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        static SWEEP: Once = Once::new();
        let testbed = testbed();
        let all = testbed.join("stories");
        SWEEP.call_once(|| sweep(&all));
        let home =
            all.join(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let root = Self { mount: home.join("root"), home, below };
        root.mount(&testbed);
        root
    }

    /// Mounts the overlay. Its upper directory is on a tmpfs because in a container the checkout
    /// may be on an overlay itself, which cannot contain the upper directory of another overlay.
    fn mount(&self, testbed: &Path) {
        let home = self.home.as_path();
        fs::create_dir_all(home).expect("create the directory of a story");
        mount(&["-t", "tmpfs", "-o", "mode=755", "story"], home);
        mount(&["--make-private"], home);
        fs::create_dir(&self.mount).expect("create the mount point of a root");
        self.overlay(&self.below, "", &self.mount);
        self.mount_kernel_files("");
        for stage in stages() {
            let here = self.path("srv").join(stage);
            fs::create_dir_all(&here).expect("create a directory for packages");
            mount(&["--bind", &testbed.join(stage).display().to_string()], &here);
        }
    }

    /// Mounts an overlay over the directories `below` at `place`. The names of its own directories
    /// end in `suffix`.
    fn overlay(&self, below: &[PathBuf], suffix: &str, place: &Path) {
        let [upper, work] = ["upper", "work"].map(|name| self.home.join(format!("{name}{suffix}")));
        for directory in [&upper, &work] {
            fs::create_dir(directory).expect("create a directory of an overlay");
        }
        let below: Vec<String> = below.iter().map(|path| path.display().to_string()).collect();
        let (upper, work) = (upper.display(), work.display());
        let layers = format!("lowerdir={},upperdir={upper},workdir={work}", below.join(":"));
        mount(&["-t", "overlay", "-o", &layers, "story"], place);
    }

    /// Mounts /proc, /sys and /dev in the root at `top`.
    fn mount_kernel_files(&self, top: &str) {
        mount(&["-t", "proc", "proc"], &self.path(top).join("proc"));
        mount(&["-t", "sysfs", "sys"], &self.path(top).join("sys"));
        let dev = self.path(top).join("dev");
        mount(&["--rbind", "/dev"], &dev);
        // Otherwise unmounting it here would unmount /dev/pts of the host.
        mount(&["--make-rprivate"], &dev);
    }

    /// Creates a second root in a directory of this one that is not a mount point, for `pacman -r`.
    /// Returns its path inside this root.
    ///
    /// It has our package installed and, as with pacstrap, /proc, /sys and /dev mounted.
    pub fn nested_root(&self) -> String {
        // The overlay covers the whole testbed, so the stage is an ordinary directory in it.
        self.overlay(&[testbed()], "-nested", &self.path("mnt"));
        self.mount_kernel_files("mnt/ready");
        "/mnt/ready".into()
    }

    /// Copies the files of a stage of the testbed into this root.
    pub fn copy_stage(&self, stage: &str) {
        let files = testbed().join(stage).join("files/.").display().to_string();
        run("cp", &["-a", &files, &self.mount.display().to_string()]).ok();
    }

    /// Moves directories from the overlay to the disk of the checkout. On an overlay, `stat` takes
    /// twice as long as on a real machine.
    pub fn move_to_disk(&self, paths: &[&str]) {
        for path in paths {
            let place = self.path(path);
            let plain = disk_of(&self.home).join(path);
            fs::create_dir_all(&plain).expect("create a directory on the disk");
            let (from, to) = (place.join("."), plain.display().to_string());
            run("cp", &["-a", &from.display().to_string(), &to]).ok();
            mount(&["--bind", &to], &place);
        }
    }

    /// Moves a directory to a separate file system with `spare` KiB of free space.
    pub fn move_to_full_disk(&self, path: &str, spare: u64) {
        let place = self.path(path);
        let here = place.display().to_string();
        let aside = format!("{here}.aside");
        // An overlay refuses to rename directories of its lower layers.
        run("cp", &["-a", &here, &aside]).ok();
        mount(&["-t", "tmpfs", "-o", "mode=755", "disk"], &place);
        run("cp", &["-a", &format!("{aside}/."), &here]).ok();
        fs::remove_dir_all(&aside).expect("remove the copy");
        let used = run("df", &["--output=used", "-k", &here]).ok().text;
        let used: u64 =
            used.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number");
        self.resize_disk(path, used + spare);
    }

    /// Resizes the file system of [`move_to_full_disk`](Self::move_to_full_disk) to `size` KiB.
    pub fn resize_disk(&self, path: &str, size: u64) {
        mount(&["-o", &format!("remount,size={size}k")], &self.path(path));
    }

    /// Returns the mount points of this root.
    pub fn mounts(&self) -> Vec<String> {
        let all = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let points = all.lines().filter_map(|line| line.split(' ').nth(1));
        let home = self.home.display().to_string();
        points.filter(|point| point.starts_with(&home)).map(str::to_owned).collect()
    }

    /// Returns a directory on the disk of the checkout that is removed with this root.
    pub(crate) fn disk(&self) -> PathBuf {
        let place = disk_of(&self.home);
        fs::create_dir_all(&place).expect("create a directory on the disk");
        place
    }

    /// Returns the path on the host of a path in this root. Absolute symlinks in it lead to files
    /// of the host.
    pub fn path(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Runs real pacman with `--noconfirm`.
    #[track_caller]
    pub fn pacman(&self, args: &[&str]) -> Completed {
        self.start_pacman(args).finish()
    }

    /// Starts real pacman with `--noconfirm`.
    #[track_caller]
    pub fn start_pacman(&self, args: &[&str]) -> Started {
        self.start("pacman", &[&["--noconfirm", "--noprogressbar"], args].concat())
    }

    /// Installs packages in one transaction, which must succeed. pacman succeeds even if a
    /// PostTransaction hook fails.
    #[track_caller]
    pub fn install(&self, packages: &[PackageFile]) -> Completed {
        let files = packages.iter().map(|package| package.file.as_str());
        self.pacman(&["-U"].into_iter().chain(files).collect::<Vec<_>>()).ok()
    }

    /// Removes packages by name in one transaction, which must succeed.
    #[track_caller]
    pub fn remove(&self, names: &[&str]) -> Completed {
        self.pacman(&[&["-R"], names].concat()).ok()
    }

    /// Installs packages that replace installed packages which they conflict with.
    #[track_caller]
    pub fn install_replacing(&self, packages: &[PackageFile]) -> Completed {
        // With --noconfirm pacman would not remove the conflicting packages.
        let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
        self.shell(&format!("yes | pacman --noprogressbar -U {}", files.join(" "))).ok()
    }

    /// Runs one of our hook programs with these targets on standard input.
    #[track_caller]
    pub fn hook(&self, program: &str, targets: &[u8]) -> Completed {
        self.start_hook(program, targets).finish()
    }

    /// Starts one of our hook programs with these targets on standard input.
    #[track_caller]
    pub fn start_hook(&self, program: &str, targets: &[u8]) -> Started {
        fs::write(self.path("srv/targets"), targets).expect("write targets");
        self.start("bash", &["-c", &format!("exec /usr/lib/alpm-dkms/{program} </srv/targets")])
    }

    /// Runs the command of the boot unit, which finishes pending work.
    #[track_caller]
    pub fn boot_unit(&self) -> Completed {
        let unit = self.read("usr/lib/systemd/system/alpm-dkms-pending.service");
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
        self.shell(command.expect("the unit has an ExecStart"))
    }

    /// Returns the files outside our trees that were changed, as sorted paths relative to the root.
    ///
    /// Directories that pacman, the hooks of other packages and stories write to are left out.
    pub fn changes_elsewhere(&self) -> Vec<String> {
        let expected = [
            "var/lib/dkms/",
            "usr/lib/modules/",
            "usr/src/",
            "var/lib/pacman/",
            "var/log/",
            // The notice of a fault.
            "run/motd.d/alpm-dkms",
            "srv/",
            "tmp/",
            PREFLIGHT_MASK,
            // Written by ldconfig, which pacman runs.
            "etc/ld.so.cache",
            "var/cache/ldconfig/",
        ];
        let mut paths = self.changes();
        paths.retain(|path| !expected.iter().any(|top| path.starts_with(top)));
        paths
    }

    /// Returns all files that were changed since this root was created, as sorted paths relative to
    /// the root.
    pub fn changes(&self) -> Vec<String> {
        let upper = self.home.join("upper");
        let entries = WalkDir::new(&upper).into_iter().flatten();
        let mut paths: Vec<String> = entries
            .filter(|entry| !entry.file_type().is_dir())
            .filter_map(|entry| Some(entry.path().strip_prefix(&upper).ok()?.display().to_string()))
            .collect();
        paths.sort();
        paths
    }

    /// Runs a program in this root.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> Completed {
        self.start(program, args).finish()
    }

    /// Runs a bash script in this root.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Completed {
        self.run("bash", &["-c", script])
    }

    /// Runs our `dkms`.
    #[track_caller]
    pub fn dkms(&self, args: &[&str]) -> Completed {
        self.run("/usr/bin/dkms", args)
    }

    /// Runs the real dkms: Debian's, unpacked in /opt/peer.
    #[track_caller]
    pub fn peer_dkms(&self, args: &[&str]) -> Completed {
        self.run("/opt/peer/usr/sbin/dkms", args)
    }

    /// Starts a program in this root.
    #[track_caller]
    pub fn start(&self, program: &str, args: &[&str]) -> Started {
        let root = self.mount.display().to_string();
        start("chroot", &[&[root.as_str(), program], args].concat())
    }

    /// Returns the ids and command lines of the processes that run in this root.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let ids = fs::read_dir("/proc").expect("list processes").flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|id| {
            fs::read_link(format!("/proc/{id}/root")).is_ok_and(|root| root == self.mount)
        })
        .map(|id| {
            (
                id,
                fs::read_to_string(format!("/proc/{id}/cmdline"))
                    .unwrap_or_default()
                    .replace('\0', " "),
            )
        })
        .collect()
    }

    /// Kills all processes in this root, as a power failure does.
    pub fn kill_everything(&self) {
        loop {
            let ids: Vec<String> = self.processes().iter().map(|(id, _)| id.to_string()).collect();
            if ids.is_empty() {
                return;
            }
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            run("kill", &[&["-KILL"], &ids[..]].concat());
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.kill_everything();
        discard(&self.home);
    }
}

#[track_caller]
fn mount(args: &[&str], place: &Path) {
    run("mount", &[args, &[place.display().to_string().as_str()]].concat()).ok();
}

/// Unmounts everything in the directory of a story and removes the directory.
fn discard(home: &Path) {
    run("umount", &["--recursive", "--lazy", &home.display().to_string()]);
    // Fails if something is still mounted. `remove_dir_all` would delete its files.
    if fs::remove_dir(home).is_ok() {
        let _ = fs::remove_dir_all(disk_of(home));
    }
}

/// Returns the directory for files of a story that are outside its overlay and its tmpfs.
fn disk_of(home: &Path) -> PathBuf {
    home.with_extension("disk")
}

/// Discards the directories of stories whose test process was killed.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|it| it == "disk") {
            continue; // removed with its story
        }
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split('-').next()).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            discard(&entry.path());
        }
    }
}
