use std::os::unix::fs::symlink;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const RELEASE: &str = "usr/lib/modules/7.2.1-arch1-1";

/// A directory with a file that belongs to the machine, and a root for scratch space.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(place.root().join("usr/src")).unwrap();
        fs::create_dir_all(place.root().join("usr/lib/modules")).unwrap();
        fs::create_dir(place.machine()).unwrap();
        fs::write(place.machine().join("file"), "unchanged").unwrap();
        place
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("scratch")
    }

    /// Returns a directory outside the scratch space. It is on the same file system, so that hard
    /// links to its files are possible.
    fn machine(&self) -> PathBuf {
        self.0.path().join("machine")
    }

    fn package(&self, content: &[u8], targets: &[&str]) -> Package {
        let file = self.0.path().join("a.pkg.tar");
        fs::write(&file, content).unwrap();
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        Package {
            name: "a".into(),
            version: "1-1".into(),
            file,
            targets,
            not_extracted: Vec::new(),
        }
    }

    fn unpack(&self, file: &[u8], targets: &[&str]) -> Result<(), NotTried> {
        unpack(&self.package(file, targets), &self.root())
    }

    #[track_caller]
    fn assert_machine_unchanged(&self) {
        let files: Vec<_> = fs::read_dir(self.machine()).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(fs::read_to_string(files[0].path()).unwrap(), "unchanged");
        let around: BTreeSet<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(around, ["a.pkg.tar", "machine", "scratch"].map(Into::into).into());
    }
}

/// A member of an archive: its name, its type as in the header of ustar, and its content or the
/// target of the link.
type Member<'a> = (&'a str, u8, &'a str);

const FILE: u8 = b'0';
const HARD_LINK: u8 = b'1';
const LINK: u8 = b'2';
const DEVICE: u8 = b'3';
const DIRECTORY: u8 = b'5';
const FIFO: u8 = b'6';

fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, text) in members {
        let is_file = *kind == FILE;
        let mut header = [0; 512];
        let mut put =
            |at: usize, text: &str| header[at..][..text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, if *kind == DIRECTORY { "0000755" } else { "0000644" });
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", if is_file { text.len() } else { 0 }));
        put(136, "00000000000");
        put(148, "        ");
        put(156, &char::from(*kind).to_string());
        put(157, if is_file { "" } else { text });
        put(257, "ustar\x0000");
        put(329, "0000001");
        put(337, "0000003");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        if is_file {
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn files_that_pacman_does_not_extract_are_left_out() {
    let place = Place::new();
    let files = ["a.c", "dkms.conf", "notes"].map(|name| format!("usr/src/a-1/{name}"));
    let members: Vec<Member> = files.iter().map(|name| (name.as_str(), FILE, "text")).collect();
    let package = place.package(&archive(&members), &["usr/src/a-1/dkms.conf"]);
    let not_extracted = vec!["usr/src/a-1/notes".into(), "usr/lib/modules/7/absent".into()];
    unpack(&Package { not_extracted, ..package }, &place.root()).unwrap();
    let there = files.each_ref().map(|file| place.root().join(file).exists());
    assert_eq!(there, [true, true, false]);
}

#[test]
fn unpacks_what_builds_need() {
    let place = Place::new();
    let members = ["pkgbase", "modules.order", "modules.builtin", "kernel/a.ko.zst", "vmlinuz"]
        .map(|name| format!("{RELEASE}/{name}"));
    let headers =
        ["build/include/linux/a.h", "build/vmlinux"].map(|name| format!("{RELEASE}/{name}"));
    let others = ["usr/src/a-1/dkms.conf", "usr/src/a-1/sub/a.c", "usr/src/a-11/a.c", "etc/a"]
        .map(str::to_owned);
    let all = members.iter().chain(&headers).chain(&others);
    let all: Vec<Member> = all.map(|name| (name.as_str(), FILE, "text")).collect();
    let targets = [
        "usr/src/a-1/dkms.conf",
        &format!("{RELEASE}/build/include/"),
        &format!("{RELEASE}/modules.order"),
    ];
    let all = [&all[..], &[(targets[1], DIRECTORY, "")]].concat();
    place.unpack(&archive(&all), &targets).unwrap();
    let files = WalkDir::new(place.root()).sort_by_file_name().into_iter().flatten();
    let files = files.filter(|entry| entry.file_type().is_file());
    let files: Vec<String> = files
        .map(|entry| entry.path().strip_prefix(place.root()).unwrap().display().to_string())
        .collect();
    let expected = [&members[..3], &headers, &others[..2]].concat();
    assert_eq!(files.iter().collect::<BTreeSet<_>>(), expected.iter().collect());
}

#[rstest]
#[case::headers("usr/lib/modules/7.2/build/include/", ".MTREE", Some("the list"))]
#[case::without_a_list("usr/lib/modules/7.2/build/include/", "other", None)]
#[case::source("usr/src/a-1/dkms.conf", ".MTREE", None)]
fn stores_the_list_of_files_of_headers(
    #[case] target: &str,
    #[case] member: &str,
    #[case] expected: Option<&str>,
) {
    let place = Place::new();
    let content = archive(&[(target, FILE, ""), (member, FILE, "the list")]);
    let lists = place.0.path().join("lists");
    store_list(&place.package(&content, &[target]), &lists).unwrap();
    let list = fs::read_to_string(lists.join("local/a-1-1/mtree")).ok();
    assert_eq!(list.as_deref(), expected);
    assert_eq!(lists.join("local/a-1-1/files").exists(), expected.is_some());
}

/// bsdtar and pacman take these names literally only if their special characters are escaped.
#[test]
fn names_with_special_characters_are_taken_literally() {
    let place = Place::new();
    let target = r"usr/src/a[b]*?\{c}$^-1/dkms.conf";
    let other = "usr/src/abb/dkms.conf";
    place.unpack(&archive(&[(other, FILE, ""), (target, FILE, "text")]), &[target]).unwrap();
    assert_eq!(fs::read_to_string(place.root().join(target)).unwrap(), "text");
    assert!(!place.root().join(other).exists());
}

#[rstest]
#[case::empty(b"")]
#[case::text(b"<html>not found</html>")]
#[case::truncated(&archive(&[("usr/src/a-1/dkms.conf", FILE, "text")])[..514])]
#[case::without_the_target(&archive(&[("usr/src/b-1/dkms.conf", FILE, "text")]))]
fn a_bad_file_is_not_tried(#[case] file: &[u8]) {
    let place = Place::new();
    let why = place.unpack(file, &["usr/src/a-1/dkms.conf"]).unwrap_err().to_string();
    assert!(why.contains("a.pkg.tar: cannot unpack: "), "{why}");
    place.assert_machine_unchanged();
}

#[rstest]
#[case::parent(&[("usr/src/a-1/../../../../machine/new", FILE, "")])]
#[case::through_a_link(&[("usr/src/a-1/sub", LINK, "../../../../machine"), ("usr/src/a-1/sub/new", FILE, "")])]
#[case::hard_link(&[("usr/src/a-1/new", HARD_LINK, "../machine/file")])]
#[case::hard_link_through_a_link(&[
    ("usr/src/a-1/sub", LINK, "../../../../machine"),
    ("usr/src/a-1/new", HARD_LINK, "usr/src/a-1/sub/file"),
])]
#[case::fifo(&[("usr/src/a-1/new", FIFO, "")])]
fn a_member_outside_is_not_tried(#[case] members: &[Member]) {
    let place = Place::new();
    let target = "usr/src/a-1/dkms.conf";
    let file = archive(&[&[(target, FILE, "")], members].concat());
    place.unpack(&file, &[target]).unwrap_err();
    place.assert_machine_unchanged();
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_device_is_not_tried() {
    let place = Place::new();
    let target = "usr/src/a-1/dkms.conf";
    let file = archive(&[(target, FILE, ""), ("usr/src/a-1/null", DEVICE, "")]);
    let why = place.unpack(&file, &[target]).unwrap_err().to_string();
    assert!(why.contains("contains a special file"), "{why}");
}

/// bsdtar omits a member with an absolute name, or takes the name as relative.
#[test]
fn an_absolute_name_leads_into_the_scratch_space() {
    let place = Place::new();
    let target = "usr/src/a-1/dkms.conf";
    let outside = place.machine().join("new").display().to_string();
    let file = archive(&[(target, FILE, ""), (&outside, FILE, ""), ("/usr/src/a-1/new", FILE, "")]);
    place.unpack(&file, &[target]).unwrap();
    place.assert_machine_unchanged();
}

/// The links are either not unpacked or rejected afterwards.
#[rstest]
#[case::sources("usr/src", "usr/src/a-1/dkms.conf")]
#[case::source("usr/src/a-1", "usr/src/a-1/dkms.conf")]
#[case::kernels("usr/lib/modules", "usr/lib/modules/7.2.1-arch1-1/pkgbase")]
#[case::kernel(RELEASE, "usr/lib/modules/7.2.1-arch1-1/modules.order")]
#[case::headers(
    "usr/lib/modules/7.2.1-arch1-1/build",
    "usr/lib/modules/7.2.1-arch1-1/build/include/"
)]
fn a_link_instead_of_a_directory_is_not_followed(#[case] link: &str, #[case] target: &str) {
    let place = Place::new();
    let machine = place.machine().display().to_string();
    let inner = format!("{}/new", target.trim_end_matches('/'));
    let _ = place.unpack(
        &archive(&[(link, LINK, &machine), (target, FILE, ""), (&inner, FILE, "")]),
        &[target],
    );
    place.assert_machine_unchanged();
}

/// A link that an earlier package contains.
#[test]
fn a_link_in_the_scratch_space_is_not_followed() {
    let place = Place::new();
    symlink(place.machine(), place.root().join("usr/src/a-1")).unwrap();
    let target = "usr/src/a-1/dkms.conf";
    place.unpack(&archive(&[(target, FILE, "")]), &[target]).unwrap_err();
    place.assert_machine_unchanged();
}
