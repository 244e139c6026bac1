//! Tests of the build cache.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rstest::rstest;

use super::*;

use crate::dkms_tree::{BuildCache, CacheKey, CachedBuild, FILE_NAME, Record, RefusedObject};
use crate::machine::Trees;
use crate::os::digest::Digest;
use crate::os::durable;

const NO_LIMIT: u64 = u64::MAX;

fn record(module: &str, source: &str) -> Record {
    let refused = vec![RefusedObject { name: "a.ko".into(), by: None, why: String::new() }];
    Record { refused, ..Record::sample(module, "7.2.12", source) }
}

fn environment() -> Digest {
    Digest::of_bytes(b"KCFLAGS=-g")
}

fn key(record: &Record) -> CacheKey {
    CacheKey::of(&record.module, &record.arch, &record.inputs, &environment())
}

/// A temporary dkms tree and its build cache.
struct Tree {
    dir: tempfile::TempDir,
    cache: BuildCache,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = BuildCache::of(&Trees::under(dir.path()));
        Self { dir, cache }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Adds the build of a module to the cache, with one object of `length` bytes.
    fn keep(&self, module: &str, length: usize) -> CacheKey {
        let record = record(module, &length.to_string());
        let built = self.at("built");
        fs::create_dir_all(built.join("module")).unwrap();
        fs::write(built.join("module/a.ko"), "a".repeat(length)).unwrap();
        fs::write(built.join("zfs_config.h"), "").unwrap();
        record.write(&built.join(FILE_NAME)).unwrap();
        self.cache.keep(&built, &record, &environment(), NO_LIMIT).unwrap();
        durable::remove_tree(&built).unwrap();
        key(&record)
    }

    /// Sets the time when an entry was last used, in seconds since the epoch.
    fn set_used(&self, key: &CacheKey, second: u64) {
        let ticket = File::options().write(true).open(self.cache.ticket_path(key)).unwrap();
        ticket.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }
}

#[test]
fn restores_a_build_unchanged() {
    let tree = Tree::new();
    let key = tree.keep("foo/1.0", 10);
    assert_eq!(tree.cache.keys(), [key].into());
    let to = tree.at("back");
    assert!(tree.cache.take(&key, &to).unwrap());
    assert_eq!(fs::read(to.join("module/a.ko")).unwrap(), [b'a'; 10]);
    assert!(to.join("zfs_config.h").exists());
    let back = Record::read(&to.join(FILE_NAME)).unwrap();
    assert_eq!(back, Record { refused: vec![], ..record("foo/1.0", "10") });
    let other = CacheKey::of(&"bar/1.0".parse().unwrap(), &back.arch, &back.inputs, &environment());
    assert!(!tree.cache.take(&other, &tree.at("other")).unwrap());
    assert!(!tree.at("other").exists());
}

#[test]
fn restored_objects_are_hard_links() {
    let tree = Tree::new();
    let key = tree.keep("foo/1.0", 10);
    tree.cache.take(&key, &tree.at("back")).unwrap();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let cached = tree.cache.path(&key).join("built/module/a.ko");
    assert_eq!(inode(cached), inode(tree.at("back/module/a.ko")));
}

#[rstest]
#[case::changed(|built: &Path| fs::write(built.join("module/a.ko"), "b").unwrap())]
#[case::missing(|built: &Path| fs::remove_file(built.join("zfs_config.h")).unwrap())]
#[case::added(|built: &Path| fs::write(built.join("module/b.ko"), "").unwrap())]
#[case::gone(|built: &Path| fs::remove_dir_all(built).unwrap())]
#[case::garbage(|built: &Path| fs::write(built.with_file_name(TICKET), "?").unwrap())]
fn damaged_entries_are_ignored_and_removed(#[case] damage: fn(&Path)) {
    let tree = Tree::new();
    let key = tree.keep("foo/1.0", 10);
    damage(&tree.cache.path(&key).join(BUILT));
    assert!(!tree.cache.take(&key, &tree.at("back")).unwrap());
    assert!(!tree.at("back").exists());
    tree.cache.trim(NO_LIMIT).unwrap();
    assert!(!tree.cache.path(&key).exists(), "the damaged entry was kept");
}

#[test]
fn evicts_the_least_recently_used_entries_first() {
    let tree = Tree::new();
    let keys = [1, 2, 3].map(|number| tree.keep(&format!("foo/{number}"), 100 + number));
    [20, 10, 30].iter().zip(&keys).for_each(|(second, key)| tree.set_used(key, *second));
    let versions = || -> Vec<String> {
        let entries = tree.cache.entries().into_iter();
        entries.map(|entry| entry.module.version.to_string()).collect()
    };
    assert_eq!(versions(), ["3", "1", "2"]);
    // Restoring a build counts as use.
    tree.cache.take(&keys[1], &tree.at("back")).unwrap();
    assert_eq!(versions(), ["2", "3", "1"]);
    let total: u64 = tree.cache.entries().iter().map(|entry| entry.size).sum();
    tree.cache.trim(total - 1).unwrap();
    assert_eq!(versions(), ["2", "3"]);
    assert_eq!(tree.cache.clear().unwrap(), 2);
    assert_eq!(versions(), [""; 0]);
}

#[test]
fn oversized_build_evicts_nothing() {
    let tree = Tree::new();
    tree.keep("foo/1.0", 10);
    let built = tree.at("built");
    fs::create_dir_all(&built).unwrap();
    let record = record("big/1.0", "");
    record.write(&built.join(FILE_NAME)).unwrap();
    fs::write(built.join("a.ko"), [0; 9000]).unwrap();
    tree.cache.keep(&built, &record, &environment(), 9000).unwrap();
    assert_eq!(tree.cache.entries().len(), 1);
}

fn entry(size: u64) -> CachedBuild {
    let of = record("foo/1.0", "");
    CachedBuild {
        key: key(&of),
        module: of.module,
        kernel: of.kernel,
        arch: of.arch,
        size,
        used: UNIX_EPOCH,
        pinned_until: None,
    }
}

#[rstest]
#[case::all_fit(60, 0)]
#[case::one_too_many(59, 1)]
#[case::only_the_first_fits(29, 2)]
#[case::none_fits(9, 3)]
#[case::zero_limit(0, 3)]
fn finds_the_entries_beyond_the_limit(#[case] limit: u64, #[case] count: usize) {
    let entries = [10, 20, 30].map(entry);
    let evicted: Vec<&CachedBuild> = entries[3 - count..].iter().collect();
    assert_eq!(beyond(limit, &entries, UNIX_EPOCH), evicted);
}

#[test]
fn pinned_and_oversized_entries_evict_no_others() {
    let pinned = |size, seconds| {
        let until = UNIX_EPOCH + Duration::from_secs(seconds);
        CachedBuild { pinned_until: Some(until), ..entry(size) }
    };
    let day = PINNED_FOR.as_secs();
    let entries = [pinned(90, day), entry(11), entry(10), pinned(9, 0), pinned(8, day + 1)];
    let evicted = beyond(10, &entries, UNIX_EPOCH);
    assert_eq!(evicted.iter().map(|entry| entry.size).collect::<Vec<_>>(), [11, 9, 8]);
}

#[test]
fn pinned_entries_stay_until_their_pin_is_removed() {
    let tree = Tree::new();
    let keys = [1, 2, 3].map(|number| tree.keep(&format!("foo/{number}"), number));
    tree.cache.pin(&keys[0]).unwrap();
    tree.cache.pin(&keys[1]).unwrap();
    assert_eq!(tree.cache.pinned_keys(), [keys[0], keys[1]].into());
    tree.cache.trim(0).unwrap();
    assert_eq!(tree.cache.keys(), [keys[0], keys[1]].into());
    // A pinned build can be restored and is still valid.
    assert!(tree.cache.take(&keys[0], &tree.at("back")).unwrap());

    tree.set_used(&keys[0], 7);
    tree.cache.remove_pins(|entry| entry.module.version.as_str() == "1").unwrap();
    assert_eq!(tree.cache.pinned_keys(), [keys[1]].into());
    let used = tree.cache.entry(keys[0]).unwrap().used;
    assert_eq!(used, UNIX_EPOCH + Duration::from_secs(7), "removing a pin counts as use");
    tree.cache.trim(0).unwrap();
    assert_eq!(tree.cache.keys(), [keys[1]].into());
    assert_eq!(tree.cache.clear().unwrap(), 1);
    tree.cache.pin(&keys[1]).unwrap();
    assert_eq!(fs::read_dir(&tree.cache.dir).unwrap().count(), 0);
}

/// A worker of a trial run opens the real cache, and then reaches it only through the descriptor.
/// The dkms tree is on another file system.
#[test]
fn cache_can_be_an_open_directory() {
    let (real, scratch) = (Tree::new(), tempfile::tempdir_in("/dev/shm").unwrap());
    fs::create_dir_all(&real.cache.dir).unwrap();
    let open = File::open(&real.cache.dir).unwrap();
    let build_cache = Some(format!("/proc/self/fd/{}", open.as_raw_fd()).into());
    let cache = BuildCache::of(&Trees { build_cache, ..Trees::under(scratch.path()) });
    let built = scratch.path().join("built");
    fs::create_dir_all(built.join("module")).unwrap();
    fs::write(built.join("module/a.ko"), "an object").unwrap();
    let record = record("foo/1.0", "");
    record.write(&built.join(FILE_NAME)).unwrap();
    cache.keep(&built, &record, &environment(), NO_LIMIT).unwrap();
    let key = key(&record);
    cache.pin(&key).unwrap();
    assert_eq!(real.cache.pinned_keys(), [key].into());
    assert_eq!(cache.keys(), [key].into());
    let to = scratch.path().join("back");
    assert!(cache.take(&key, &to).unwrap());
    assert_eq!(fs::read(to.join("module/a.ko")).unwrap(), b"an object");
    assert_eq!(fs::metadata(to.join("module/a.ko")).unwrap().nlink(), 1);
    cache.remove_pins(|_| true).unwrap();
    cache.trim(0).unwrap();
    assert!(cache.keys().is_empty());
    // Another process clears the cache while this one has it open.
    real.cache.trim(0).unwrap();
    real.cache.clear().unwrap();
    cache.keep(&built, &record, &environment(), NO_LIMIT).unwrap();
    assert_eq!(real.cache.keys(), [key].into());
}
