//! Tests that read confs with a real bash.

mod property;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rstest::rstest;

use super::context::{ConfContext, ConfReply, reader};
use crate::conf::{Autoinstall, Conf, MakeChoice};
use crate::failure::Failure;
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName};
use crate::os::bash::{BashError, BashReader, PATIENCE};
use crate::os::process::{Environment, Tools};

/// A machine with one module, and a reader for that module's conf.
struct Fixture {
    dir: tempfile::TempDir,
    trees: Trees,
    id: ModuleId,
    kernel: KernelRelease,
    arch: Arch,
    destination: Option<PathBuf>,
    reader: BashReader,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(&trees.etc).unwrap();
        let mut reader = reader(Tools::default(), Environment::fixed(), None);
        reader.patience = Duration::from_secs(20);
        Self {
            dir,
            trees,
            id: "zfs/2.4".parse().unwrap(),
            kernel: "7.2.12-arch1-1".parse().unwrap(),
            arch: "x86_64".parse().unwrap(),
            destination: Some("updates/dkms".into()),
            reader,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("dkms.conf")
    }

    fn read(&mut self, conf: impl AsRef<[u8]>) -> Result<ConfReply, BashError> {
        fs::write(self.file(), conf).unwrap();
        let context = ConfContext {
            id: &self.id,
            kernel: &self.kernel,
            arch: &self.arch,
            kernel_source_dir: "/l/7.2/build".into(),
            kernel_config: "/l/7.2/build/.config".into(),
            conf_file: self.file(),
            dir: self.dir.path().into(),
            destination: self.destination.clone(),
            trees: &self.trees,
            parallel_jobs: 4,
        };
        context.read(&mut self.reader)
    }

    fn conf(&mut self, conf: &str) -> Result<Conf, BashError> {
        let values = self.read(conf)?.values;
        Conf::from_values(&values, "dkms.conf".as_ref(), &self.kernel)
    }

    fn assert_still_reads(&mut self) {
        assert_eq!(self.read("MAKE=fine").unwrap().values.get("MAKE", 0), Some("fine"));
    }
}

const VALID: &str = r#"
PACKAGE_NAME="zfs"
PACKAGE_VERSION="2.4"
BUILT_MODULE_NAME="zfs"
DEST_MODULE_LOCATION="/extra"
"#;

#[rstest]
#[case::plain("MAKE='make all'", "make all")]
#[case::quotes(r#"MAKE='say "it'"'"'s"'"#, r#"say "it's""#)]
#[case::lines("MAKE='a\n\n  b '", "a\n\n  b ")]
#[case::glob("MAKE='*'", "*")]
#[case::dos("MAKE='make'\r\n\r\nCLEAN=x\r\n", "make")]
#[case::command("MAKE=$(echo made; echo said)", "made\nsaid")]
#[case::condition("if [[ $kernelver == 7.* ]]; then MAKE=seven; else MAKE=other; fi", "seven")]
#[case::kernel(
    "MAKE=\"-C $kernel_source_dir KVER=$kernelver $arch\"",
    "-C /l/7.2/build KVER=7.2.12-arch1-1 x86_64"
)]
#[case::expanded_again(
    "MAKE='-C $kernel_source_dir ${PACKAGE_NAME}'\nPACKAGE_NAME=zfs",
    "-C /l/7.2/build zfs"
)]
#[case::module(
    "MAKE=\"$module $module_version $parallel_jobs ${kernel_config##*/}\"",
    "zfs 2.4 4 .config"
)]
#[case::returns("MAKE=first; return 3\nMAKE=second", "first")]
#[case::syntax_error("MAKE=first\nif fi\nMAKE=second", "first")]
#[case::prints("echo hello; MAKE=make; printf 'value\\0MAKE\\0000\\0x'", "make")]
#[case::reads_standard_input("read -r x; MAKE=\"<$x>\"", "<>")]
#[case::background_process("MAKE=make; sleep 30 & disown", "make")]
#[case::children_get_the_variables(
    "MAKE=$(bash -c 'echo $kernelver $arch $module $module_version')",
    "7.2.12-arch1-1 x86_64 zfs 2.4"
)]
#[case::functions(
    "printf() { :; }; declare() { :; }; unset() { :; }; builtin() { :; }; set() { exit; }; trap() { exit; }; MAKE=make",
    "make"
)]
#[case::aliases(
    "shopt -s expand_aliases; alias printf=: declare=: unset=: for=:\nMAKE=make",
    "make"
)]
#[case::options("set -euf; shopt -s nullglob extglob; IFS=M; MAKE='* M*'", "* M*")]
#[case::traps("trap 'echo oops' ERR DEBUG EXIT RETURN; MAKE=make", "make")]
#[case::variables_named_like_ours(
    "alpm_dkms_wanted=(); MAKE=make; alpm_dkms_wanted=(MAKE)",
    "make"
)]
#[case::megabytes_of_output("yes | head -c 5000000; yes | head -c 5000000 >&2; MAKE=make", "make")]
#[case::program_after_a_test("[[ $arch ]] && /bin/true\nMAKE=make; /bin/true", "make")]
#[case::posix("set -o posix; MAKE=make", "make")]
#[case::positional("shift $#; set -- a b; MAKE=make", "make")]
#[case::local_variables("local a=make; local -a MAKE=($a all); MAKE+=(x)", "make")]
#[case::declared("declare -r MAKE=make; typeset -i STRIP=3", "make")]
#[case::local_in_a_block(
    "if true; then local MAKE=make; fi; unset -f f; f() { local MAKE=f; }; f",
    "make"
)]
#[case::destination("MAKE=$(override_dest_module_location /extra)", "/updates/dkms")]
#[case::destination_in_a_function(
    "f() { local to; to=$(override_dest_module_location \"$1\"); MAKE=$to/$module; }; f /kernel/x",
    "/updates/dkms/zfs"
)]
#[case::closed_streams("exec <&- >&- 2>&-; MAKE=make", "make")]
fn reads_values_from_bash(#[case] conf: &str, #[case] make: &str) {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.read(conf).unwrap().values.get("MAKE", 0), Some(make));
    fixture.assert_still_reads();
}

#[rstest]
#[case::exits("MAKE=make; exit 0")]
#[case::replaces_itself("MAKE=make; exec true")]
#[case::fails_under_set_e("set -e; MAKE=make; false; MAKE=more")]
#[case::closes_file_descriptors("for fd in {3..255}; do eval \"exec $fd>&-\"; done; MAKE=make")]
#[case::kills_the_shell("kill -9 $BASHPID; MAKE=make")]
// Kills the shell's process group, which contains only processes that the reader started.
#[case::kills_its_process_group("kill -9 $$ 0; kill -9 $BASHPID; MAKE=make")]
#[case::stops_reading("MAKE=make; set -n")]
#[case::unset_under_set_u("set -u; MAKE=$no_such_thing")]
#[case::writes_to_the_reply_pipe("MAKE=make; printf 'nonsense\\0' >&199")]
fn conf_that_ends_the_shell_is_unfinished(#[case] conf: &str) {
    let mut fixture = Fixture::new();
    let error = fixture.read(conf).unwrap_err();
    assert!(matches!(error, BashError::Unfinished { .. }), "{error}");
    assert_eq!(Failure::from(&error).code, 8);
    fixture.assert_still_reads();
}

#[rstest]
#[case::loops("while :; do :; done")]
#[case::waits("sleep 60")]
#[case::replaces_itself("exec sleep 60")]
#[case::stops("kill -STOP $BASHPID; sleep 60")]
#[case::prints_forever("while :; do echo no >&2; done")]
#[case::ignores_signals("trap '' TERM INT HUP; sleep 60 & wait")]
fn endless_conf_times_out(#[case] conf: &str) {
    let mut fixture = Fixture::new();
    fixture.assert_still_reads();
    fixture.reader.patience = Duration::from_millis(300);
    let started = Instant::now();
    let error = fixture.read(conf).unwrap_err();
    assert!(matches!(error, BashError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    fixture.reader.patience = Duration::from_secs(20);
    fixture.assert_still_reads();
}

#[test]
fn errors_name_the_file() {
    let mut fixture = Fixture::new();
    let name = |fixture: &Fixture, error: BashError| {
        Failure::from(&error).to_string().replace(fixture.dir.path().to_str().unwrap(), "")
    };
    let error = fixture.read(b"MAKE=ok\nPOST_ADD='caf\xe9'\n").unwrap_err();
    insta::assert_snapshot!(name(&fixture, error), @"
    /dkms.conf: POST_ADD[0]: not valid UTF-8
      convert the file to UTF-8
    ");
    let error = fixture.read("MAKE=$(yes | head -c 6000000)").unwrap_err();
    insta::assert_snapshot!(name(&fixture, error), @"
    /dkms.conf: values too large: more than 4 MiB in total
      run: bash -x /dkms.conf
    ");
    let error = fixture.read("declare -A MAKE=([first]=1)").unwrap_err();
    assert!(error.to_string().contains("invalid array index: MAKE[first]"), "{error}");
    let error = fixture.read("echo 'no headers' >&2; exit 1").unwrap_err();
    insta::assert_snapshot!(name(&fixture, error), @"
    /dkms.conf: evaluation ended early: no headers
      run: bash -x /dkms.conf
    ");
    fixture.reader.patience = Duration::from_millis(200);
    let error = fixture.read("sleep 9").unwrap_err();
    insta::assert_snapshot!(name(&fixture, error), @"
    /dkms.conf: evaluation timed out after 0.2 s
      run: bash -x /dkms.conf
    ");
    fixture.reader.patience = PATIENCE;
    fs::remove_file(fixture.file()).unwrap();
    fs::create_dir(fixture.file()).unwrap();
    let error = fixture.reader.read(&fixture.file(), Vec::new(), &[]).unwrap_err();
    assert_eq!(Failure::from(&error).code, 4);
    insta::assert_snapshot!(name(&fixture, error), @"
    cannot read /dkms.conf: not a regular file
      reinstall the package that owns it
    ");
}

#[test]
fn binary_conf_is_rejected() {
    let mut fixture = Fixture::new();
    let error = fixture.read(b"\x7fELF\0\0\x01PACKAGE_NAME=x\n\xff\xfe").unwrap_err();
    assert!(error.to_string().contains("not a text file"), "{error}");
    assert_eq!(Failure::from(&error).code, 8);
    fixture.assert_still_reads();
}

#[test]
fn comments_can_have_any_encoding() {
    // Some old confs have the author's name in Latin-1.
    assert!(Fixture::new().read(b"# Jos\xe9\nMAKE=make").is_ok());
}

#[test]
fn reads_overrides_in_order_after_the_conf() {
    let mut fixture = Fixture::new();
    let overrides = [
        "zfs.conf",
        "zfs-2.4.conf",
        "zfs-2.4-7.2.12-arch1-1.conf",
        "zfs-2.4-7.2.12-arch1-1-x86_64.conf",
        "zfs--7.2.12-arch1-1.conf",
        "zfs--7.2.12-arch1-1-x86_64.conf",
    ];
    for (number, file) in overrides.iter().enumerate() {
        let text =
            format!("MAKE=\"${{MAKE}}{number}$helper\"; POST_ADD[{number}]='$MAKE'; helper=x");
        fs::write(fixture.trees.etc.join(file), text).unwrap();
    }
    fs::write(fixture.trees.etc.join("zfs-2.5.conf"), "MAKE=wrong").unwrap();
    let values = fixture.read("MAKE=c; STRIP[2]=no; helper=y").unwrap().values;
    assert_eq!(values.get("MAKE", 0), Some("c012345"));
    assert_eq!(values.elements("POST_ADD").count(), 6);
    assert_eq!(values.elements("STRIP").collect::<Vec<_>>(), [(2, "no")]);
}

#[test]
fn confs_do_not_affect_each_other_and_ignore_the_callers_variables() {
    let mut fixture = Fixture::new();
    let env = Environment::fixed().with("MAKE", "gmake").with("POSIXLY_CORRECT", "1");
    fixture.reader = reader(Tools::default(), env, None);
    let set =
        "PACKAGE_NAME=a MAKE=(a b c); export POST_ADD=x; cd /usr; umask 077; readonly STRIP=y";
    fixture.read(set).unwrap();
    let values = fixture.read("PRE_BUILD=$(umask)").unwrap().values;
    assert_eq!(values.iter().collect::<Vec<_>>(), [("PRE_BUILD", 0, "0022")]);
}

#[rstest]
#[case::version_file("PACKAGE_VERSION=$(cat VERSION)", "PACKAGE_VERSION")]
#[case::helper("source ./helper.sh; MAKE_MATCH=$version", "MAKE_MATCH")]
#[case::glob("for file in V*N; do PRE_BUILD=$(<\"$file\"); done", "PRE_BUILD")]
fn confs_and_overrides_are_evaluated_in_the_directory_of_the_source(
    #[case] conf: &str,
    #[case] directive: &str,
) {
    let mut fixture = Fixture::new();
    fs::write(fixture.dir.path().join("VERSION"), "1.5\n").unwrap();
    fs::write(fixture.dir.path().join("helper.sh"), "version=$(cat VERSION)\n").unwrap();
    assert_eq!(fixture.read(conf).unwrap().values.get(directive, 0), Some("1.5"));
    fs::write(fixture.trees.etc.join("zfs.conf"), conf).unwrap();
    assert_eq!(fixture.read("cd /").unwrap().values.get(directive, 0), Some("1.5"));
}

#[test]
fn a_conf_or_an_override_can_set_directives_through_variables() {
    let mut fixture = Fixture::new();
    let conf = "DKMS_DIRECTIVE_A='MAKE=make all'\nlocal DKMS_DIRECTIVE_B=STRIP=no\nMAKE=make";
    let values = fixture.read(conf).unwrap().values;
    assert_eq!((values.get("MAKE", 0), values.get("STRIP", 0)), (Some("make all"), Some("no")));
    fs::write(fixture.trees.etc.join("zfs.conf"), "DKMS_DIRECTIVE=MAKE=true").unwrap();
    assert_eq!(fixture.read("MAKE=make").unwrap().values.get("MAKE", 0), Some("true"));
}

#[test]
fn other_distributions_install_objects_where_the_conf_says() {
    let mut fixture = Fixture::new();
    fixture.destination = None;
    let conf = "MAKE=$(override_dest_module_location /extra)";
    assert_eq!(fixture.read(conf).unwrap().values.get("MAKE", 0), Some("/extra"));
    // As in dkms, programs do not have the function.
    let conf = "MAKE=$(bash -c 'type -t override_dest_module_location' || echo none)";
    assert_eq!(fixture.read(conf).unwrap().values.get("MAKE", 0), Some("none"));
}

#[rstest]
#[case::open_quote("PACKAGE_NAME=\"zfs\nMAKE=make\n", &["unexpected EOF"])]
#[case::blanks_around_equals("\nPACKAGE_NAME = \"x\"\n", &["line 2: PACKAGE_NAME: command not found"])]
#[case::open_block("if true; then\nMAKE=make\n", &["syntax error"])]
#[case::test("[[ -n x ]] && [ -gt 3 ]\n", &["line 1: [: "])]
#[case::in_a_function("f() {\n  nosuchprogram\n}\nf\n", &["line 2: nosuchprogram: command not found"])]
#[case::of_a_command("cat /no/such/file; ls /no/such/file\n", &[])]
#[case::dos("MAKE=make\r\n\r\n", &[])]
fn complaints_of_bash_name_file_and_line(#[case] conf: &str, #[case] want: &[&str]) {
    let mut fixture = Fixture::new();
    let about = |reply: ConfReply, file: PathBuf| {
        let all = reply.complaints;
        assert!(all.iter().all(|(about, _)| *about == file), "{all:?}");
        let lines: Vec<String> = all.into_iter().flat_map(|(_, lines)| lines).collect();
        for (number, part) in want.iter().enumerate() {
            let line = &lines[number];
            assert!(line.starts_with(&format!("{}: line ", file.display())), "{line}");
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(lines.is_empty(), want.is_empty(), "{lines:?}");
    };
    let reply = fixture.read(conf).unwrap();
    about(reply, fixture.file());
    let over = fixture.trees.etc.join("zfs.conf");
    fs::write(&over, conf).unwrap();
    about(fixture.read("MAKE=make\n").unwrap(), over);
}

#[test]
fn programs_of_the_given_directory_are_first_in_path() {
    let mut fixture = Fixture::new();
    let bin = fixture.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("uname"), "#!/bin/sh\necho \"$kernelver\"\n").unwrap();
    fs::set_permissions(bin.join("uname"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    fixture.reader = reader(Tools::default(), Environment::fixed(), Some(&bin));
    let values = fixture.read("MAKE=$(uname -r)").unwrap().values;
    assert_eq!(values.get("MAKE", 0), Some("7.2.12-arch1-1"));
}

#[test]
fn shell_killed_between_reads_is_replaced() {
    let mut fixture = Fixture::new();
    fixture.read("MAKE=make; ( sleep 0.1; kill -9 0 ) &").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    fixture.assert_still_reads();
}

#[test]
fn interprets_a_valid_conf() {
    let mut fixture = Fixture::new();
    let conf = fixture.conf(
        r#"
        PACKAGE_NAME="zfs"; PACKAGE_VERSION="2.4"; AUTOINSTALL="YES"
        BUILT_MODULE_NAME=(spl zfs); BUILT_MODULE_LOCATION=(module/spl/ "/module")
        DEST_MODULE_NAME[1]=zfs2; DEST_MODULE_LOCATION=(/extra /kernel/fs); STRIP[0]=no; STRIP[1]=yes
        MAKE="make
          all"; MAKE[1]="make arch"; MAKE_MATCH[1]=arch; MAKE[2]=never; MAKE_MATCH[2]=lts
        PATCH=(a.patch b.patch); PATCH_MATCH[1]="^6"
        BUILD_DEPENDS=("spl icp" spl); BUILD_DEPENDS_REBUILD=yes; BUILD_EXCLUSIVE_KERNEL[1]=lts
        PRE_BUILD="configure.sh -v  2.4"; POST_BUILD=""; OBSOLETE_BY=9.1
        "#,
    );
    let conf = conf.unwrap();
    insta::assert_debug_snapshot!(conf.records, @r#"
    [
        ConfObject {
            built_name: "spl",
            built_location: "build/module/spl",
            dest_name: "spl",
            dest_location: "/extra",
            strip: false,
        },
        ConfObject {
            built_name: "zfs",
            built_location: "build/module",
            dest_name: "zfs2",
            dest_location: "/kernel/fs",
            strip: true,
        },
    ]
    "#);
    let name = |name: &str| name.parse::<ModuleName>().unwrap();
    assert_eq!(conf.make, MakeChoice::Text("make arch".into()));
    assert_eq!(conf.patches, ["a.patch"]);
    assert_eq!(conf.depends, [name("spl"), name("icp")]);
    assert_eq!((conf.autoinstall, conf.rebuild_with_depends), (Autoinstall::Yes, true));
    assert_eq!(conf.scripts.pre_build.as_deref(), Some("configure.sh -v  2.4"));
    assert_eq!(conf.scripts.post_build, None);
    let excluded = conf.excluded(&fixture.kernel, &fixture.arch, None);
    assert_eq!((excluded.records[0].as_ref(), excluded.whole()), (None, None));
    assert_eq!(excluded.records[1].as_ref().unwrap().to_string(), "BUILD_EXCLUSIVE_KERNEL is lts");
    assert_eq!(conf.check_strictly("dkms.conf".as_ref()), Ok(()));
}

#[rstest]
#[case::one_record("PACKAGE_NAME=zfs; PACKAGE_VERSION=1; DEST_MODULE_LOCATION=/updates", 1)]
#[case::no_records("PACKAGE_NAME=zfs; PACKAGE_VERSION=1", 0)]
fn accepts_a_short_conf(#[case] text: &str, #[case] records: usize) {
    let mut fixture = Fixture::new();
    let conf = fixture.conf(text).unwrap();
    assert_eq!(conf.records.len(), records);
    assert!(conf.records.iter().all(|record| record.built_name == "zfs" && record.strip));
    assert_eq!((conf.make, conf.autoinstall), (MakeChoice::Generic, Autoinstall::Unset));
}

#[rstest]
#[case::usual("/kernel/drivers/misc", "/kernel/drivers/misc")]
#[case::untidy("/updates//dkms/", "/updates/dkms")]
#[case::dots("/kernel/../misc/./x/", "/misc/x")]
fn normalises_destinations(#[case] location: &str, #[case] want: &str) {
    let mut fixture = Fixture::new();
    let conf = fixture.conf(&format!("{VALID}\nDEST_MODULE_LOCATION={location}")).unwrap();
    assert_eq!(conf.records[0].dest_location, want);
}

#[rstest]
#[case::top("", "build")]
#[case::inside("drivers//net/", "build/drivers/net")]
#[case::out_and_in(
    "../build/build/${arch}_linux-${kernelver}/net",
    "build/build/x86_64_linux-7.2.12-arch1-1/net"
)]
#[case::beside("./../out/$arch", "out/x86_64")]
#[case::similar_name("../build-2", "build-2")]
#[case::whole("..", "")]
fn built_location_may_lead_out_of_the_build_directory(#[case] location: &str, #[case] want: &str) {
    let mut fixture = Fixture::new();
    let conf = fixture.conf(&format!("{VALID}\nBUILT_MODULE_LOCATION=\"{location}\"")).unwrap();
    assert_eq!(conf.records[0].built_location, PathBuf::from(want));
}

#[rstest]
#[case::index_0_applies_to_all("BUILD_EXCLUSIVE_KERNEL=lts", Some("BUILD_EXCLUSIVE_KERNEL is lts"))]
#[case::one_per_record("BUILD_EXCLUSIVE_ARCH[0]=x86; BUILD_EXCLUSIVE_ARCH[1]=arm", None)]
#[case::none("", None)]
fn excludes_a_module_only_if_all_records_are_excluded(
    #[case] text: &str,
    #[case] whole: Option<&str>,
) {
    let mut fixture = Fixture::new();
    let second = "BUILT_MODULE_NAME[1]=b; DEST_MODULE_LOCATION[1]=/extra";
    let conf = fixture.conf(&format!("{VALID}{second}\n{text}")).unwrap();
    let excluded = conf.excluded(&fixture.kernel, &fixture.arch, None);
    assert_eq!(excluded.whole().map(ToString::to_string).as_deref(), whole);
}

#[test]
fn module_without_records_is_never_excluded() {
    let mut fixture = Fixture::new();
    let conf =
        fixture.conf("PACKAGE_NAME=a; PACKAGE_VERSION=1; BUILD_EXCLUSIVE_KERNEL=lts").unwrap();
    assert_eq!(conf.excluded(&fixture.kernel, &fixture.arch, None).whole(), None);
}

#[rstest]
#[case::nothing(
    "PACKAGE_NAME= PACKAGE_VERSION=",
    "PACKAGE_NAME is not set\n  PACKAGE_VERSION is not set"
)]
#[case::gap(
    "BUILT_MODULE_NAME[2]=c; DEST_MODULE_LOCATION[2]=/extra",
    "BUILT_MODULE_NAME[1] is not set\n  DEST_MODULE_LOCATION[1] is not set"
)]
#[case::index_too_large(
    "STRIP=no; BUILT_MODULE_NAME[99999999]=x",
    "array index too large in BUILT_MODULE_NAME or a related directive: 99999999 (maximum 999)"
)]
#[case::object_suffix(
    "BUILT_MODULE_NAME=zfs.ko",
    "BUILT_MODULE_NAME[0] must not end in .ko or .o: \"zfs.ko\""
)]
#[case::dest_object_suffix(
    "DEST_MODULE_NAME=zfs.o",
    "DEST_MODULE_NAME[0] must not end in .ko or .o: \"zfs.o\""
)]
#[case::slash(
    "BUILT_MODULE_NAME=../zfs",
    "BUILT_MODULE_NAME[0] must be a file name without spaces or slashes: \"../zfs\""
)]
#[case::dest_slash(
    "DEST_MODULE_NAME=a/b",
    "DEST_MODULE_NAME[0] must be a file name without spaces or slashes: \"a/b\""
)]
#[case::line_break(
    "DEST_MODULE_NAME=$'a\\nb'",
    "DEST_MODULE_NAME[0] must be a file name without spaces or slashes: \"a\\nb\""
)]
#[case::outside(
    "BUILT_MODULE_LOCATION=a/../../../x",
    "BUILT_MODULE_LOCATION[0] must be inside the module's directory in the dkms tree: \"a/../../../x\""
)]
#[case::other_version(
    "BUILT_MODULE_LOCATION=../../2.5/build",
    "BUILT_MODULE_LOCATION[0] must be inside the module's directory in the dkms tree: \"../../2.5/build\""
)]
#[case::dest_outside(
    "DEST_MODULE_LOCATION=/extra/../../etc",
    "DEST_MODULE_LOCATION[0] must be below /kernel, /updates or /extra: \"/extra/../../etc\""
)]
#[case::dest_elsewhere(
    "DEST_MODULE_LOCATION=../../etc",
    "DEST_MODULE_LOCATION[0] must be below /kernel, /updates or /extra: \"../../etc\""
)]
#[case::dest_absolute(
    "DEST_MODULE_LOCATION=/etc",
    "DEST_MODULE_LOCATION[0] must be below /kernel, /updates or /extra: \"/etc\""
)]
#[case::autoinstall("AUTOINSTALL=true", "AUTOINSTALL must be yes or no: \"true\"")]
#[case::depends(
    "BUILD_DEPENDS='spl ../x'",
    "BUILD_DEPENDS[0]: invalid module name: \"../x\" (expected one path component without blanks or control characters, not starting with . or -)"
)]
fn rejects_invalid_confs(#[case] text: &str, #[case] problems: &str) {
    let mut fixture = Fixture::new();
    let error = fixture.conf(&format!("{VALID}\n{text}")).unwrap_err();
    assert_eq!(Failure::from(&error).code, 8);
    assert_eq!(error.to_string(), format!("dkms.conf: invalid:\n  {problems}"));
    let hint = "see: dkms.conf(5); a file in /etc/dkms can override directives";
    assert_eq!(Failure::from(&error).hint.as_deref(), Some(hint));
}

#[rstest]
#[case::dest("DEST_MODULE_NAME=(zfs zfs)", "DEST_MODULE_NAME[1] is used by an earlier entry")]
#[case::built(
    "BUILT_MODULE_NAME[1]=zfs; DEST_MODULE_NAME[1]=b",
    "BUILT_MODULE_NAME[1] names the same object as an earlier entry"
)]
fn strict_check_rejects_duplicates(#[case] text: &str, #[case] problem: &str) {
    let mut fixture = Fixture::new();
    let second = "BUILT_MODULE_NAME[1]=b; DEST_MODULE_LOCATION[1]=/extra";
    let conf = fixture.conf(&format!("{VALID}{second}\n{text}")).unwrap();
    let error = conf.check_strictly("dkms.conf".as_ref()).unwrap_err();
    assert!(error.to_string().contains(problem), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Covers all text in single quotes that contains no `$`, NUL or carriage return. The engine
    /// treats these three specially.
    #[test]
    fn values_in_single_quotes_are_read_exactly(
        texts in proptest::collection::btree_map(0_usize..40, "[^\0$\r]{0,12}|[ \\n'\"*?\\[\\]é€\\\\`&;|<>(){}!#~-]{0,12}", 0..6),
    ) {
        let mut fixture = Fixture::new();
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let conf: String = texts.iter().map(|(i, text)| format!("PATCH[{i}]={}\n", quoted(text))).collect();
        let values = fixture.read(conf).unwrap().values;
        let got: Vec<_> = values.elements("PATCH").collect();
        let want: Vec<_> = texts.iter().map(|(i, text)| (*i, text.as_str())).collect();
        prop_assert_eq!(got, want);
    }

    /// Bash executes the generated conf, so the conf only contains characters that cannot form a
    /// command or a redirection.
    #[test]
    fn the_reader_never_panics(conf in r#"((PATCH|STRIP|BUILT_MODULE_NAME)(\[[0-9A-Z]\])?\+?=|[A-Z0-9"'$(){}\[\]!#;=\\ \n]){0,20}"#) {
        let mut fixture = Fixture::new();
        if let Ok(reply) = fixture.read(conf) {
            let _ = Conf::from_values(&reply.values, "dkms.conf".as_ref(), &fixture.kernel);
        }
    }
}
