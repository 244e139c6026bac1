//! Compares alpm-dkms with the real dkms, and the differences with the documented ones.

use std::fmt;
use std::fs;

use similar::TextDiff;

use crate::scenario::Scenario;
use crate::transcripts::{Transcript, Transcripts};

/// The environment variable that makes the test write the present differences to the `.diff` files.
const BLESS: &str = "BLESS_SCENARIOS";

/// The end of the transcript of a complete scenario.
const END: &str = "\nend\n";

/// The reports of unexpected results.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Compares the transcripts of the scenarios.
    pub fn of(scenarios: &[Scenario], transcripts: &Transcripts) -> Self {
        let mut findings = Self::default();
        for scenario in scenarios {
            let of = |mode| &transcripts[&(scenario.name.clone(), mode)];
            findings.check_complete(scenario, "peer", of("peer"));
            for mode in scenario.modes() {
                findings.check_complete(scenario, mode, of(mode));
                findings.compare(scenario, mode, of("peer"), of(mode));
            }
        }
        findings
    }

    /// Returns true if all results are as expected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check_complete(&mut self, scenario: &Scenario, mode: &str, transcript: &Transcript) {
        if !transcript.results.ends_with(END) {
            self.0.push(format!(
                "{} ({mode}): the scenario ended early:\n{}",
                scenario.name, transcript.results
            ));
        }
    }

    fn compare(&mut self, scenario: &Scenario, mode: &str, peer: &Transcript, ours: &Transcript) {
        let found = difference(("dkms", &peer.results), (mode, &ours.results));
        let file = scenario.difference(mode);
        let want = fs::read_to_string(&file).unwrap_or_default();
        if found == want && (scenario.differs.is_empty() || mode != "ours" || !found.is_empty()) {
            return;
        }
        let shows = !scenario.differs.is_empty() && (mode != "ours" || !found.is_empty());
        if shows && std::env::var_os(BLESS).is_some() {
            fs::write(&file, &found).expect("write a difference");
            return;
        }
        let name = &scenario.name;
        let output =
            format!("\noutput of dkms:\n{}\noutput of {mode}:\n{}", peer.output, ours.output);
        self.0.push(if scenario.differs.is_empty() {
            format!("{name} ({mode}): undocumented difference from dkms:\n{found}{output}")
        } else if found.is_empty() {
            format!("{name}: no difference from dkms (expected: {:?})", scenario.differs)
        } else {
            let change = difference(("expected", &want), ("found", &found));
            format!("{name} ({mode}): difference is not {}:\n{change}{output}", file.display())
        });
    }
}

/// Returns the unified diff of two texts, or an empty string if they are equal.
fn difference((one, text): (&str, &str), (other, other_text): (&str, &str)) -> String {
    TextDiff::from_lines(text, other_text).unified_diff().header(one, other).to_string()
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "unexpected results: {}", self.0.len())?;
        self.0.iter().try_for_each(|finding| writeln!(f, "\n== {finding}"))
    }
}
