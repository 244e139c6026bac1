//! Runs the scenarios in equal roots, with the real dkms, with ours, and with both in turn.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use stories::Root;
use testroot::TestRoot;
use walkdir::WalkDir;

use crate::scenario::{Scenario, directory};

/// The time limit of all scenarios together. It is generous because the machine may be busy.
const LIMIT: Duration = Duration::from_secs(1800);

/// The transcript of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    /// The visible results, which are compared.
    pub results: String,
    /// The output of the programs, for reports of differences.
    pub output: String,
}

/// Transcripts by scenario and mode (`peer`, `ours`, `peer-ours`, `ours-peer`).
pub type Transcripts = BTreeMap<(String, &'static str), Transcript>;

/// Runs scenarios in all of their modes.
pub fn run(scenarios: &[Scenario]) -> Transcripts {
    // The real dkms takes far longer than ours, so it gets two roots.
    let (some, others) = scenarios.split_at(scenarios.len() / 2);
    thread::scope(|scope| {
        let peers = [some, others].map(|part| {
            scope.spawn(move || {
                let root = create_root(part);
                run_mode(&root, part, "peer")
            })
        });
        let ours = create_root(scenarios);
        let mut all = Transcripts::new();
        for mode in ["ours", "peer-ours", "ours-peer"] {
            all.extend(run_mode(&ours, scenarios, mode));
        }
        for peer in peers {
            all.extend(peer.join().expect("run the real dkms"));
        }
        all
    })
}

/// Creates a root with the scenarios, `stage.sh` and a template of a kernel.
fn create_root(scenarios: &[Scenario]) -> Root {
    let root = Root::ready();
    let kernel = TestRoot::new();
    let release = "@RELEASE@";
    kernel.kernel(release).headers();
    let top = kernel.at(format!("usr/lib/modules/{release}"));
    for entry in
        WalkDir::new(&top).into_iter().flatten().filter(|entry| entry.file_type().is_file())
    {
        let place = entry.path().strip_prefix(&top).expect("a path in the kernel's directory");
        let place = root.path("srv/stage/kernel").join(place);
        fs::create_dir_all(place.parent().expect("a parent"))
            .expect("create a directory of a kernel");
        fs::copy(entry.path(), place).expect("copy a kernel");
    }
    let script = fs::read_to_string(directory().join("stage.sh")).expect("read stage.sh");
    root.write("srv/stage/stage.sh", &script);
    for scenario in scenarios {
        let text = fs::read_to_string(&scenario.file).expect("read a scenario");
        root.write(&format!("srv/stage/scenarios/{}", scenario.name), &text);
    }
    root
}

/// Runs those of the scenarios that have this mode.
fn run_mode(root: &Root, scenarios: &[Scenario], mode: &'static str) -> Transcripts {
    let has_mode = |it: &&Scenario| mode == "peer" || it.modes().contains(&mode);
    let names: Vec<&str> = scenarios.iter().filter(has_mode).map(|it| it.name.as_str()).collect();
    let list: String = names.iter().map(|name| format!("{name}\n")).collect();
    root.write(&format!("srv/stage/{mode}.list"), &list);
    root.start("bash", &["/srv/stage/stage.sh", mode]).within(LIMIT).finish().ok();
    let transcript = |name: &&str| {
        let read = |end| root.read(&format!("srv/stage/transcripts/{name}.{mode}{end}"));
        (((*name).to_owned(), mode), Transcript { results: read(""), output: read(".output") })
    };
    names.iter().map(transcript).collect()
}
