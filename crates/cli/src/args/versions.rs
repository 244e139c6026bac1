//! Finds the version of a module if the command line names only the module.

use std::collections::BTreeSet;

use dkms_engine::dkms_tree::{Added, TreeState};
use dkms_engine::facts;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Trees;
use dkms_engine::names::{ModuleId, ModuleName};
use dkms_engine::os::symlinks;
use dkms_engine::version;

use crate::args::refusal::refuse;

/// Returns the only version of a module that is added or in the source tree.
///
/// # Errors
/// [`Failure`] with exit code 1 if there is no such version or more than one.
pub fn only_version(trees: &Trees, name: &ModuleName, command: &str) -> Result<ModuleId, Failure> {
    let mut versions: Vec<ModuleId> = versions(trees, name).into_iter().collect();
    match versions.as_slice() {
        [id] => Ok(id.clone()),
        [] => refuse(
            1,
            format!(
                "{name}: unknown module: not added, and no source in {}/{name}-VERSION",
                trees.source.display()
            ),
        ),
        _ => {
            versions.sort_by(|a, b| version::compare(a.version.as_str(), b.version.as_str()));
            let list: Vec<String> = versions.iter().map(ToString::to_string).collect();
            let list = list.join(", ");
            let failure = Failure::new(1, format!("{name}: more than one version: {list}"));
            Err(failure.with_hint(format!("run: dkms {command} {name}/VERSION")))
        }
    }
}

/// Returns all versions of a module that are added or in the source tree.
pub fn versions(trees: &Trees, name: &ModuleName) -> BTreeSet<ModuleId> {
    let known: Vec<ModuleId> = TreeState::read(trees)
        .modules
        .into_iter()
        .filter(|added| added.is_added() || added.is_broken())
        .map(|Added { id, .. }| id)
        .collect();
    // A directory `a-1-2` may belong to a/1-2 or to a-1/2; added modules resolve the ambiguity.
    let is_known = |dir: &str| {
        let path = symlinks::resolve(&trees.root, &trees.source.join(dir));
        known.iter().any(|id| {
            let source = symlinks::resolve(&trees.root, &trees.source_link(id));
            id.source_dir() == dir
                || path.as_ref().is_ok_and(|path| source.ok().as_ref() == Some(path))
        })
    };
    let sources: BTreeSet<ModuleId> = facts::source_dirs(trees)
        .0
        .into_iter()
        .filter_map(|dir| Some((ModuleId::from_source_dir(&dir).ok()?, dir)))
        .filter(|(id, dir)| id.name == *name && !is_known(dir))
        .map(|(id, _)| id)
        .collect();
    let added = known.iter().filter(|id| id.name == *name).cloned();
    added.chain(sources).collect()
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    fn found(root: &TestRoot, name: &str) -> Vec<String> {
        let trees = Trees::under(root.path());
        versions(&trees, &name.parse().expect("a name")).iter().map(ToString::to_string).collect()
    }

    fn add(root: &TestRoot, id: &str, dir: &str) {
        root.link(format!("var/lib/dkms/{id}/source"), format!("/usr/src/{dir}"));
    }

    #[test]
    fn lists_each_version_once() {
        let root = TestRoot::new();
        for (name, version) in [("foo", "1"), ("foo", "2"), ("foo-bar", "1")] {
            root.source(name, version);
        }
        root.dir("usr/src/foo-3"); // without a dkms.conf
        assert_eq!(found(&root, "foo"), ["foo/1", "foo/2"]);
        assert_eq!(found(&root, "bar"), [""; 0]);
        add(&root, "foo/1", "foo-1");
        add(&root, "foo/0", "foo-0"); // broken
        assert_eq!(found(&root, "foo"), ["foo/0", "foo/1", "foo/2"]);
    }

    #[test]
    fn added_modules_decide_how_a_directory_name_is_split() {
        let root = TestRoot::new();
        root.source("foo", "1-2");
        assert_eq!(found(&root, "foo-1"), ["foo-1/2"]);
        add(&root, "foo/1-2", "foo-1-2");
        assert_eq!(found(&root, "foo"), ["foo/1-2"]);
        assert_eq!(found(&root, "foo-1"), [""; 0]);
        // This module was added by hand, under a name that differs from that of its directory.
        root.source("odd", "1");
        add(&root, "even/9", "odd-1");
        assert_eq!(found(&root, "odd"), [""; 0]);
        assert_eq!(found(&root, "even"), ["even/9"]);
    }
}
