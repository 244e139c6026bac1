//! Tests of the systemd units, whose settings must fit the settings of alpm-dkms.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, as it should")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use rstest::rstest;

fn packaging(file: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    fs::read_to_string(dir.join(file)).unwrap()
}

/// Returns the words of the setting `name` in `text`.
fn setting<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().split_whitespace().collect()
}

#[rstest]
#[case::pending_work("alpm-dkms-pending.service")]
#[case::running_kernel("dkms.service")]
#[case::preflight("alpm-dkms-preflight.service")]
fn unit_waits_for_the_trees_and_outlives_a_build(#[case] unit: &str) {
    let text = packaging(unit);
    let trees = ["/usr/src", "/usr/lib/modules", "/var/lib/dkms"];
    assert_eq!(setting(&text, "RequiresMountsFor"), trees);
    assert!(setting(&text, "Documentation").contains(&"man:alpm-dkms(7)"));

    let [limit] = setting(&text, "TimeoutStartSec")[..] else { panic!("no timeout in {unit}") };
    let days: u64 = limit.strip_suffix('d').unwrap().parse().unwrap();
    let settings = packaging("alpm-dkms.toml");
    let build = settings.split("[build]").nth(1).unwrap();
    let timeout = build.lines().find_map(|line| line.strip_prefix("#timeout = ")).unwrap();
    let build = Duration::from_secs(timeout.parse().unwrap());
    // A run builds several modules.
    assert!(Duration::from_secs(days * 24 * 3600) > 10 * build, "{limit}");
}

#[test]
fn the_timer_catches_up_and_starts_only_if_enabled() {
    let timer = packaging("alpm-dkms-preflight.timer");
    assert_eq!(setting(&timer, "Persistent"), ["true"]);
    assert_eq!(setting(&timer, "WantedBy"), ["timers.target"]);
    let service = packaging("alpm-dkms-preflight.service");
    assert!(!service.contains("[Install]"), "{service}");
    assert_eq!(setting(&service, "ConditionACPower"), ["true"]);
}
