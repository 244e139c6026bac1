//! Tests of threads that panic.

use std::thread;

use rstest::rstest;

use super::*;
use crate::facts::{self, Scope};

/// Calls `test` with workers that have no jobs.
fn with_workers(test: impl FnOnce(&mut Workers<'_, '_>)) {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::for_hook(dir.path());
    let facts = facts::read(&machine, &Scope { shallow: true, ..Scope::default() });
    let confs = Confs::new(&machine);
    let jobserver = Jobserver::create_in(dir.path(), 1).unwrap();
    let context = BuildContext::new(&[], &machine, &facts, &confs, &jobserver);
    thread::scope(|scope| test(&mut Workers::new(scope, &context)));
}

#[rstest]
#[case::text(|| panic!("no such object"), "internal error in alpm-dkms: no such object")]
#[case::formatted(|| panic!("index {} out of range", 7), "internal error in alpm-dkms: index 7 out of range")]
#[case::other(|| std::panic::panic_any(7), "internal error in alpm-dkms: unknown panic")]
fn build_that_panics_ends_with_a_transient_failure(
    #[case] build: fn() -> Result<Tried, Failure>,
    #[case] message: &str,
) {
    with_workers(|workers| {
        workers.spawn_build(3, build);
        let Some(WorkerEvent::Ended(3, tried, _)) = workers.wait() else { panic!("no end") };
        let failed = tried.result.unwrap_err();
        assert_eq!((failed.code, failed.message.as_str(), failed.transient), (1, message, true));
        assert!(workers.wait().is_none(), "something is still outstanding");
    });
}

#[test]
fn panic_is_reported_after_other_builds_have_ended() {
    with_workers(|workers| {
        workers.spawn_build(0, || panic!("zero"));
        workers.spawn_build(1, || Err(Failure::new(10, "one")));
        let mut ended = Vec::new();
        while let Some(event) = workers.wait() {
            let WorkerEvent::Ended(number, tried, _) = event else { panic!("not an end") };
            ended.push((number, tried.result.unwrap_err().code));
        }
        ended.sort_unstable();
        assert_eq!(ended, [(0, 1), (1, 10)]);
    });
}
