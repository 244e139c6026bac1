//! Plays the scenarios in equal roots: with the real dkms, with ours, and with both in turn.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use stories::Root;
use testroot::TestRoot;
use walkdir::WalkDir;

use crate::scenario::{Scenario, directory};

/// How long all scenarios together may take, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(1800);

/// What was seen, and what was said.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    /// What is compared.
    pub seen: String,
    /// What the programs said, for those who look into a difference.
    pub said: String,
}

/// The transcripts of a play, by scenario and manner (`peer`, `ours`, `peer-ours`, `ours-peer`).
pub type Play = BTreeMap<(String, &'static str), Transcript>;

/// Plays scenarios in every manner that they have.
pub fn play(scenarios: &[Scenario]) -> Play {
    // The real dkms takes far longer than ours: it has two roots to itself.
    let (some, others) = scenarios.split_at(scenarios.len() / 2);
    thread::scope(|scope| {
        let peers = [some, others].map(|part| {
            scope.spawn(move || {
                let root = set(part);
                perform(&root, part, "peer")
            })
        });
        let ours = set(scenarios);
        let mut all = Play::new();
        for manner in ["ours", "peer-ours", "ours-peer"] {
            all.extend(perform(&ours, scenarios, manner));
        }
        for peer in peers {
            all.extend(peer.join().expect("the real dkms plays"));
        }
        all
    })
}

/// A root with a stage: the scenarios, the player, and a kernel to be copied.
fn set(scenarios: &[Scenario]) -> Root {
    let root = Root::ready();
    let kernel = TestRoot::new();
    let release = "@RELEASE@";
    kernel.kernel(release).headers();
    let top = kernel.at(format!("usr/lib/modules/{release}"));
    for entry in
        WalkDir::new(&top).into_iter().flatten().filter(|entry| entry.file_type().is_file())
    {
        let place = entry.path().strip_prefix(&top).expect("a path below its top");
        let place = root.path("srv/stage/kernel").join(place);
        fs::create_dir_all(place.parent().expect("a parent"))
            .expect("make a directory of a kernel");
        fs::copy(entry.path(), place).expect("copy a kernel");
    }
    let player = fs::read_to_string(directory().join("stage.sh")).expect("read the player");
    root.write("srv/stage/stage.sh", &player);
    for scenario in scenarios {
        let text = fs::read_to_string(&scenario.file).expect("read a scenario");
        root.write(&format!("srv/stage/scenarios/{}", scenario.name), &text);
    }
    root
}

/// Plays those of the scenarios that have this manner.
fn perform(root: &Root, scenarios: &[Scenario], manner: &'static str) -> Play {
    let has_it = |it: &&Scenario| manner == "peer" || it.manners().contains(&manner);
    let names: Vec<&str> = scenarios.iter().filter(has_it).map(|it| it.name.as_str()).collect();
    let list: String = names.iter().map(|name| format!("{name}\n")).collect();
    root.write(&format!("srv/stage/{manner}.list"), &list);
    root.start("bash", &["/srv/stage/stage.sh", manner]).within(LIMIT).finish().ok();
    let transcript = |name: &&str| {
        let read = |end| root.read(&format!("srv/stage/transcripts/{name}.{manner}{end}"));
        (((*name).to_owned(), manner), Transcript { seen: read(""), said: read(".said") })
    };
    names.iter().map(transcript).collect()
}
