//! The steps of a build and an installation that modules, administrators and distributions have a
//! say in: scripts, directives, versions, signatures, and what is done afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its root has failed"
)]

mod conf;
mod objects;
mod scripts;
mod signing;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dkms_engine::act;
use dkms_engine::facts::{self, Scope};
use dkms_engine::machine::Machine;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::{self, Request, Verb};
use dkms_engine::report::{Event, Report, Watch};
use testroot::TestRoot;

const K: &str = "7.2.12-arch1-1";

/// Where a module named foo is built, and where it is placed.
const BUILT: &str = "var/lib/dkms/foo/1.0/7.2.12-arch1-1/x86_64";

const PLACED: &str = "usr/lib/modules/7.2.12-arch1-1/updates/dkms/foo.ko";

/// What was said while a plan was carried out.
#[derive(Default)]
struct Said(Vec<String>);

impl Watch for Said {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Says(line) = event {
            self.0.push((*line).to_owned());
        }
    }
}

struct TestMachine {
    root: TestRoot,
    heard: Said,
    change: fn(&mut Machine),
}

impl TestMachine {
    fn new() -> Self {
        let root = TestRoot::new();
        root.kernel(K).pkgbase("linux").headers();
        Self { root, heard: Said::default(), change: |_| {} }
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::for_hook(self.root.path());
        machine.arch = "x86_64".parse().unwrap();
        machine.tools.depmod = self.root.depmod();
        self.root.make();
        machine.env = machine.env.first_in_path(&self.root.programs());
        (self.change)(&mut machine);
        machine
    }

    fn run(&mut self, request: &Request) -> Report {
        let machine = self.machine();
        let scope = Scope { kernels: Some([K.parse().unwrap()].into()), ..Scope::default() };
        let facts = facts::read(&machine, &scope);
        let plan = plan::make(request, &facts).unwrap();
        act::carry_out(&plan, &facts, &machine, &mut self.heard)
    }

    fn command(&mut self, verb: Verb, module: &str) -> Report {
        let kernels = Some(vec![K.parse().unwrap()]);
        let force = self.machine().options.force;
        self.run(&Request::Command { verb, module: id(module), kernels, force })
    }

    fn install(&mut self) -> Report {
        self.command(Verb::Install, "foo/1.0")
    }

    /// What a hook does after a transaction with these sources.
    fn sync(&mut self, sources: &[&str]) -> Report {
        let sources = sources.iter().map(|dir| (*dir).to_owned()).collect();
        self.run(&Request::Sync { sources, kernels: [K.parse().unwrap()].into() })
    }

    fn builds(&self) -> usize {
        self.root.calls("make").iter().filter(|call| call.contains("KERNELRELEASE=")).count()
    }

    fn executable(&self, path: &str, text: &str) {
        self.root.write(path, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.root.path().join(path), mode).unwrap();
    }

    /// A module that names a script for a directive.
    fn script(&self, directive: &str, text: &str) {
        let conf = "usr/src/foo-1.0/dkms.conf";
        if !self.root.exists(conf) {
            self.root.source("foo", "1.0");
        }
        let old = self.root.read(conf);
        self.root.write(conf, format!("{old}{directive}=\"{directive}.sh an argument\"\n"));
        self.executable(
            &format!("usr/src/foo-1.0/{directive}.sh"),
            &format!("#!/bin/sh\n{text}\n"),
        );
    }

    /// A kernel that checks signatures, and a program that makes a kind of them.
    fn signs(&self, sign_file: &str) {
        let config = "CONFIG_MODULES=y\nCONFIG_MODULE_SIG_HASH=\"sha256\"\n";
        let build = format!("usr/lib/modules/{K}/build");
        self.root.write(format!("{build}/.config"), config);
        self.root.write(format!("{build}/include/config/auto.conf"), config);
        self.executable(&format!("{build}/scripts/sign-file"), sign_file);
        self.root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
    }

    fn signature(&self) -> Option<String> {
        let object = fs::read(self.root.path().join(PLACED)).unwrap();
        let text = String::from_utf8_lossy(&object).into_owned();
        assert!(text.matches("~Module signature").count() < 2, "it is signed twice");
        let (_, signature) = text.rsplit_once("hash:")?;
        Some(signature.split('\0').next().unwrap_or_default().to_owned())
    }
}

fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

#[track_caller]
fn clean(report: &Report) {
    let failures: Vec<_> = report.failures().collect();
    assert!(report.is_clean(), "{failures:#?} {:?}", report.trouble);
    assert_eq!(report.warnings, [""; 0]);
}

#[track_caller]
fn failed(report: &Report, code: u8) -> String {
    let failures: Vec<_> = report.failures().collect();
    let [(_, failure)] = failures[..] else { panic!("{failures:#?}") };
    assert_eq!(failure.code, code, "{failure:?}");
    failure.message.clone()
}

#[test]
fn the_administrators_command_runs_after_a_change() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    let command = "post_transaction='echo changed for $kernelver; exit 3'\n";
    machine.root.write("etc/dkms/framework.conf", command);
    let report = machine.sync(&["foo-1.0"]);
    assert!(report.is_clean());
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    let log = machine.root.read("var/lib/dkms/post_transaction.log");
    assert!(log.contains(&format!("changed for {K}\n\n# exit code: 3\n")), "{log}");
    machine.root.remove("var/lib/dkms/post_transaction.log");
    clean(&machine.sync(&["foo-1.0"]));
    assert!(!machine.root.exists("var/lib/dkms/post_transaction.log"), "nothing changed");
}

#[test]
fn red_hats_weak_modules_hear_of_objects() {
    let mut machine = TestMachine::new();
    machine.root.write("etc/os-release", "ID=rhel\n");
    machine.root.source("foo", "1.0");
    machine.executable(
        "usr/sbin/weak-modules",
        "#!/bin/sh\n{ echo \"$*\"; cat; } >>\"${0%/usr/*}/heard\"\n",
    );
    clean(&machine.install());
    clean(&machine.command(Verb::Uninstall, "foo/1.0"));
    let root = machine.root.path().display().to_string();
    let heard = machine.root.read("heard").replace(&root, "");
    let object = format!("/usr/lib/modules/{K}/extra/foo.ko\n");
    assert_eq!(
        heard,
        format!("--no-initramfs --add-modules\n{object}--no-initramfs --remove-modules\n{object}")
    );
}

#[test]
fn what_dkms_placed_as_its_conf_says_is_known_there() {
    let mut machine = TestMachine::new();
    machine.root.write("etc/os-release", "ID=alpine\n");
    machine.root.source("foo", "1.0");
    clean(&machine.install());
    // Without our record it is as if dkms had built it.
    machine.root.remove(format!("{BUILT}/alpm-dkms.toml"));
    clean(&machine.sync(&[]));
    let record = machine.root.read(format!("{BUILT}/alpm-dkms.toml"));
    assert!(record.contains("kernel/drivers/misc/foo.ko"), "{record}");
    clean(&machine.command(Verb::Remove, "foo/1.0"));
    assert!(!machine.root.exists(format!("usr/lib/modules/{K}/kernel/drivers/misc")));
}

#[test]
fn an_addon_directory_is_above_all_distributions() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    machine.change =
        |machine| machine.env = machine.env.clone().with("ADDON_MODULES_DIR", "addon/x");
    clean(&machine.install());
    assert!(machine.root.exists(format!("usr/lib/modules/{K}/addon/x/foo.ko")));
}
