//! Generates machines, journals and requests, as plain data that proptest can shrink.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

pub const RELEASES: [&str; 3] = ["6.1", "6.2", "6.3"];
/// Two versions of two modules, and a module with the same object as `foo`.
pub const MODULES: [&str; 5] = ["foo/1", "foo/2", "bar/1", "bar/2", "foo-open/1"];

const VERBS: [Verb; 6] =
    [Verb::Add, Verb::Build, Verb::Install, Verb::Uninstall, Verb::Unbuild, Verb::Remove];

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub kernels: Vec<KernelState>,
    pub modules: Vec<Option<ModuleState>>,
    pub journals: Vec<JournalState>,
    pub pending: Vec<PendingWork>,
    pub request: Request,
    pub install_tree_is_readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelState {
    Complete,
    WithoutHeaders,
    /// A copy that another package keeps until the next boot.
    Copy,
    /// Partly unpacked, or removed except for its headers.
    OnlyHeaders,
    /// Removed, except for objects and files of depmod.
    Leftovers,
    /// A symbolic link to the directory of another kernel.
    Link,
    Absent,
}

#[derive(Debug, Clone)]
pub struct ModuleState {
    pub source: Source,
    pub added: bool,
    pub needs_foo: bool,
    pub pairs: Vec<PairState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Present,
    /// Absent, with a kept copy.
    Absent,
    /// Absent, without a kept copy.
    Lost,
    /// It cannot be examined, for example because of an I/O error.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct PairState {
    pub build: BuildState,
    pub conf: ConfState,
    pub has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildState {
    None,
    Built,
    Installed,
    /// Installed, but built from other inputs.
    Outdated,
    /// Installed, but an object is missing from the kernel's directory.
    Incomplete,
    /// Installed by dkms.
    ByDkms,
    /// In the kernel's directory, but not in the dkms tree.
    OnlyPlaced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfState {
    Automatic,
    Manual,
    Excluded,
    Invalid,
}

/// A recorded transaction.
#[derive(Debug, Clone)]
pub struct JournalState {
    pub progress: Progress,
    pub paths: Vec<PathState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Running,
    /// Running, and pacman has started this process.
    InScriptlet,
    /// pacman has ended, so the files and its database show which paths it has changed.
    Ended,
    /// This process is a hook that runs after the transaction.
    Own,
}

#[derive(Debug, Clone)]
pub struct PathState {
    pub subject: Subject,
    pub arrives: bool,
    /// Whether the files and the database prove that pacman has installed or removed the path.
    pub is_done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Source(&'static str),
    Kernel(&'static str),
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        3 => select(&MODULES[..]).prop_map(Subject::Source),
        1 => select(&RELEASES[..]).prop_map(Subject::Kernel),
    ]
}

fn kernel_state() -> impl Strategy<Value = KernelState> {
    use KernelState::*;
    prop_oneof![
        4 => Just(Complete),
        4 => select(vec![WithoutHeaders, Copy, OnlyHeaders, Leftovers, Link, Absent]),
    ]
}

fn pair_state() -> impl Strategy<Value = PairState> {
    use {BuildState::*, ConfState::*};
    let build = prop_oneof![
        3 => Just(Installed),
        4 => select(vec![None, Built, Outdated, Incomplete, ByDkms, OnlyPlaced]),
    ];
    let conf = prop_oneof![6 => Just(Automatic), 1 => select(vec![Manual, Excluded, Invalid])];
    (build, conf, prop::bool::weighted(0.1)).prop_map(|(build, conf, has_failed)| PairState {
        build,
        conf,
        has_failed,
    })
}

fn module_state() -> impl Strategy<Value = ModuleState> {
    let source = select(vec![Source::Present, Source::Absent, Source::Lost, Source::Unknown]);
    let pairs = prop::collection::vec(pair_state(), RELEASES.len());
    (source, prop::bool::weighted(0.9), prop::bool::weighted(0.2), pairs).prop_map(
        |(source, added, needs_foo, pairs)| ModuleState { source, added, needs_foo, pairs },
    )
}

fn journal() -> impl Strategy<Value = JournalState> {
    use Progress::*;
    let progress = prop_oneof![3 => Just(Ended), 2 => select(vec![Running, InScriptlet, Own])];
    let path = (subject(), any::<bool>(), any::<bool>())
        .prop_map(|(subject, arrives, is_done)| PathState { subject, arrives, is_done });
    (progress, prop::collection::vec(path, 1..4)).prop_map(|(progress, mut paths)| {
        // A path either arrives or departs.
        let mut seen = Vec::new();
        paths.retain(|path| {
            let is_new = !seen.contains(&path.subject);
            seen.push(path.subject);
            is_new
        });
        JournalState { progress, paths }
    })
}

fn pending() -> impl Strategy<Value = PendingWork> {
    let parts = (0..8, select(&MODULES[..]), select(&RELEASES[..]));
    parts.prop_map(|(kind, name, release)| {
        let (module, dir, kernel) = (id(name), id(name).source_dir(), kernel(release));
        match kind {
            0 => PendingWork::Source(dir),
            1 => PendingWork::Kernel(kernel),
            2 => PendingWork::DepartedSource(dir),
            3 => PendingWork::DepartedKernel(kernel),
            4 => PendingWork::Install { module, kernel },
            5 => PendingWork::Uninstall { module, kernel },
            6 => PendingWork::Remove(module),
            _ => PendingWork::Transaction { sources: [dir].into(), kernels: [kernel].into() },
        }
    })
}

fn some_subjects() -> impl Strategy<Value = Subjects> {
    (subsequence(&MODULES[..], 0..=2), subsequence(&RELEASES[..], 0..=1)).prop_map(
        |(modules, kernels)| {
            let dirs: Vec<String> = modules.iter().map(|name| id(name).source_dir()).collect();
            subjects(&dirs.iter().map(String::as_str).collect::<Vec<_>>(), &kernels)
        },
    )
}

/// Generates the request of a hook, of the boot unit, of `dkms autoinstall` or of another command.
fn request() -> impl Strategy<Value = Request> {
    let kernels = || {
        let some = subsequence(&RELEASES[..], 1..=2);
        prop::option::of(
            some.prop_map(|some| some.into_iter().map(kernel).collect::<Vec<KernelRelease>>()),
        )
    };
    let sync = (some_subjects(), some_subjects()).prop_map(|(arrived, departed)| {
        let headers = arrived.kernels.clone();
        Request::Sync { arrived, departed, headers }
    });
    let depart =
        (some_subjects(), any::<bool>()).prop_map(|(Subjects { sources, kernels }, swap)| {
            Request::Depart { sources, kernels, swap }
        });
    let autoinstall = (kernels(), any::<bool>()).prop_map(|(kernels, only)| Request::Autoinstall {
        only: only && kernels.is_some(),
        kernels,
    });
    let matching = (select(&RELEASES[..]), select(&RELEASES[..]), any::<bool>()).prop_map(
        |(template, release, force)| Request::Match {
            template: kernel(template),
            kernel: kernel(release),
            module: None,
            force,
        },
    );
    let clear = (select(&RELEASES[..]), any::<bool>()).prop_map(|(release, only_willing)| {
        Request::Clear { kernel: kernel(release), only_willing }
    });
    let command = (select(&VERBS[..]), select(&MODULES[..]), kernels(), any::<bool>()).prop_map(
        |(verb, name, kernels, force)| Request::Command { verb, module: id(name), kernels, force },
    );
    prop_oneof![
        6 => sync,
        3 => autoinstall,
        1 => depart,
        1 => matching,
        1 => clear,
        4 => command,
    ]
}

pub fn scenario() -> impl Strategy<Value = Scenario> {
    (
        prop::collection::vec(kernel_state(), RELEASES.len()),
        prop::collection::vec(prop::option::weighted(0.7, module_state()), MODULES.len()),
        prop::collection::vec(journal(), 0..3),
        prop::collection::vec(pending(), 0..4),
        request(),
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(kernels, modules, journals, pending, request, install_tree_is_readable)| Scenario {
                kernels,
                modules,
                journals,
                pending,
                request,
                install_tree_is_readable,
            },
        )
}
