//! Tests with confs of every kind, read by a real bash.

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

/// A machine with one module whose conf is to be read, and the reader.
struct Place {
    dir: tempfile::TempDir,
    trees: Trees,
    id: ModuleId,
    kernel: KernelRelease,
    arch: Arch,
    reader: BashReader,
}

impl Place {
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

const SOUND: &str = r#"
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
#[case::second_time(
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
#[case::background("MAKE=make; sleep 30 & disown", "make")]
#[case::children_see_the_kernel(
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
#[case::our_names("alpm_dkms_wanted=(); MAKE=make; alpm_dkms_wanted=(MAKE)", "make")]
#[case::megabytes_said("yes | head -c 5000000; yes | head -c 5000000 >&2; MAKE=make", "make")]
#[case::program_after_a_test("[[ $arch ]] && /bin/true\nMAKE=make; /bin/true", "make")]
#[case::posix("set -o posix; MAKE=make", "make")]
#[case::positional("shift $#; set -- a b; MAKE=make", "make")]
#[case::closed_streams("exec <&- >&- 2>&-; MAKE=make", "make")]
fn reads_what_bash_has(#[case] conf: &str, #[case] make: &str) {
    let mut place = Place::new();
    assert_eq!(place.read(conf).unwrap().values.get("MAKE", 0), Some(make));
    place.assert_still_reads();
}

#[rstest]
#[case::exits("MAKE=make; exit 0")]
#[case::replaces_itself("MAKE=make; exec true")]
#[case::fails_under_set_e("set -e; MAKE=make; false; MAKE=more")]
#[case::closes_descriptors("for fd in {3..255}; do eval \"exec $fd>&-\"; done; MAKE=make")]
#[case::kills_the_shell("kill -9 $BASHPID; MAKE=make")]
// Its own process group, that is: only what the reader has started.
#[case::kills_everything("kill -9 $$ 0; kill -9 $BASHPID; MAKE=make")]
#[case::stops_reading("MAKE=make; set -n")]
#[case::unset_under_set_u("set -u; MAKE=$no_such_thing")]
#[case::talks_to_us("MAKE=make; printf 'nonsense\\0' >&199")]
fn a_conf_that_leaves_gives_no_answer(#[case] conf: &str) {
    let mut place = Place::new();
    let error = place.read(conf).unwrap_err();
    assert!(matches!(error, BashError::Unfinished { .. }), "{error}");
    assert_eq!(Failure::from(&error).code, 8);
    place.assert_still_reads();
}

#[rstest]
#[case::loops("while :; do :; done")]
#[case::waits("sleep 60")]
#[case::becomes_something_endless("exec sleep 60")]
#[case::stops("kill -STOP $BASHPID; sleep 60")]
#[case::says_without_end("while :; do echo no >&2; done")]
#[case::ignores_signals("trap '' TERM INT HUP; sleep 60 & wait")]
fn a_conf_that_never_ends_is_out_of_time(#[case] conf: &str) {
    let mut place = Place::new();
    place.assert_still_reads();
    place.reader.patience = Duration::from_millis(300);
    let started = Instant::now();
    let error = place.read(conf).unwrap_err();
    assert!(matches!(error, BashError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    place.reader.patience = Duration::from_secs(20);
    place.assert_still_reads();
}

#[test]
fn what_cannot_be_read_is_an_error_for_that_file() {
    let mut place = Place::new();
    let name = |place: &Place, error: BashError| {
        Failure::from(&error).to_string().replace(place.dir.path().to_str().unwrap(), "")
    };
    let error = place.read(b"MAKE=ok\nPOST_ADD='caf\xe9'\n").unwrap_err();
    insta::assert_snapshot!(name(&place, error), @"
    /dkms.conf: the value of POST_ADD[0] is not UTF-8
      write it in UTF-8
    ");
    let error = place.read("MAKE=$(yes | head -c 6000000)").unwrap_err();
    insta::assert_snapshot!(name(&place, error), @"
    /dkms.conf sets values of several megabytes
      run: bash -x /dkms.conf
    ");
    let error = place.read("declare -A MAKE=([first]=1)").unwrap_err();
    assert!(error.to_string().contains("MAKE[first] is no element of an array"), "{error}");
    let error = place.read("echo 'no headers' >&2; exit 1").unwrap_err();
    insta::assert_snapshot!(name(&place, error), @"
    /dkms.conf was not read to its end: it leaves the shell that reads it; it says: no headers
      run: bash -x /dkms.conf
    ");
    place.reader.patience = Duration::from_millis(200);
    let error = place.read("sleep 9").unwrap_err();
    insta::assert_snapshot!(name(&place, error), @"
    /dkms.conf was not read to its end within 0.2 s: it waits for something or never ends
      run: bash -x /dkms.conf
    ");
    place.reader.patience = PATIENCE;
    fs::remove_file(place.file()).unwrap();
    fs::create_dir(place.file()).unwrap();
    let error = place.reader.read(&place.file(), Vec::new(), &[]).unwrap_err();
    assert_eq!(Failure::from(&error).code, 4);
    insta::assert_snapshot!(name(&place, error), @"
    /dkms.conf cannot be read: it is not a file
      reinstall the package it belongs to
    ");
}

#[test]
fn a_binary_conf_is_not_run() {
    let mut place = Place::new();
    let error = place.read(b"\x7fELF\0\0\x01PACKAGE_NAME=x\n\xff\xfe").unwrap_err();
    assert!(error.to_string().contains("it is not a text"), "{error}");
    assert_eq!(Failure::from(&error).code, 8);
    place.assert_still_reads();
}

#[test]
fn a_comment_may_be_in_any_encoding() {
    // In the author's name, of old.
    assert!(Place::new().read(b"# Jos\xe9\nMAKE=make").is_ok());
}

#[test]
fn overrides_come_after_the_conf_in_their_order() {
    let mut place = Place::new();
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
        fs::write(place.trees.etc.join(file), text).unwrap();
    }
    fs::write(place.trees.etc.join("zfs-2.5.conf"), "MAKE=wrong").unwrap();
    let values = place.read("MAKE=c; STRIP[2]=no; helper=y").unwrap().values;
    assert_eq!(values.get("MAKE", 0), Some("c012345"));
    assert_eq!(values.elements("POST_ADD").count(), 6);
    assert_eq!(values.elements("STRIP").collect::<Vec<_>>(), [(2, "no")]);
}

#[test]
fn nothing_goes_from_one_conf_to_the_next_or_comes_from_the_caller() {
    let mut place = Place::new();
    let env = Environment::fixed().with("MAKE", "gmake").with("POSIXLY_CORRECT", "1");
    place.reader = reader(Tools::default(), env, None);
    let set =
        "PACKAGE_NAME=a MAKE=(a b c); export POST_ADD=x; cd /usr; umask 077; readonly STRIP=y";
    place.read(set).unwrap();
    let values = place.read("PRE_BUILD=$(pwd)$(umask)").unwrap().values;
    assert_eq!(values.iter().collect::<Vec<_>>(), [("PRE_BUILD", 0, "/0022")]);
}

#[test]
fn a_program_can_stand_first_in_the_path() {
    let mut place = Place::new();
    let bin = place.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("uname"), "#!/bin/sh\necho \"$kernelver\"\n").unwrap();
    fs::set_permissions(bin.join("uname"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    place.reader = reader(Tools::default(), Environment::fixed(), Some(&bin));
    let values = place.read("MAKE=$(uname -r)").unwrap().values;
    assert_eq!(values.get("MAKE", 0), Some("7.2.12-arch1-1"));
}

#[test]
fn a_worker_that_died_between_requests_is_replaced() {
    let mut place = Place::new();
    place.read("MAKE=make; ( sleep 0.1; kill -9 0 ) &").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    place.assert_still_reads();
}

#[test]
fn understands_a_sound_conf() {
    let mut place = Place::new();
    let conf = place.conf(
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
            built_location: "module/spl",
            dest_name: "spl",
            dest_location: "/extra",
            strip: false,
        },
        ConfObject {
            built_name: "zfs",
            built_location: "module",
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
    let excluded = conf.excluded(&place.kernel, &place.arch, None);
    assert_eq!((excluded.records[0].as_ref(), excluded.whole()), (None, None));
    assert_eq!(excluded.records[1].as_ref().unwrap().to_string(), "BUILD_EXCLUSIVE_KERNEL is lts");
    assert_eq!(conf.check_strictly("dkms.conf".as_ref()), Ok(()));
}

#[rstest]
#[case::least("PACKAGE_NAME=zfs; PACKAGE_VERSION=1; DEST_MODULE_LOCATION=/updates", 1)]
#[case::no_records("PACKAGE_NAME=zfs; PACKAGE_VERSION=1", 0)]
fn takes_a_short_conf(#[case] text: &str, #[case] records: usize) {
    let mut place = Place::new();
    let conf = place.conf(text).unwrap();
    assert_eq!(conf.records.len(), records);
    assert!(conf.records.iter().all(|record| record.built_name == "zfs" && record.strip));
    assert_eq!((conf.make, conf.autoinstall), (MakeChoice::Generic, Autoinstall::Unset));
}

#[rstest]
#[case::usual("/kernel/drivers/misc", "/kernel/drivers/misc")]
#[case::untidy("/updates//dkms/", "/updates/dkms")]
#[case::dots("/kernel/../misc/./x/", "/misc/x")]
fn a_destination_is_without_dots(#[case] location: &str, #[case] want: &str) {
    let mut place = Place::new();
    let conf = place.conf(&format!("{SOUND}\nDEST_MODULE_LOCATION={location}")).unwrap();
    assert_eq!(conf.records[0].dest_location, want);
}

#[rstest]
#[case::index_0_is_for_all("BUILD_EXCLUSIVE_KERNEL=lts", Some("BUILD_EXCLUSIVE_KERNEL is lts"))]
#[case::each_its_own("BUILD_EXCLUSIVE_ARCH[0]=x86; BUILD_EXCLUSIVE_ARCH[1]=arm", None)]
#[case::none("", None)]
fn excludes_records_and_the_whole(#[case] text: &str, #[case] whole: Option<&str>) {
    let mut place = Place::new();
    let second = "BUILT_MODULE_NAME[1]=b; DEST_MODULE_LOCATION[1]=/extra";
    let conf = place.conf(&format!("{SOUND}{second}\n{text}")).unwrap();
    let excluded = conf.excluded(&place.kernel, &place.arch, None);
    assert_eq!(excluded.whole().map(ToString::to_string).as_deref(), whole);
}

#[test]
fn a_module_without_records_is_never_excluded() {
    let mut place = Place::new();
    let conf = place.conf("PACKAGE_NAME=a; PACKAGE_VERSION=1; BUILD_EXCLUSIVE_KERNEL=lts").unwrap();
    assert_eq!(conf.excluded(&place.kernel, &place.arch, None).whole(), None);
}

#[rstest]
#[case::nothing(
    "PACKAGE_NAME= PACKAGE_VERSION=",
    "PACKAGE_NAME is not set\n  PACKAGE_VERSION is not set"
)]
#[case::hole(
    "BUILT_MODULE_NAME[2]=c; DEST_MODULE_LOCATION[2]=/extra",
    "BUILT_MODULE_NAME[1] is not set\n  DEST_MODULE_LOCATION[1] is not set"
)]
#[case::far_out(
    "STRIP=no; BUILT_MODULE_NAME[99999999]=x",
    "BUILT_MODULE_NAME and its like go up to index 99999999"
)]
#[case::object(
    "BUILT_MODULE_NAME=zfs.ko",
    "BUILT_MODULE_NAME[0] must not end in .ko or .o: \"zfs.ko\""
)]
#[case::dest_object(
    "DEST_MODULE_NAME=zfs.o",
    "DEST_MODULE_NAME[0] must not end in .ko or .o: \"zfs.o\""
)]
#[case::slash(
    "BUILT_MODULE_NAME=../zfs",
    "BUILT_MODULE_NAME[0] must be the name of a file, without blanks or directories: \"../zfs\""
)]
#[case::dest_slash(
    "DEST_MODULE_NAME=a/b",
    "DEST_MODULE_NAME[0] must be the name of a file, without blanks or directories: \"a/b\""
)]
#[case::line(
    "DEST_MODULE_NAME=$'a\\nb'",
    "DEST_MODULE_NAME[0] must be the name of a file, without blanks or directories: \"a\\nb\""
)]
#[case::up(
    "BUILT_MODULE_LOCATION=a/../..",
    "BUILT_MODULE_LOCATION[0] must be a directory below the source: \"a/../..\""
)]
#[case::dest_up(
    "DEST_MODULE_LOCATION=/extra/../../etc",
    "DEST_MODULE_LOCATION[0] must be a directory below /kernel, /updates or /extra: \"/extra/../../etc\""
)]
#[case::dest_elsewhere(
    "DEST_MODULE_LOCATION=../../etc",
    "DEST_MODULE_LOCATION[0] must be a directory below /kernel, /updates or /extra: \"../../etc\""
)]
#[case::dest_absolute(
    "DEST_MODULE_LOCATION=/etc",
    "DEST_MODULE_LOCATION[0] must be a directory below /kernel, /updates or /extra: \"/etc\""
)]
#[case::autoinstall("AUTOINSTALL=true", "AUTOINSTALL must be yes or no: \"true\"")]
#[case::depends(
    "BUILD_DEPENDS='spl ../x'",
    "BUILD_DEPENDS[0]: \"../x\" cannot be a module name: it must be one path component, without blanks or control characters"
)]
fn refuses_a_conf(#[case] text: &str, #[case] problems: &str) {
    let mut place = Place::new();
    let error = place.conf(&format!("{SOUND}\n{text}")).unwrap_err();
    assert_eq!(Failure::from(&error).code, 8);
    assert_eq!(error.to_string(), format!("dkms.conf cannot be used:\n  {problems}"));
    let hint = "see: dkms.conf(5); an override in /etc/dkms can mend it";
    assert_eq!(Failure::from(&error).hint.as_deref(), Some(hint));
}

#[rstest]
#[case::dest("DEST_MODULE_NAME=(zfs zfs)", "DEST_MODULE_NAME[1] is the name of another record")]
#[case::built(
    "BUILT_MODULE_NAME[1]=zfs; DEST_MODULE_NAME[1]=b",
    "BUILT_MODULE_NAME[1] is the object of another record"
)]
fn is_strict_before_building(#[case] text: &str, #[case] problem: &str) {
    let mut place = Place::new();
    let second = "BUILT_MODULE_NAME[1]=b; DEST_MODULE_LOCATION[1]=/extra";
    let conf = place.conf(&format!("{SOUND}{second}\n{text}")).unwrap();
    let error = conf.check_strictly("dkms.conf".as_ref()).unwrap_err();
    assert!(error.to_string().contains(problem), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// What bash has is what we get: whatever stands in single quotes, but for the second
    /// expansion.
    #[test]
    fn values_arrive_as_bash_has_them(
        texts in proptest::collection::btree_map(0_usize..40, "[^\0$\r]{0,12}|[ \\n'\"*?\\[\\]é€\\\\`&;|<>(){}!#~-]{0,12}", 0..6),
    ) {
        let mut place = Place::new();
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let conf: String = texts.iter().map(|(i, text)| format!("PATCH[{i}]={}\n", quoted(text))).collect();
        let values = place.read(conf).unwrap().values;
        let got: Vec<_> = values.elements("PATCH").collect();
        let want: Vec<_> = texts.iter().map(|(i, text)| (*i, text.as_str())).collect();
        prop_assert_eq!(got, want);
    }

    /// Of these signs no command and no redirection can be made: bash really runs them.
    #[test]
    fn the_reader_never_panics(conf in r#"((PATCH|STRIP|BUILT_MODULE_NAME)(\[[0-9A-Z]\])?\+?=|[A-Z0-9"'$(){}\[\]!#;=\\ \n]){0,20}"#) {
        let mut place = Place::new();
        if let Ok(answer) = place.read(conf) {
            let _ = Conf::from_values(&answer.values, "dkms.conf".as_ref(), &place.kernel);
        }
    }
}
