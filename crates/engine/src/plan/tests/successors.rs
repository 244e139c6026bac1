//! Tests of planning for modules that are replaced by modules with other names.

use rstest::rstest;

use super::*;
use crate::dkms_tree::PendingWork;
use crate::plan::Note;

/// Returns a machine on which `old/1` is installed with the objects `a` and `b`, and has departed.
fn departed() -> TestMachine {
    TestMachine::new(&[K1])
        .module("old/1")
        .objects("old/1", &["a", "b"])
        .installed("old/1", K1)
        .gone("old/1")
}

#[test]
fn module_leaves_once_a_module_with_the_same_objects_is_installed() {
    let plan =
        departed().module("new/2").objects("new/2", &["a", "b"]).sync(&["old-1", "new-2"], &[]);
    insta::assert_snapshot!(plan, @r"
    use the kept source of old/1
    add new/2
    build new/2 for 7.2.12-arch1-1 (not built yet)
    install new/2 for 7.2.12-arch1-1
    uninstall old/1 from 7.2.12-arch1-1, replaced by new/2
    delete the build of old/1 for 7.2.12-arch1-1
    remove old/1
    run depmod for 7.2.12-arch1-1
    ");
}

#[rstest]
#[case::more_objects(&[("new/2", "a b c")])]
#[case::objects_in_two_modules(&[("new-a/2", "a"), ("new-b/2", "b")])]
#[case::fewer_objects(&[("new/2", "b")])]
fn module_leaves_only_after_the_installation_of_all_successors(
    #[case] successors: &[(&str, &str)],
) {
    let mut machine = departed();
    let mut dirs = vec!["old-1".to_owned()];
    for (name, objects) in successors {
        let objects: Vec<&str> = objects.split(' ').collect();
        machine = machine.module(name).objects(name, &objects);
        dirs.push(id(name).source_dir());
    }
    let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
    let plan = machine.sync(&dirs, &[]);
    let text = plan.to_string();
    let names: Vec<&str> = successors.iter().map(|(name, _)| *name).collect();
    let step = format!("uninstall old/1 from {K1}, replaced by {}\n", names.join(", "));
    assert!(text.contains(&step) && text.contains("remove old/1\n"), "{text}");
    assert!(plan.notes.is_empty(), "{text}");
}

#[rstest]
#[case::excluded(|conf: &mut ConfFacts| conf.excluded = Some("not here".into()))]
#[case::not_automatic(|conf: &mut ConfFacts| conf.autoinstall = Autoinstall::No)]
fn module_stays_if_its_successor_is_not_installed(#[case] change: fn(&mut ConfFacts)) {
    let machine = departed().module("new-a/2").objects("new-a/2", &["a"]);
    let machine =
        machine.module("new-b/2").objects("new-b/2", &["b"]).pair("new-b/2", K1, |pair| {
            change(pair.conf.as_mut().unwrap().as_mut().unwrap());
        });
    let plan = machine.sync(&["old-1", "new-a-2", "new-b-2"], &[]);
    let text = plan.to_string();
    assert!(text.contains("install new-a/2"), "{text}");
    assert!(!text.contains("uninstall old/1") && !text.contains("remove old/1"), "{text}");
    let kept = Note::Kept { module: id("old/1"), kernel: kernel(K1) };
    assert!(plan.notes.contains(&kept), "{text}");
    let departed = PendingWork::DepartedSource("old-1".into());
    assert!(plan.notes_pending.contains(&departed) && !plan.finishes.contains(&departed));
}

#[rstest]
#[case::other_objects(&["c"])]
#[case::no_objects(&[])]
fn module_with_other_objects_is_no_successor(#[case] objects: &[&str]) {
    let machine = departed().module("new/2").objects("new/2", objects);
    let text = machine.sync(&["old-1", "new-2"], &[]).to_string();
    assert!(text.contains(&format!("uninstall old/1 from {K1}\n")), "{text}");
}

/// After a rollback, the dkms tree still contains the version that was rolled back.
#[rstest]
#[case::version("old/2")]
#[case::other_name("new/2")]
fn kept_source_that_is_installed_nowhere_is_no_successor(#[case] kept: &str) {
    let machine = departed().module(kept).objects(kept, &["a", "b"]).gone(kept);
    let text = machine.sync(&["old-1"], &[]).to_string();
    assert!(text.contains(&format!("uninstall old/1 from {K1}\n")), "{text}");
    assert!(text.contains("remove old/1\n"), "{text}");
}
