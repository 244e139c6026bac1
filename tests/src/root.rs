//! A root of a story's own: an overlay over the testbed's, thrown away afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use walkdir::WalkDir;

use crate::packages::{PackageFile, stages, testbed};
use crate::run::{Completed, Started, run, start};

/// Where our package keeps the hooks' programs.
const LIB: &str = "usr/lib/alpm-dkms";

/// A fresh machine with real pacman, entered by chroot. Unmounted and forgotten on drop, after a panic too.
#[derive(Debug)]
pub struct Root {
    /// A tmpfs that holds the overlay's own directories beside its mount point.
    home: PathBuf,
    mount: PathBuf,
    /// The directories that the overlay shows below its own changes, the uppermost first.
    below: Vec<PathBuf>,
}

impl Root {
    /// A root with our package installed.
    ///
    /// For quick tries of a change, `$STORIES_BINARIES` may name a directory of programs (`target/debug`) that then take
    /// the place of the package's, and so do the .hook files of the checkout.
    pub fn ready() -> Self {
        Self::ready_over(&[])
    }

    /// A root with our package installed that stands on the files of a further stage of the testbed, too.
    pub fn ready_with(stage: &str) -> Self {
        Self::ready_over(&[testbed().join(stage).join("files")])
    }

    fn ready_over(more: &[PathBuf]) -> Self {
        let root = Self::over([more, &[testbed().join("ready")]].concat());
        if let Some(built) = std::env::var_os("STORIES_BINARIES") {
            let built =
                Path::new(&built).canonicalize().expect("STORIES_BINARIES names a directory");
            let programs = [
                ("dkms", "usr/bin"),
                ("dkms-install", LIB),
                ("dkms-remove", LIB),
                ("mkinitcpio-dkms", LIB),
                ("compile-once", LIB),
            ];
            for (program, place) in programs {
                fs::copy(built.join(program), root.path(place).join(program))
                    .expect("take a program of STORIES_BINARIES");
            }
            let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libalpm-hooks");
            root.shell("pacman -Qlq alpm-dkms | grep '[.]hook$' | xargs rm").ok();
            for hook in fs::read_dir(hooks).expect("list our hooks").flatten() {
                let place = root.path("usr/share/libalpm/hooks").join(hook.file_name());
                fs::copy(hook.path(), place).expect("take a hook of the checkout");
            }
        }
        root
    }

    /// A root as it was before our package was installed: for moving to it from dkms.
    pub fn bare() -> Self {
        Self::over(vec![testbed().join("bare")])
    }

    /// A machine that goes on from where this one is now.
    ///
    /// It stands on this one's changes, so this one must not be changed as long as the other is there.
    pub fn fork(&self) -> Self {
        let mut below = self.below.clone();
        below.insert(0, self.home.join("upper"));
        Self::over(below)
    }

    /// A root over these directories, the uppermost first.
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

    /// Mounts the overlay. Its changes live on a tmpfs, since the checkout itself may lie on an overlay (in a
    /// container), which cannot carry another one's changes.
    fn mount(&self, testbed: &Path) {
        let home = self.home.as_path();
        fs::create_dir_all(home).expect("make a story's directory");
        mount(&["-t", "tmpfs", "-o", "mode=755", "story"], home);
        mount(&["--make-private"], home);
        fs::create_dir(&self.mount).expect("make a root's directory");
        self.overlay(&self.below, "", &self.mount);
        self.mount_kernel_files("");
        for stage in stages() {
            let here = self.path("srv").join(stage);
            fs::create_dir_all(&here).expect("make a place for packages");
            mount(&["--bind", &testbed.join(stage).display().to_string()], &here);
        }
    }

    /// Mounts directories over each other at `place`; what is changed goes to `upper` with this `suffix`.
    fn overlay(&self, below: &[PathBuf], suffix: &str, place: &Path) {
        let [upper, work] = ["upper", "work"].map(|name| self.home.join(format!("{name}{suffix}")));
        for directory in [&upper, &work] {
            fs::create_dir(directory).expect("make an overlay's directory");
        }
        let below: Vec<String> = below.iter().map(|path| path.display().to_string()).collect();
        let (upper, work) = (upper.display(), work.display());
        let layers = format!("lowerdir={},upperdir={upper},workdir={work}", below.join(":"));
        mount(&["-t", "overlay", "-o", &layers, "story"], place);
    }

    /// Mounts what programs in the root at `top` want of the running kernel.
    fn mount_kernel_files(&self, top: &str) {
        mount(&["-t", "proc", "proc"], &self.path(top).join("proc"));
        mount(&["-t", "sysfs", "sys"], &self.path(top).join("sys"));
        let dev = self.path(top).join("dev");
        mount(&["--rbind", "/dev"], &dev);
        // Or unmounting it here would unmount the machine's own /dev/pts.
        mount(&["--make-rprivate"], &dev);
    }

    /// A whole second root in a folder of this one that is no mount point, for `pacman -r`: its path inside.
    ///
    /// It has our package, and /proc, /sys and /dev as pacstrap gives it.
    pub fn folder(&self) -> String {
        // An overlay over the whole testbed, in which the stage is a mere folder.
        self.overlay(&[testbed()], "-folder", &self.path("mnt"));
        self.mount_kernel_files("mnt/ready");
        "/mnt/ready".into()
    }

    /// Copies the files of a stage of the testbed over this root.
    pub fn lay_over(&self, stage: &str) {
        let files = testbed().join(stage).join("files/.").display().to_string();
        run("cp", &["-a", &files, &self.mount.display().to_string()]).ok();
    }

    /// Moves directories from the overlay to plain ones on the disk of the checkout, as machines have them: to ask an
    /// overlay for a file's size and times takes twice as long.
    pub fn move_to_disk(&self, paths: &[&str]) {
        for path in paths {
            let place = self.path(path);
            let plain = disk_of(&self.home).join(path);
            fs::create_dir_all(&plain).expect("make a directory on the disk");
            let (from, to) = (place.join("."), plain.display().to_string());
            run("cp", &["-a", &from.display().to_string(), &to]).ok();
            mount(&["--bind", &to], &place);
        }
    }

    /// Moves a directory to a disk of its own that has only `spare` KiB left.
    pub fn move_to_full_disk(&self, path: &str, spare: u64) {
        let place = self.path(path);
        let here = place.display().to_string();
        let aside = format!("{here}.aside");
        // Not a rename: an overlay refuses it for directories that lie below it.
        run("cp", &["-a", &here, &aside]).ok();
        mount(&["-t", "tmpfs", "-o", "mode=755", "disk"], &place);
        run("cp", &["-a", &format!("{aside}/."), &here]).ok();
        fs::remove_dir_all(&aside).expect("remove what was moved");
        let used = run("df", &["--output=used", "-k", &here]).ok().text;
        let used: u64 =
            used.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number");
        self.resize_disk(path, used + spare);
    }

    /// Makes that disk this many KiB large.
    pub fn resize_disk(&self, path: &str, size: u64) {
        mount(&["-o", &format!("remount,size={size}k")], &self.path(path));
    }

    /// The mounts of this root, as its mount points.
    pub fn mounts(&self) -> Vec<String> {
        let all = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let points = all.lines().filter_map(|line| line.split(' ').nth(1));
        let home = self.home.display().to_string();
        points.filter(|point| point.starts_with(&home)).map(str::to_owned).collect()
    }

    /// A path of this root as seen from outside. Beware of absolute links below it: they lead to the host's files.
    pub fn path(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Runs real pacman, without questions.
    #[track_caller]
    pub fn pacman(&self, args: &[&str]) -> Completed {
        self.start_pacman(args).finish()
    }

    /// Starts real pacman, for stories that interrupt it.
    #[track_caller]
    pub fn start_pacman(&self, args: &[&str]) -> Started {
        self.start("pacman", &[&["--noconfirm", "--noprogressbar"], args].concat())
    }

    /// Installs packages in one transaction, which must succeed. (It does so even if a Post hook fails.)
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

    /// Installs packages that conflict with installed ones, which leave for them.
    #[track_caller]
    pub fn install_instead(&self, packages: &[PackageFile]) -> Completed {
        // --noconfirm would answer no to the question about the conflict.
        let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
        self.shell(&format!("yes | pacman --noprogressbar -U {}", files.join(" "))).ok()
    }

    /// Runs one of our hook programs by hand, with these targets on its standard input.
    #[track_caller]
    pub fn hook(&self, program: &str, targets: &[u8]) -> Completed {
        self.start_hook(program, targets).finish()
    }

    /// Starts one of our hook programs, for stories that interrupt it.
    #[track_caller]
    pub fn start_hook(&self, program: &str, targets: &[u8]) -> Started {
        fs::write(self.path("srv/targets"), targets).expect("write targets");
        self.start("bash", &["-c", &format!("exec /usr/lib/alpm-dkms/{program} </srv/targets")])
    }

    /// Runs what the unit runs at boot while pending exist.
    #[track_caller]
    pub fn boot_unit(&self) -> Completed {
        let unit = self.read("usr/lib/systemd/system/alpm-dkms-pending.service");
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
        self.shell(command.expect("the unit runs something"))
    }

    /// What stories changed outside of the trees that are ours to change, as paths below the root.
    ///
    /// What pacman, the neighbours' hooks and the story itself write to is left out.
    pub fn trespasses(&self) -> Vec<String> {
        let expected = [
            "var/lib/dkms/",
            "usr/lib/modules/",
            "usr/src/",
            "var/lib/pacman/",
            "var/log/",
            "srv/",
            "tmp/",
            // ldconfig's, which pacman runs.
            "etc/ld.so.cache",
            "var/cache/ldconfig/",
        ];
        let upper = self.home.join("upper");
        let entries = WalkDir::new(&upper).into_iter().flatten();
        let mut paths: Vec<String> = entries
            .filter(|entry| !entry.file_type().is_dir())
            .filter_map(|entry| Some(entry.path().strip_prefix(&upper).ok()?.display().to_string()))
            .filter(|path| !expected.iter().any(|top| path.starts_with(top)))
            .collect();
        paths.sort();
        paths
    }

    /// Runs a program in this root.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> Completed {
        self.start(program, args).finish()
    }

    /// Runs a line of bash in this root.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Completed {
        self.run("bash", &["-c", script])
    }

    /// Runs our `dkms`.
    #[track_caller]
    pub fn dkms(&self, args: &[&str]) -> Completed {
        self.run("/usr/bin/dkms", args)
    }

    /// Runs the real dkms, Debian's, which lies beside everything else.
    #[track_caller]
    pub fn peer_dkms(&self, args: &[&str]) -> Completed {
        self.run("/opt/peer/usr/sbin/dkms", args)
    }

    /// Starts a program in this root, for stories that interrupt it.
    #[track_caller]
    pub fn start(&self, program: &str, args: &[&str]) -> Started {
        let root = self.mount.display().to_string();
        start("chroot", &[&[root.as_str(), program], args].concat())
    }

    /// The processes that run in this root: id and command line.
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

    /// Kills everything that runs in this root, as a power failure would.
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

/// Unmounts a story's directory with everything below it, and removes it.
fn discard(home: &Path) {
    run("umount", &["--recursive", "--lazy", &home.display().to_string()]);
    // Fails if something is still mounted, rather than to delete through it.
    if fs::remove_dir(home).is_ok() {
        let _ = fs::remove_dir_all(disk_of(home));
    }
}

/// What a story keeps outside of its overlay and its tmpfs.
fn disk_of(home: &Path) -> PathBuf {
    home.with_extension("disk")
}

/// Discards what stories left behind whose test was killed.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|it| it == "disk") {
            continue; // It goes with its story.
        }
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split('-').next()).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            discard(&entry.path());
        }
    }
}
