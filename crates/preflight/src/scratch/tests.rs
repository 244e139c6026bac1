use std::thread;

use rstest::rstest;
use testroot::TestRoot;

use super::*;

const OLD: &str = "7.2.1-arch1-1";
const STAYS: &str = "6.12.1-1-lts";
const NEW: &str = "7.2.2-arch1-1";

/// A machine with two kernels and two modules. The packages of the kernel `OLD` and of the module
/// `a` are replaced.
fn machine() -> TestRoot {
    let root = TestRoot::new();
    for release in [OLD, STAYS] {
        root.kernel(release).pkgbase("linux").headers().object("kernel/own.ko.zst");
        root.write(format!("usr/lib/modules/{release}/updates/dkms/a.ko"), "built");
    }
    root.source("a", "1");
    root.source("b", "1");
    root.link("usr/src/linux", "linux-7.2.1");
    root.write("usr/src/notes", "text");
    for kept in ["a/1/6.12.1-1-lts/x86_64/module/a.ko", "mok.pub", ".kept/a-1/dkms.conf"] {
        root.write(format!("var/lib/dkms/{kept}"), kept);
    }
    for left_out in ["a/1/build/a.o", ".cache/objects/1", ".log/a", ".pending/1", ".build/1/a.o"] {
        root.write(format!("var/lib/dkms/{left_out}"), left_out);
    }
    root.link("var/lib/dkms/a/1/source", "/usr/src/a-1");
    root.link("var/lib/dkms/a/kernel-6.12.1-1-lts-x86_64", "1/6.12.1-1-lts/x86_64");
    root
}

fn departing() -> Departing {
    let old: BTreeSet<KernelRelease> = [OLD.parse().unwrap()].into();
    Departing { sources: ["a-1".into()].into(), kernels: old.clone(), headers: old }
}

/// Calls `test` in a thread with mounts of its own, in which only the scratch space can be written.
fn with_scratch(root: &TestRoot, test: impl FnOnce(&Scratch) + Send) {
    let trees = Trees::under(root.path());
    let departing = departing();
    let run = || {
        let dir = trees.dkms.join(".alpm-dkms-trial-1");
        fs::create_dir(&dir).unwrap();
        namespace::enter().unwrap();
        namespace::mount_memory(&dir, 8 << 20).unwrap();
        namespace::make_read_only(&[&dir]).unwrap();
        test(&Scratch::new(&trees, &departing, &dir).unwrap());
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap());
}

fn write(path: &Path) -> Result<(), ErrorKind> {
    fs::create_dir_all(path.parent().unwrap()).map_err(|error| error.kind())?;
    fs::write(path, "new").map_err(|error| error.kind())
}

#[test]
#[ignore = "needs root: run make unit"]
fn contains_staying_and_arriving_entries() {
    let root = machine();
    with_scratch(&root, |scratch| {
        write(&scratch.path("usr/src/a-2/dkms.conf")).unwrap();
        write(&scratch.path(&format!("usr/lib/modules/{NEW}/pkgbase"))).unwrap();
        scratch.fill().unwrap();

        let names = |dir: &Path| -> BTreeSet<String> {
            let all = fs::read_dir(dir).unwrap().flatten();
            all.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(names(&scratch.sources()), set(&["a-2", "b-1", "linux", "notes"]));
        assert_eq!(names(&scratch.kernels()), set(&[NEW, STAYS]));
        assert_eq!(names(&scratch.dkms), set(&[".kept", "a", "mok.pub"]));
        assert_eq!(names(&scratch.dkms.join("a/1")), set(&[STAYS, "source"]));
        let same = |inner: &str| {
            let [scratch, machine] =
                [&scratch.root, root.path()].map(|top| fs::read(top.join(inner)).unwrap());
            assert!(scratch == machine, "{inner}");
        };
        same("usr/src/b-1/dkms.conf");
        same("usr/src/notes");
        same(&format!("usr/lib/modules/{STAYS}/kernel/own.ko.zst"));
        same(&format!("usr/lib/modules/{STAYS}/updates/dkms/a.ko"));
        let link = scratch.dkms.join("a/kernel-6.12.1-1-lts-x86_64");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("1/6.12.1-1-lts/x86_64"));
    });
}

/// A reinstalled kernel keeps what no package contains: its installed modules.
#[test]
#[ignore = "needs root: run make unit"]
fn a_reinstalled_kernel_keeps_its_modules() {
    let root = machine();
    with_scratch(&root, |scratch| {
        let kernel = scratch.kernels().join(OLD);
        write(&kernel.join("pkgbase")).unwrap();
        scratch.fill().unwrap();
        assert_eq!(fs::read_to_string(kernel.join("pkgbase")).unwrap(), "new");
        assert_eq!(fs::read_to_string(kernel.join("updates/dkms/a.ko")).unwrap(), "built");
        assert!(!kernel.join("build").exists());
    });
}

#[test]
#[ignore = "needs root: run make unit"]
fn only_copies_can_be_changed() {
    let root = machine();
    let before = root.listing("");
    with_scratch(&root, |scratch| {
        scratch.fill().unwrap();
        let (kernel, sources) = (scratch.kernels().join(STAYS), scratch.sources());
        let module = scratch.dkms.join("a/1/6.12.1-1-lts/x86_64/module");
        for place in [&kernel, &kernel.join("updates/dkms"), &sources, &scratch.dkms, &module] {
            assert_eq!(write(&place.join("new")), Ok(()), "{}", place.display());
        }
        for place in [&kernel.join("kernel"), &kernel.join("build"), &sources.join("b-1")] {
            let refused = Err(ErrorKind::ReadOnlyFilesystem);
            assert_eq!(write(&place.join("new")), refused, "{}", place.display());
        }
        fs::remove_file(module.join("a.ko")).unwrap();
        fs::write(sources.join("notes"), "new").unwrap();
    });
    root.remove("var/lib/dkms/.alpm-dkms-trial-1");
    assert_eq!(root.listing(""), before);
}

/// A package contains a link in a place where the machine has a directory. The link points outside
/// the scratch space.
#[rstest]
#[case::kernel("usr/lib/modules/6.12.1-1-lts")]
#[case::installed_modules("usr/lib/modules/6.12.1-1-lts/updates")]
#[case::kernels("usr/lib/modules")]
#[case::sources("usr/src")]
#[ignore = "needs root: run make unit"]
fn a_link_does_not_lead_out_of_the_scratch_space(#[case] place: &str) {
    let root = machine();
    root.write("outside/file", "");
    let before = root.listing("");
    with_scratch(&root, |scratch| {
        let link = scratch.path(place);
        let _ = fs::remove_dir(&link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(root.at("outside"), &link).unwrap();
        scratch.fill().unwrap_err();
    });
    root.remove("var/lib/dkms/.alpm-dkms-trial-1");
    assert_eq!(root.listing(""), before);
}
