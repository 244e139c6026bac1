//! Tests of renaming objects to their paths, and of restoring the previous ones.

use super::*;

/// Writes the new object `name` to `dir` under its temporary name, and the previous object with the
/// content `old`, if given, to the final path.
fn staged(dir: &Path, name: &str, old: Option<&str>) -> Staged {
    let staged = Staged {
        new: dir.join(format!(".tmp-{name}.new")),
        place: dir.join(name),
        old: dir.join(format!(".tmp-{name}.old")),
    };
    fs::write(&staged.new, format!("new {name}")).unwrap();
    old.iter().for_each(|old| fs::write(&staged.place, old).unwrap());
    staged
}

/// Returns the files in a directory with their contents, sorted.
fn files(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut all: Vec<(String, String)> = files
        .map(|it| (it.file_name().into_string().unwrap(), fs::read_to_string(it.path()).unwrap()))
        .collect();
    all.sort();
    all
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn all_objects_are_placed_and_no_temporary_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let objects = [staged(dir.path(), "a.ko", Some("old a")), staged(dir.path(), "b.ko", None)];
    rename_all(&objects).unwrap();
    assert_eq!(files(dir.path()), pairs(&[("a.ko", "new a.ko"), ("b.ko", "new b.ko")]));
}

#[test]
fn previous_objects_are_restored_if_one_cannot_be_placed() {
    let dir = tempfile::tempdir().unwrap();
    let a = staged(dir.path(), "a.ko", Some("old a"));
    // An earlier run has left this file.
    fs::write(&a.old, "even older a").unwrap();
    let objects = [a, staged(dir.path(), "b.ko", None), staged(dir.path(), "c.ko", None)];
    // An object cannot replace a directory.
    let inside = objects[2].place.join("file");
    fs::create_dir(&objects[2].place).unwrap();
    fs::write(&inside, "").unwrap();
    let error = rename_all(&objects).unwrap_err().to_string();
    assert!(error.contains("c.ko"), "{error}");
    assert!(inside.exists());
    // The caller removes the new object.
    assert_eq!(files(dir.path()), pairs(&[(".tmp-c.ko.new", "new c.ko"), ("a.ko", "old a")]));
}

#[test]
fn an_object_that_has_not_been_replaced_stays() {
    let dir = tempfile::tempdir().unwrap();
    let object = staged(dir.path(), "a.ko", Some("old a"));
    object.restore();
    assert_eq!(files(dir.path()), pairs(&[(".tmp-a.ko.new", "new a.ko"), ("a.ko", "old a")]));
    // The new object has been placed where there was none.
    fs::rename(&object.new, &object.place).unwrap();
    object.restore();
    assert_eq!(files(dir.path()), []);
}
