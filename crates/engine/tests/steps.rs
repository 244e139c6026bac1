//! The steps of a build and an installation that modules, administrators and distributions have a
//! say in: scripts, directives, versions, signatures, and what is done afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its root has failed"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dkms_engine::act;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::{self, Request, Verb};
use dkms_engine::report::{Event, Report, Watch};
use dkms_engine::sign;
use dkms_engine::site::Site;
use dkms_engine::survey::{self, Scope};
use testroot::{TestRoot, kernel_object};

const K: &str = "7.2.12-arch1-1";

/// Where a module named foo is built, and where it is placed.
const BUILT: &str = "var/lib/dkms/foo/1.0/7.2.12-arch1-1/x86_64";
const PLACED: &str = "usr/lib/modules/7.2.12-arch1-1/updates/dkms/foo.ko";

/// What was said while a plan was carried out.
#[derive(Default)]
struct Heard(Vec<String>);

impl Watch for Heard {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Says(line) = event {
            self.0.push((*line).to_owned());
        }
    }
}

struct Machine {
    root: TestRoot,
    heard: Heard,
    change: fn(&mut Site),
}

impl Machine {
    fn new() -> Self {
        let root = TestRoot::new();
        root.kernel(K).pkgbase("linux").headers();
        Self { root, heard: Heard::default(), change: |_| {} }
    }

    fn site(&self) -> Site {
        let mut site = Site::for_hook(self.root.path());
        site.arch = "x86_64".parse().unwrap();
        site.tools.depmod = self.root.depmod();
        self.root.make();
        site.env = site.env.first_in_path(&self.root.programs());
        (self.change)(&mut site);
        site
    }

    fn run(&mut self, request: &Request) -> Report {
        let site = self.site();
        let scope = Scope { kernels: Some([K.parse().unwrap()].into()), ..Scope::default() };
        let facts = survey::read(&site, &scope);
        let plan = plan::make(request, &facts).unwrap();
        act::carry_out(&plan, &facts, &site, &mut self.heard)
    }

    fn command(&mut self, verb: Verb, module: &str) -> Report {
        let kernels = Some(vec![K.parse().unwrap()]);
        let force = self.site().asked.force;
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

/// Appends a signature that tells what it was called with, in the form that the kernel reads.
const SIGN_FILE: &str = r#"#!/bin/sh
[ -f "$2" ] || exit 1
signature="hash:$1 certificate:$(cksum <"$3")"
{
    printf %s "$signature"
    printf '\0\0\2\0\0\0\0\0'
    printf "$(printf '\\%03o\\%03o\\%03o\\%03o' 0 0 0 ${#signature})"
    printf '~Module signature appended~\n'
} >>"$4"
"#;

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
fn adding_ends_as_post_add_ends_but_adds() {
    let mut machine = Machine::new();
    machine.script("POST_ADD", "echo $1 $2; pwd; exit 7");
    machine.change = |site| site.asked.only_added = true;
    let message = failed(&machine.command(Verb::Add, "foo/1.0"), 7);
    assert!(message.contains("foo/1.0: an argument"), "{message}");
    assert!(message.contains("usr/src/foo-1.0"), "{message}");
    assert!(machine.root.exists("var/lib/dkms/foo/1.0/source"));
    // Where it is added along with something else, its result does not matter.
    clean(&machine.command(Verb::Remove, "foo/1.0"));
    machine.change = |_| {};
    clean(&machine.install());
    assert!(machine.heard.0.iter().any(|line| line.contains("POST_ADD script failed")));
}

#[test]
fn pre_install_can_object() {
    let mut machine = Machine::new();
    machine.script("PRE_INSTALL", "echo not today; exit 3");
    let message = failed(&machine.install(), 101);
    assert!(message.contains("not today"), "{message}");
    assert!(!machine.root.exists(PLACED));
    machine.change = |site| site.asked.force = true;
    clean(&machine.install());
    assert!(machine.root.exists(PLACED));
}

#[test]
fn the_administrators_script_takes_the_place_of_the_modules() {
    let mut machine = Machine::new();
    machine.script("POST_INSTALL", "echo the module says");
    machine.executable("etc/dkms/foo/POST_INSTALL.sh", "#!/bin/sh\npwd\n");
    clean(&machine.install());
    let said = machine.heard.0.join("\n");
    assert!(said.ends_with("/etc/dkms/foo"), "{said}");
}

#[test]
fn post_build_sees_the_new_result_and_adds_to_it() {
    let mut machine = Machine::new();
    machine.script("PRE_BUILD", "echo before");
    machine.script(
        "POST_BUILD",
        "cd ../$kernelver/$arch && ls module && cp ../../build/dkms.conf kept.conf && echo after",
    );
    clean(&machine.install());
    assert!(machine.root.exists(format!("{BUILT}/kept.conf")));
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    let steps: Vec<&str> = log
        .lines()
        .filter(|line| !line.is_empty())
        .filter(|line| !line.starts_with("# elapsed") && !line.starts_with("make: "))
        .skip(2) // the head and the date
        .collect();
    let rule = "-".repeat(64);
    let root = machine.root.path().display();
    let make = format!(
        "# command: make KERNELRELEASE={K} -C {root}/usr/lib/modules/{K}/build \
         M={root}/var/lib/dkms/foo/1.0/build"
    );
    let dir = format!("{root}/var/lib/dkms/foo/1.0/build");
    let script = |name| format!("# command: cd {dir}/ && {dir}/{name}.sh an argument");
    assert_eq!(
        steps,
        [
            "Running the pre_build script",
            &script("PRE_BUILD"),
            "before",
            "# exit code: 0",
            &rule,
            "Building module(s)",
            &make,
            "  CC [M]  foo.o",
            "# exit code: 0",
            &rule,
            "Running the post_build script",
            &script("POST_BUILD"),
            "Module.symvers",
            "foo.ko",
            "after",
            "# exit code: 0",
            &rule,
        ]
    );
    assert_eq!(machine.sync(&[]).finished.len(), 0, "a run after it has nothing to do");
}

#[test]
fn a_failing_post_build_leaves_the_old_result() {
    let mut machine = Machine::new();
    machine.script("POST_BUILD", "exit $(cat /dev/null $ANSWER)");
    clean(&machine.install());
    let old = machine.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1");
    machine.script("POST_BUILD", "rm ../$kernelver/$arch/module/*; exit 9");
    let message = failed(&machine.sync(&["foo-1.0"]), 9);
    assert!(message.contains("POST_BUILD"), "{message}");
    assert_eq!(machine.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1"), old);
    assert!(machine.root.exists(PLACED));
    // Without an old result there is none.
    clean(&machine.command(Verb::Unbuild, "foo/1.0"));
    failed(&machine.command(Verb::Build, "foo/1.0"), 9);
    assert!(!machine.root.exists("var/lib/dkms/foo/1.0/7.2.12-arch1-1"));
}

#[test]
fn notes_what_it_was_built_upon() {
    let mut machine = Machine::new();
    let lines = "BUILD_DEPENDS=bar\nBUILD_DEPENDS_REBUILD=yes";
    machine.root.source("foo", "1.0").conf_line(lines);
    machine.root.source("bar", "2.1");
    clean(&machine.sync(&["foo-1.0", "bar-2.1"]));
    assert_eq!(machine.root.read(format!("{BUILT}/.dep_bar")), "2.1\n");
}

#[test]
fn directives_of_the_command_line_come_last() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0").conf_line("PRE_BUILD=none.sh");
    machine.root.write("etc/dkms/foo.conf", "PRE_BUILD=nor-this.sh\n");
    machine.executable("usr/src/foo-1.0/own.sh", "#!/bin/sh\n");
    machine.change = |site| site.asked.directives = vec![("PRE_BUILD".into(), "own.sh a".into())];
    clean(&machine.install());
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("/foo/1.0/build/own.sh a\n"), "{log}");
    // As a variable, too; but no more than directives can be set.
    machine.change = |site| {
        site.env = site.env.clone().with("DKMS_DIRECTIVE_A", "PRE_BUILD=own.sh a='b c'");
        site.env = site.env.clone().with("DKMS_DIRECTIVE_B", "source_tree=/nowhere");
    };
    clean(&machine.install());
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("/foo/1.0/build/own.sh a='b c'\n"), "{log}");
}

#[test]
fn another_file_can_stand_for_the_conf() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    let conf = machine.root.read("usr/src/foo-1.0/dkms.conf");
    machine.root.write("etc/other.conf", format!("{conf}DEST_MODULE_NAME=other\n"));
    machine.change = |site| {
        let file = site.trees.root.join("etc/other.conf");
        site.asked.conf = Some(file);
        site.asked.module = Some("foo/1.0".parse().unwrap());
    };
    clean(&machine.install());
    assert!(machine.root.exists(PLACED.replace("foo.ko", "other.ko")));
}

#[test]
fn headers_and_configuration_can_be_elsewhere() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0").conf_line("BUILD_EXCLUSIVE_CONFIG=CONFIG_OTHER");
    let modules = machine.root.path().join("usr/lib/modules").join(K);
    fs::rename(modules.join("build"), machine.root.path().join("headers")).unwrap();
    failed(&machine.install(), 21);
    machine.change = |site| site.asked.kernel_source = Some(site.trees.root.join("headers"));
    failed(&machine.install(), 77);
    machine.root.write("config", "CONFIG_OTHER=y\n");
    machine.change = |site| {
        site.asked.kernel_source = Some(site.trees.root.join("headers"));
        site.asked.kernel_config = Some(site.trees.root.join("config"));
    };
    clean(&machine.install());
}

#[test]
fn builds_get_the_environment_that_is_set_for_them() {
    let mut machine = Machine::new();
    machine.script("PRE_BUILD", "echo CC=$CC; printf 'WORD=%s\\n' \"$WORD\"; echo OWN=$OWN");
    let headers = format!("usr/lib/modules/{K}/build");
    machine.root.write(format!("{headers}/.kernelvariables"), "CC = gcc-$(shell echo 99)\n");
    machine.root.write("etc/dkms/framework.conf", "build_environment=/etc/dkms/env\n");
    machine.root.write("etc/dkms/env", "echo noise\nexport WORD='a  \"b\"\n$c'\nOWN=no\n");
    clean(&machine.install());
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("CC=gcc-99\nWORD=a  \"b\"\n$c\nOWN=\n"), "{log}");
}

#[test]
fn a_source_that_is_only_a_conf_is_refused() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    machine.root.remove("usr/src/foo-1.0/Makefile");
    machine.root.remove("usr/src/foo-1.0/foo.c");
    failed(&machine.install(), 8);
}

#[test]
fn older_objects_do_not_take_the_place_of_newer_ones() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    let own = format!("usr/lib/modules/{K}/kernel/fs/foo.ko");
    machine.root.write(&own, kernel_object(K, "foo", &["version=1.10"]));
    let message = failed(&machine.install(), 6);
    assert!(message.contains("version 1.10 against 1.0"), "{message}");
    machine.change = |site| site.asked.force_version = true;
    clean(&machine.install());
    // What dkms placed itself is no hindrance; the kernel's own is, but is left alone.
    machine.change = |site| site.asked.module = "foo/0.9".parse().ok();
    machine.root.remove(&own);
    clean(&machine.command(Verb::Build, "foo/1.0"));
    machine.root.source("foo", "0.9");
    let message = failed(&machine.command(Verb::Install, "foo/0.9"), 6);
    assert!(message.contains("version 1.0 against 0.9"), "{message}");
    // A transaction may bring an older one.
    machine.change = |_| {};
    clean(&machine.command(Verb::Install, "foo/0.9"));
}

#[test]
fn the_same_object_is_not_installed_twice() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0").objects(&["foo", "baz"]);
    clean(&machine.command(Verb::Build, "foo/1.0"));
    let built = fs::read(machine.root.path().join(format!("{BUILT}/module/foo.ko"))).unwrap();
    machine.root.write(format!("usr/lib/modules/{K}/kernel/fs/foo.ko"), built);
    clean(&machine.install());
    assert!(machine.heard.0[0].contains("foo.ko is not installed: the kernel has the very same"));
    assert!(!machine.root.exists(PLACED));
    assert!(machine.root.exists(PLACED.replace("foo.ko", "baz.ko")));
}

#[test]
fn what_the_kernel_has_itself_by_now_is_not_installed() {
    let mut machine = Machine::new();
    let limit = "OBSOLETE_BY=7.2\nBUILD_EXCLUSIVE_KERNEL_MAX=9";
    machine.root.source("foo", "1.0").conf_line(limit);
    let message = failed(&machine.install(), 6);
    assert!(message.contains("OBSOLETE_BY"), "{message}");
    machine.root.write("usr/share/dkms/modules_to_force_install/foo", "bar foo\n");
    clean(&machine.install());
}

#[test]
fn links_can_be_placed_and_removed() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    machine.change = |site| site.settings.framework.symlink_modules = true;
    clean(&machine.install());
    let target = fs::read_link(machine.root.path().join(PLACED)).unwrap();
    assert!(target.ends_with(format!("dkms/foo/1.0/{K}/x86_64/module/foo.ko")), "{target:?}");
    clean(&machine.command(Verb::Remove, "foo/1.0"));
    assert!(!machine.root.path().join(PLACED).is_symlink());
}

#[test]
fn objects_are_signed_and_signed_anew_with_another_key() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    machine.signs(SIGN_FILE);
    clean(&machine.install());
    let first = machine.signature().unwrap();
    assert!(first.starts_with("sha256 certificate:"), "{first}");
    let key = machine.root.path().join("var/lib/dkms/mok.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(machine.sync(&[]).finished.len(), 0);

    machine.root.write("etc/dkms/own.key", "a key");
    machine.root.write("etc/dkms/own.pub", "a certificate");
    let paths =
        "mok_signing_key=/etc/dkms/own.key\nmok_certificate='/etc/${kernelver:+dkms}/own.pub'\n";
    let paths = paths.replace("${kernelver:+dkms}", "dkms");
    machine.root.write("etc/dkms/framework.conf", format!("try_sign_modules=true\n{paths}"));
    clean(&machine.sync(&[]));
    let second = machine.signature().unwrap();
    assert_ne!(first, second);
    assert_eq!(machine.builds(), 1, "nothing was compiled again");
    assert_eq!(machine.sync(&[]).finished.len(), 0);
}

#[test]
fn what_cannot_be_signed_is_installed_with_a_warning() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    machine.signs("#!/bin/sh\necho half >>\"$4\"\necho no such key >&2\nexit 1\n");
    let report = machine.install();
    assert!(report.is_clean());
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.starts_with("foo.ko for 7.2.12-arch1-1 is not signed: no such key; "));
    assert!(warning.contains("Secure Boot"), "{warning}");
    assert_eq!(machine.signature(), None);
    assert_eq!(machine.sync(&[]).finished.len(), 0, "it is not tried at every transaction");
}

#[test]
fn who_cannot_sign_says_so_once() {
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    machine.root.source("bar", "1.0");
    machine.signs(SIGN_FILE);
    let on = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    machine.root.write(on, "\u{6}\0\0\0\u{1}");
    machine.root.remove(format!("usr/lib/modules/{K}/build/scripts/sign-file"));
    let report = machine.sync(&["foo-1.0", "bar-1.0"]);
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("Secure Boot is on, so the kernel will refuse"), "{warning}");
}

#[test]
fn nothing_is_signed_in_a_chroot_or_where_it_is_switched_off() {
    for setting in ["", "try_sign_modules=false\n", "try_sign_modules=not_in_chroot\n"] {
        let mut machine = Machine::new();
        machine.root.source("foo", "1.0");
        machine.signs(SIGN_FILE);
        machine.root.write("etc/dkms/framework.conf", setting);
        clean(&machine.install());
        assert_eq!(machine.signature(), None);
        assert!(!machine.root.exists("var/lib/dkms/mok.key"));
    }
}

#[test]
fn a_key_is_made_once_and_never_replaced() {
    let machine = Machine::new();
    let site = machine.site();
    let kernel = K.parse().unwrap();
    let mok = sign::generate_mok(&site, Some(&kernel)).unwrap();
    assert!(mok.made);
    assert!(mok.to_string().contains("mokutil --import"));
    let key = fs::read(&mok.key).unwrap();
    assert!(!sign::generate_mok(&site, Some(&kernel)).unwrap().made);
    fs::remove_file(&mok.certificate).unwrap();
    assert!(sign::generate_mok(&site, Some(&kernel)).unwrap().made);
    assert_eq!(fs::read(&mok.key).unwrap(), key, "it may be enrolled");
    assert!(Path::new(&mok.certificate).is_file());

    machine.root.write(
        "etc/dkms/framework.conf",
        "mok_signing_key='pkcs11:object=x'\nmok_certificate=/none\n",
    );
    let failure = sign::generate_mok(&machine.site(), Some(&kernel)).unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("pkcs11:object=x"), "{}", failure.message);
}

#[test]
fn the_administrators_command_runs_after_a_change() {
    let mut machine = Machine::new();
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
    let mut machine = Machine::new();
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
    let mut machine = Machine::new();
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
    let mut machine = Machine::new();
    machine.root.source("foo", "1.0");
    machine.change = |site| site.env = site.env.clone().with("ADDON_MODULES_DIR", "addon/x");
    clean(&machine.install());
    assert!(machine.root.exists(format!("usr/lib/modules/{K}/addon/x/foo.ko")));
}
