//! Tests of the list of pending work and its files.

use super::*;

fn list() -> (tempfile::TempDir, PendingList) {
    let root = tempfile::tempdir().unwrap();
    let list = PendingList::of(&Trees::under(root.path()));
    std::fs::create_dir_all(&list.dir).unwrap();
    (root, list)
}

#[test]
fn entries_of_the_first_format_permit_no_removal() {
    let (_root, list) = list();
    for (name, text) in [
        ("transaction", "[work.transaction]\nsources = [\"foo-1\"]\nkernels = []\n"),
        ("source", "[work]\nsource = \"bar-1\"\n"),
        ("remove", "[work]\nremove = \"foo/1\"\n"),
        ("uninstall", "[work.uninstall]\nmodule = \"foo/1\"\nkernel = \"7.2\"\n"),
        ("left-over", "[work]\nleft-over = \"7.2\"\n"),
    ] {
        std::fs::write(list.dir.join(format!("{name}-x.toml")), text).unwrap();
    }
    let (sources, kernels) = (["foo-1".to_owned()].into(), BTreeSet::new());
    let want = [PendingWork::Source("bar-1".into()), PendingWork::Transaction { sources, kernels }];
    assert_eq!(list.read(), want);
    assert_eq!(std::fs::read_dir(&list.dir).unwrap().count(), 5, "the files are kept");
}

#[test]
fn the_name_of_a_file_is_readable_and_unique() {
    let (_root, list) = list();
    for dir in ["v4l2_loopback-0.15+git", "a/b-1", "a:b-1"] {
        list.write(&PendingWork::Source(dir.to_owned())).unwrap();
    }
    let files = std::fs::read_dir(&list.dir).unwrap().flatten();
    let mut names: Vec<String> =
        files.map(|file| file.file_name().into_string().unwrap()).collect();
    names.sort();
    let starts = ["source-a_b-1-", "source-a_b-1-", "source-v4l2_loopback-0.15+git-"];
    assert_eq!(names.len(), starts.len());
    assert!(names.iter().zip(starts).all(|(name, start)| name.starts_with(start)), "{names:?}");
}

#[test]
fn an_entry_that_has_changed_in_the_meantime_is_not_cleared() {
    let (_root, list) = list();
    let kernel: KernelRelease = "7.2".parse().unwrap();
    let objects = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (before, later) in [(&["zfs"][..], &["spl"][..]), (&[], &["v4l2loopback", "zfs"])] {
        list.note_images(&kernel, &objects(before), Durability::None).unwrap();
        let read = list.read();
        list.note_images(&kernel, &objects(later), Durability::None).unwrap();
        read.iter().for_each(|work| list.clear(work).unwrap());
        let all = objects(&[before, later].concat());
        let work = PendingWork::Image { kernel: kernel.clone(), objects: all };
        assert_eq!(list.read(), std::slice::from_ref(&work));
        list.clear(&work).unwrap();
        assert_eq!(list.read(), []);
    }
}

#[test]
fn images_are_taken_back_unless_others_were_noted() {
    let (_root, list) = list();
    let kernel: KernelRelease = "7.2".parse().unwrap();
    let zfs: BTreeSet<String> = ["zfs".to_owned()].into();
    for before in [Some(["spl".to_owned()].into()), Some(BTreeSet::new()), None] {
        if let Some(known) = &before {
            list.note_images(&kernel, known, Durability::None).unwrap();
        }
        let was = list.read();
        let noted = list.note_images(&kernel, &zfs, Durability::None).unwrap();
        list.take_back_images(noted).unwrap();
        assert_eq!(list.read(), was);
        // A failed build of another module notes no objects.
        let noted = list.note_images(&kernel, &zfs, Durability::None).unwrap();
        list.note_images(&kernel, &BTreeSet::new(), Durability::None).unwrap();
        list.take_back_images(noted).unwrap();
        assert_eq!(list.read().len(), 1);
        list.read().iter().for_each(|work| list.clear(work).unwrap());
    }
}

#[test]
fn attempts_count_for_equal_inputs() {
    let (_root, list) = list();
    let work = PendingWork::Source("foo-1".into());
    let (one, other) = (Digest::of_bytes(b"1"), Digest::of_bytes(b"2"));
    for (inputs, count) in [(one, 1), (one, 2), (one, 3), (one, 4), (other, 1), (one, 1)] {
        let next = Attempts::after(list.attempts().get(&work), inputs);
        list.begin(&work, Some(next)).unwrap();
        assert_eq!(list.attempts(), [(work.clone(), Attempts { count, inputs })].into());
        assert_eq!(next.are_used_up(), count >= 3);
    }
    // An entry that is only noted again keeps its attempts.
    list.write(&work).unwrap();
    list.note_all(&[(work.clone(), other)]).unwrap();
    assert_eq!(list.attempts(), [(work.clone(), Attempts { count: 1, inputs: one })].into());
    list.begin(&work, None).unwrap();
    assert_eq!((list.read().len(), list.attempts().len()), (1, 0));
    list.clear(&work).unwrap();
    list.note_all(&[(work.clone(), one)]).unwrap();
    assert_eq!(list.attempts(), [(work.clone(), Attempts { count: 0, inputs: one })].into());
    for count in [0, 1, 12] {
        let next = Attempts { count, inputs: one };
        list.begin_noted(&work, next).unwrap();
        assert_eq!(list.attempts(), [(work.clone(), next)].into());
    }
}

#[test]
fn entries_of_a_later_format_are_kept_and_ignored() {
    let (_root, list) = list();
    assert!(list.is_empty());
    let work = PendingWork::DepartedSource("foo-1".into());
    list.write(&work).unwrap();
    assert_eq!(list.read(), std::slice::from_ref(&work));
    let path = list.dir.join(work.file_name());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("format = 2", "format = 3")).unwrap();
    assert_eq!(list.read(), []);
    list.clear(&work).unwrap();
    assert!(path.exists() && !list.is_empty());
}

#[test]
fn only_empty_entries_are_removed() {
    let (_root, list) = list();
    list.write(&PendingWork::Source("foo-1".into())).unwrap();
    let journal = format!("{JOURNAL_PREFIX}arriving.toml");
    for name in ["source-bar-1-00000000.toml", &journal, ".tmp-of-another-process"] {
        std::fs::write(list.dir.join(name), "").unwrap();
    }
    list.remove_empty_entries().unwrap();
    assert_eq!(list.read(), [PendingWork::Source("foo-1".into())]);
    assert!(!list.dir.join("source-bar-1-00000000.toml").exists());
    assert_eq!(std::fs::read_dir(&list.dir).unwrap().count(), 3);
}
