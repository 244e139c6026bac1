//! Compares our dkms with the real one, and the differences with the documented ones.

use std::fmt;
use std::fs;

use similar::TextDiff;

use crate::play::{Play, Transcript};
use crate::scenario::Scenario;

/// If set, the differences of scenarios that show a row of the table are written down as they are now, to be reviewed.
const BLESS: &str = "BLESS_SCENARIOS";

/// The last line of a scenario that was played to its end.
const END: &str = "\nend\n";

/// What is not as it should be, for people.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Compares all that was played.
    pub fn of(scenarios: &[Scenario], play: &Play) -> Self {
        let mut findings = Self::default();
        for scenario in scenarios {
            let of = |manner| &play[&(scenario.name.clone(), manner)];
            findings.check_whole(scenario, "peer", of("peer"));
            for manner in scenario.manners() {
                findings.check_whole(scenario, manner, of(manner));
                findings.compare(scenario, manner, of("peer"), of(manner));
            }
        }
        findings
    }

    /// Whether all is as it should be.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check_whole(&mut self, scenario: &Scenario, manner: &str, transcript: &Transcript) {
        if !transcript.seen.ends_with(END) {
            self.0.push(format!(
                "{} ({manner}) breaks off; it is a bad scenario:\n{}",
                scenario.name, transcript.seen
            ));
        }
    }

    fn compare(&mut self, scenario: &Scenario, manner: &str, peer: &Transcript, ours: &Transcript) {
        let found = difference(("dkms", &peer.seen), (manner, &ours.seen));
        let file = scenario.difference(manner);
        let want = fs::read_to_string(&file).unwrap_or_default();
        if found == want && (scenario.differs.is_empty() || manner != "ours" || !found.is_empty()) {
            return;
        }
        let shows = !scenario.differs.is_empty() && (manner != "ours" || !found.is_empty());
        if shows && std::env::var_os(BLESS).is_some() {
            fs::write(&file, &found).expect("write a difference");
            return;
        }
        let name = &scenario.name;
        let said = format!("\nwhat dkms said:\n{}\nwhat ours said:\n{}", peer.said, ours.said);
        self.0.push(if scenario.differs.is_empty() {
            format!("{name} ({manner}) differs from dkms, and no row of the table says so:\n{found}{said}")
        } else if found.is_empty() {
            format!("{name} does not differ from dkms, though it says so by {:?}", scenario.differs)
        } else {
            let change = difference(("expected", &want), ("found", &found));
            format!("{name} ({manner}) differs from dkms in another way than {}:\n{change}{said}", file.display())
        });
    }
}

/// What differs between two texts, as `diff -u` shows it; empty if nothing does.
fn difference((one, text): (&str, &str), (other, other_text): (&str, &str)) -> String {
    TextDiff::from_lines(text, other_text).unified_diff().header(one, other).to_string()
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} findings", self.0.len())?;
        self.0.iter().try_for_each(|finding| writeln!(f, "\n== {finding}"))
    }
}
