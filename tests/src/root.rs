//! A root of a story's own: an overlay over the testbed's, thrown away afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::packages::{Package, STAGES, testbed};
use crate::run::{Output, Started, run, start};

/// Where our package keeps the hooks' programs.
const LIB: &str = "usr/lib/alpm-dkms";

/// A fresh machine with real pacman, entered by chroot. Unmounted and forgotten on drop, after a panic too.
#[derive(Debug)]
pub struct Root {
    /// A tmpfs that holds the overlay's own directories beside its mount point.
    home: PathBuf,
    mount: PathBuf,
}

impl Root {
    /// A root with our package installed.
    ///
    /// For quick tries of a change, `$STORIES_BINARIES` may name a directory of programs (`target/debug`) that then take
    /// the place of the package's.
    pub fn ready() -> Self {
        let root = Self::over("ready");
        if let Some(built) = std::env::var_os("STORIES_BINARIES") {
            let built =
                Path::new(&built).canonicalize().expect("STORIES_BINARIES names a directory");
            for (program, place) in
                [("dkms", "usr/bin"), ("dkms-install", LIB), ("dkms-remove", LIB)]
            {
                fs::copy(built.join(program), root.path(place).join(program))
                    .expect("take a program of STORIES_BINARIES");
            }
        }
        root
    }

    /// A root as it was before our package was installed: for moving to it from dkms.
    pub fn bare() -> Self {
        Self::over("bare")
    }

    fn over(stage: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        static SWEEP: Once = Once::new();
        let testbed = testbed();
        let all = testbed.join("stories");
        SWEEP.call_once(|| sweep(&all));
        let home =
            all.join(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let root = Self { mount: home.join("root"), home };
        root.mount(&testbed, &testbed.join(stage));
        root
    }

    /// Mounts the overlay. Its changes live on a tmpfs, since the checkout itself may lie on an overlay (in a
    /// container), which cannot carry another one's changes.
    fn mount(&self, testbed: &Path, lower: &Path) {
        let home = self.home.as_path();
        fs::create_dir_all(home).expect("make a story's directory");
        mount(&["-t", "tmpfs", "-o", "mode=755", "story"], home);
        mount(&["--make-private"], home);
        for name in ["upper", "work", "root"] {
            fs::create_dir(home.join(name)).expect("make an overlay's directory");
        }
        let [lower, upper, work] =
            [lower, &home.join("upper"), &home.join("work")].map(|path| path.display().to_string());
        let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mount(&["-t", "overlay", "-o", &layers, "story"], &self.mount);
        mount(&["-t", "proc", "proc"], &self.path("proc"));
        mount(&["-t", "sysfs", "sys"], &self.path("sys"));
        mount(&["--rbind", "/dev"], &self.path("dev"));
        // Or unmounting it here would unmount the machine's own /dev/pts.
        mount(&["--make-rprivate"], &self.path("dev"));
        for stage in STAGES {
            let here = self.path("srv").join(stage);
            fs::create_dir_all(&here).expect("make a place for packages");
            mount(&["--bind", &testbed.join(stage).display().to_string()], &here);
        }
    }

    /// A path of this root as seen from outside. Beware of absolute links below it: they lead to the host's files.
    pub fn path(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Runs real pacman, without questions.
    #[track_caller]
    pub fn pacman(&self, args: &[&str]) -> Output {
        self.start_pacman(args).finish()
    }

    /// Starts real pacman, for stories that interrupt it.
    #[track_caller]
    pub fn start_pacman(&self, args: &[&str]) -> Started {
        self.start("pacman", &[&["--noconfirm", "--noprogressbar"], args].concat())
    }

    /// Installs packages in one transaction, which must succeed. (It does so even if a Post hook fails.)
    #[track_caller]
    pub fn install(&self, packages: &[Package]) -> Output {
        let files = packages.iter().map(|package| package.file.as_str());
        self.pacman(&["-U"].into_iter().chain(files).collect::<Vec<_>>()).ok()
    }

    /// Removes packages by name in one transaction, which must succeed.
    #[track_caller]
    pub fn remove(&self, names: &[&str]) -> Output {
        self.pacman(&[&["-R"], names].concat()).ok()
    }

    /// Runs a program in this root.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.start(program, args).finish()
    }

    /// Runs a line of bash in this root.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Output {
        self.run("bash", &["-c", script])
    }

    /// Runs our `dkms`.
    #[track_caller]
    pub fn dkms(&self, args: &[&str]) -> Output {
        self.run("/usr/bin/dkms", args)
    }

    /// Runs the real dkms, Debian's, which lies beside everything else.
    #[track_caller]
    pub fn peer_dkms(&self, args: &[&str]) -> Output {
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
    let _ = fs::remove_dir(home);
}

/// Discards what stories left behind whose test was killed.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split('-').next()).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            discard(&entry.path());
        }
    }
}
