//! Copies a root to an ext4 disk and boots it in QEMU, where its power can be cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::packages::testbed;
use crate::root::Root;
use crate::run::{Started, run, start};

/// The modules with which the kernel mounts the disk, in the order in which they are loaded. Some
/// may be built in.
const OBJECTS: &str =
    "crc16 crc32c-cryptoapi crc32c_generic libcrc32c mbcache jbd2 ext4 virtio_blk";

/// The init of the initial root file system. The kernel adds the words of its command line to the
/// environment.
const EARLY: &str = "#!/usr/bin/bash
mount -t devtmpfs dev /dev
for name in OBJECTS; do
    [[ ! -e /objects/$name.ko ]] || insmod /objects/$name.ko
done
mount -t ext4 /dev/vda /new
exec switch_root /new /srv/init
";

/// Copies the programs of [`EARLY`] and their libraries from the host to the directory `$1`.
const COPY: &str = "
mkdir -p $1/{dev,new,proc,run,sys,usr/bin}
for program in bash mount insmod switch_root; do
    path=$(command -v $program)
    cp -L $path $1/usr/bin
    cp -L --parents $(ldd $path | grep -o '/[^ ]*') $1
done";

/// The time limit of a boot with its work. Without KVM it takes tens of seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// A machine whose disk is a copy of a root and whose init is `/srv/init`.
#[derive(Debug)]
pub struct DiskMachine {
    /// The directory of the images, which is removed with the root.
    home: PathBuf,
    kernel: PathBuf,
}

impl DiskMachine {
    /// Copies `root`, which contains the file `kernel`. The disk is removed with the root.
    #[track_caller]
    pub fn new(root: &Root, kernel: &str) -> Self {
        let machine = Self { home: root.disk(), kernel: root.path(kernel) };
        let [early, image, tree, disk] =
            ["early", "early.img", "tree", "disk"].map(|name| machine.file(name));
        let objects = testbed().join("power/objects");
        assert!(objects.exists(), "the testbed has no stage power: run `make testbed`");
        run("bash", &["-euc", COPY, "copy", &early]).ok();
        run("cp", &["-r", &objects.display().to_string(), &early]).ok();
        let init = Path::new(&early).join("init");
        fs::write(&init, EARLY.replace("OBJECTS", OBJECTS)).expect("write the init");
        run("chmod", &["755", &init.display().to_string()]).ok();
        run("bsdtar", &["--format=newc", "-cf", &image, "-C", &early, "."]).ok();
        // A second mount of the overlay, without the file systems that are mounted in the root.
        fs::create_dir_all(&tree).expect("create a mount point");
        run("mount", &["--bind", &root.path("").display().to_string(), &tree]).ok();
        let made = run("mkfs.ext4", &["-q", "-F", "-d", &tree, &disk, "3G"]);
        run("umount", &[&tree]).ok();
        made.ok();
        machine
    }

    /// Returns a copy of this machine with its own disk.
    #[track_caller]
    pub fn copy(&self, name: &str) -> Self {
        let copy = Self { home: self.home.join(name), kernel: self.kernel.clone() };
        fs::create_dir_all(&copy.home).expect("create a directory on the disk");
        run("cp", &["--sparse=always", &self.file("disk"), &copy.file("disk")]).ok();
        run("ln", &["-f", &self.file("early.img"), &copy.file("early.img")]).ok();
        copy
    }

    /// Deletes the disk.
    pub fn discard(self) {
        let _ = fs::remove_dir_all(&self.home);
    }

    fn file(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    /// Switches the machine on. `words` are appended to the kernel command line.
    #[track_caller]
    pub fn start(&self, words: &str) -> Powered {
        let console = self.file("console");
        let _ = fs::remove_file(&console);
        let kernel = self.kernel.display().to_string();
        let line = format!("console=ttyS0 quiet panic=-1 no_timer_check {words}");
        let (serial, image) = (format!("file:{console}"), self.file("early.img"));
        let disk = format!("file={},if=virtio,format=raw,cache=writeback", self.file("disk"));
        // If each emulated processor has its own thread, one sometimes executes an instruction
        // while the kernel is patching it, and the kernel panics.
        let mut args = vec!["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"];
        args.extend(["-m", "768", "-display", "none"]);
        args.extend(["-monitor", "none", "-no-reboot", "-nic", "none", "-serial", &serial]);
        args.extend(["-drive", &disk, "-kernel", &kernel, "-initrd", &image, "-append", &line]);
        let program = start("qemu-system-x86_64", &args).within(PATIENCE);
        Powered { program, console: console.into() }
    }
}

/// A machine that is switched on.
#[derive(Debug)]
pub struct Powered {
    program: Started,
    console: PathBuf,
}

impl Powered {
    /// Returns the output of the machine so far, without carriage returns.
    pub fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits until the machine prints a line that begins with `start`, or until `limit`. Returns true
    /// if it has printed the line.
    #[track_caller]
    pub fn prints(&mut self, start: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.console().lines().any(|line| line.starts_with(start)) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            assert!(!self.program.has_ended(), "switched off:\n{}", self.console());
            sleep(Duration::from_millis(2));
        }
    }

    /// Cuts the power: what the machine has not written to its disk is lost.
    #[track_caller]
    pub fn cut(mut self) {
        self.program.kill();
        self.program.finish().exits(128 + 9);
    }

    /// Waits until the machine reboots or switches off, and returns its output.
    #[track_caller]
    pub fn finish(self) -> String {
        let console = self.console.clone();
        self.program.finish().ok();
        String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).replace('\r', "")
    }
}
