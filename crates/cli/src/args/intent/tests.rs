//! Tests of the interpretation of command lines.

use std::ffi::OsString;

use dkms_engine::machine::Machine;
use dkms_engine::status::{KernelFilter, Pattern};
use rstest::rstest;

use super::*;

fn read(line: &str) -> Result<Intent, Failure> {
    let (args, stop) = Args::parse(line.split(' ').map(OsString::from));
    assert_eq!(stop, None);
    let machine = Machine::for_hook("/nowhere".as_ref());
    let context = Context {
        kernel: "7.2.13-arch1-1".into(),
        arch: "x86_64".parse().expect("a name"),
        is_root: true,
        machine: &machine,
    };
    Intent::read(&args, &context)
}

/// Asserts that a command line has the intent `want`. Compares the debug output, because
/// patterns cannot be compared.
#[track_caller]
fn assert_means(line: &str, want: Intent) {
    let intent = read(line).expect("a valid command line");
    assert_eq!(format!("{intent:?}"), format!("{want:?}"), "{line}");
}

fn on(pairs: &[(&str, &str)]) -> KernelChoice {
    let target = |(kernel, arch): &(&str, &str)| Target {
        kernel: kernel.parse().expect("a name"),
        arch: arch.parse().expect("a name"),
    };
    KernelChoice::These(pairs.iter().map(target).collect())
}

#[rstest]
#[case::positional("install foo/1.0", Verb::Install, on(&[("7.2.13-arch1-1", "x86_64")]))]
#[case::options("-m foo -v 1.0 build", Verb::Build, on(&[("7.2.13-arch1-1", "x86_64")]))]
#[case::mixed("remove -m foo/1.0 --all", Verb::Remove, KernelChoice::All)]
#[case::all_with_headers("install foo/1.0 --all", Verb::Install, KernelChoice::All)]
#[case::last_version("unbuild foo/0.9 -v 1.0 -k 6.1", Verb::Unbuild, on(&[("6.1", "x86_64")]))]
#[case::kernel_and_arch("uninstall foo/1.0 -k 6.1/arm64", Verb::Uninstall, on(&[("6.1", "arm64")]))]
#[case::one_arch_for_all("build foo/1.0 -k 6.1/arm64 -k 6.2", Verb::Build, on(&[("6.1", "arm64"), ("6.2", "arm64")]))]
#[case::pairs("build foo/1.0 -k 6.1 -k 6.2 -a a -a b", Verb::Build, on(&[("6.1", "a"), ("6.2", "b")]))]
#[case::one_kernel("add foo/1.0 -k 6.1 -k 6.2", Verb::Add, on(&[("6.1", "x86_64")]))]
fn reads_a_verb(#[case] line: &str, #[case] verb: Verb, #[case] kernels: KernelChoice) {
    let foo = Subject::Module("foo/1.0".parse().expect("a module"));
    assert_means(line, Intent::Change(verb, foo, kernels));
}

#[rstest]
#[case::list("cache --json", Intent::Cache)]
#[case::clear("cache clear", Intent::ClearCache)]
fn reads_the_operand_of_cache(#[case] line: &str, #[case] intent: Intent) {
    assert_means(line, intent);
}

#[test]
fn reads_the_extent_of_verify() {
    let kernels = ["6.1", "6.2"].map(|kernel| kernel.parse().expect("a release"));
    let of_kernels = Extent { kernels: kernels.into(), ..Extent::default() };
    assert_means("verify -k 6.1 -k 6.2 --json", Intent::Verify(of_kernels));
    assert_means("verify --boot", Intent::Verify(Extent { boot: true, ..Extent::default() }));
    assert_means("verify", Intent::Verify(Extent::default()));
}

#[rstest]
#[case::boot_and_kernel("verify --boot -k 6.1", 2)]
#[case::unknown_module("verify foo", 3)]
#[case::version_alone("verify -v 1", 1)]
#[case::no_module("build", 1)]
#[case::explain_nothing("explain", 1)]
#[case::preflight_of_nothing("preflight", 2)]
#[case::preflight_of_a_module("preflight -m foo --allow-once", 2)]
#[case::preflight_of_an_upgrade_and_permission("preflight --upgrade --allow-once", 2)]
#[case::preflight_of_a_file_and_permission("preflight foo.pkg.tar.zst --allow-once", 2)]
#[case::cache_with_module("cache foo/1.0", 2)]
#[case::no_version("remove foo", 1)]
#[case::bad_module("add -m .. -v 1", 1)]
#[case::unpaired("build foo/1 -k 6.1 -a a -a b", 1)]
#[case::all_and_kernel("remove foo/1 --all -k 6.1", 2)]
#[case::no_command("foo/1", 2)]
#[case::no_archive("ldtarball", 2)]
#[case::missing_archive("ldtarball foo.dkms.tar.gz", 2)]
#[case::pack_without_version("mktarball foo", 1)]
#[case::lint_of_nothing("lint", 2)]
#[case::lint_of_a_module("lint -m foo -v 1", 2)]
#[case::lint_of_a_missing_path("lint foo", 2)]
#[case::lint_for_two_kernels("lint / -k 6.1 -k 6.2", 1)]
#[case::no_such_path("add ./foo-1", 2)]
#[case::no_such_absolute_path("add /nowhere/foo-1", 1)]
#[case::path_for_a_command_without_paths("remove ./foo-1", 1)]
#[case::all_and_arch("remove foo/1 --all -a a", 3)]
#[case::status_of_all_and_kernel("status --all -k 6.1", 2)]
#[case::hook_without_kernel("kernel_prerm", 4)]
#[case::hook_with_two_kernels("kernel_postinst -k 6.1 -k 6.2", 4)]
#[case::hook_with_all("kernel_preinst --all", 5)]
#[case::two_kernels("autoinstall -k 6.1 -k 6.2", 4)]
#[case::all_and_add("add foo/1.0 --all", 5)]
#[case::all_and_path("install ./foo-1 --all", 5)]
#[case::all_and_archive("build --archive foo.tar --all", 5)]
#[case::all_and_kernel_hook("kernel_postinst --all", 5)]
#[case::install_for_all_and_kernel("install foo/1.0 --all -k 6.1", 2)]
#[case::autoinstall_for_all_and_kernel("autoinstall --all -k 6.1", 2)]
#[case::all_and_headers("build foo/1.0 --all --kernelsourcedir /nowhere", 2)]
#[case::all_and_configuration("autoinstall --all --config /nowhere", 2)]
#[case::match_without_template("match", 1)]
#[case::match_with_itself("match --templatekernel=6.1 -k 6.1", 2)]
#[case::match_for_two_kernels("match --templatekernel 6 -k 6.1 -k 6.2", 4)]
#[case::match_for_all("match --all --templatekernel 6", 5)]
#[case::empty_archive("mktarball foo/1 --binaries-only --source-only --all -k 6.1", 8)]
#[case::empty_arch("build foo/1 -k 6.1/", 16)]
#[case::empty_kernel("build foo/1 -k /a", 16)]
fn refuses_with_the_exit_codes_of_dkms(#[case] line: &str, #[case] code: u8) {
    assert_eq!(read(line).err().map(|failure| failure.code), Some(code), "{line}");
}

#[test]
fn reads_the_other_commands() {
    assert_means("autoinstall --pending", Intent::FinishPending);
    let target =
        Target { kernel: "6.1".parse().expect("a name"), arch: "x86_64".parse().expect("a name") };
    let target_of_explain = target.clone();
    assert_means("autoinstall -k 6.1", Intent::Autoinstall(Some(target.clone())));
    assert_means("autoinstall --all", Intent::Autoinstall(None));
    assert_means("kernel_postinst -k 6.1", Intent::Autoinstall(Some(target.clone())));
    assert_means("kernel_preinst -k 6.1", Intent::Clear(target.clone(), false));
    assert_means("kernel_prerm -k 6.1", Intent::Clear(target.clone(), true));
    assert_means("generate_mok", Intent::GenerateMok(None));
    let kernel = Some(target.kernel.clone());
    assert_means("generate_mok -k 6.1", Intent::GenerateMok(kernel));
    let template = "6.0".parse().expect("a name");
    let module = Some("foo".parse().expect("a name"));
    let wanted = Intent::Match { template, target, module };
    assert_means("match --templatekernelX=6.0 foo -k 6.1", wanted);
    assert_means("initramfs --dry-run", Intent::Initramfs);
    let allow_once = Intent::Preflight(PreflightIntent::AllowOnce);
    assert_means("preflight --allow-once", allow_once);
    let files = ["a/b".into(), "./c.pkg.tar.zst".into()].into();
    let files = Intent::Preflight(PreflightIntent::Files(files));
    assert_means("preflight a/b --json ./c.pkg.tar.zst", files);
    let upgrade = |downloads| Intent::Preflight(PreflightIntent::Upgrade { downloads });
    assert_means("preflight --upgrade", upgrade(true));
    assert_means("preflight --no-download --upgrade", upgrade(false));
    let name = || "foo".parse().expect("a name");
    let explained = Intent::Explain { module: name(), version: None, kernels: None };
    assert_means("explain foo", explained);
    let version = Some("1.0".parse().expect("a version"));
    let kernels = Some(vec![target_of_explain]);
    assert_means("explain foo/1.0 -k 6.1", Intent::Explain { module: name(), version, kernels });
    assert_means("status", Intent::Status(Filter::default()));
    let filter = Filter {
        module: Some(Pattern::new("foo*")),
        version: Some(Pattern::new("1")),
        kernels: vec![KernelFilter { kernel: Some(Pattern::new("6.*")), arch: None }],
    };
    assert_means("status -m foo* -v 1 -k 6.*", Intent::Status(filter));
}
