//! Tests of the timeline and its HTML page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::dkms_tree::Reason;
use crate::failure::Failure;
use crate::names::ModuleId;
use crate::plan::{Action, Job, Note, Plan, Step, Task};
use crate::report::{Event, Finished, Outcome, Phase};

/// A text with characters that must be escaped.
const BAD: &str = "<script>alert(1)</script> & \"\u{1b}[31m";

fn module(text: &str) -> ModuleId {
    text.parse().unwrap()
}

fn build(id: &str) -> Step {
    let (module, kernel) = (module(id), "7.2".parse().unwrap());
    Step { action: Action::Build { module, kernel }, why: vec![Reason::NotBuilt] }
}

fn install(id: &str) -> Step {
    let (module, kernel) = (module(id), "7.2".parse().unwrap());
    Step { action: Action::Install { module, kernel, replaces: None }, why: vec![] }
}

fn job(id: &str, after: &[&str]) -> Job {
    Job {
        module: module(id),
        kernel: "7.2".parse().unwrap(),
        after: after.iter().map(|name| name.parse().unwrap()).collect(),
        with: BTreeSet::new(),
        depends: BTreeMap::new(),
        build: build(id),
        install: Some(install(id)),
    }
}

/// A run with a simulated clock.
struct TestRun {
    begun: Instant,
    timings: Timings,
}

impl TestRun {
    fn new(plan: &Plan) -> Self {
        let mut run =
            Self { begun: Instant::now(), timings: Timings { jobs: 2, ..Timings::default() } };
        run.at(0, &Event::Planned(plan));
        run
    }

    fn at(&mut self, second: u64, event: &Event<'_>) {
        self.timings.total = Duration::from_secs(second);
        self.timings.hear(event, self.begun, self.begun + self.timings.total);
    }

    fn started(&mut self, second: u64, task: Task, step: &Step) {
        self.at(second, &Event::Started { task, step });
    }

    fn phase(&mut self, second: u64, task: Task, step: &Step, phase: Phase) {
        let at = self.begun + Duration::from_secs(second);
        self.at(second, &Event::Phase { task, step, phase, at });
    }

    fn finish(&mut self, second: u64, task: Task, step: &Step, outcome: Outcome, elapsed: u64) {
        let elapsed = Duration::from_secs(elapsed);
        let finished = Finished { task, step: step.clone(), outcome, elapsed };
        self.at(second, &Event::Finished(&finished));
    }
}

/// Returns a run in which spl is built and installed. zfs depends on spl, waits for it, and then
/// fails to build.
fn failing_run() -> TestRun {
    let steps = [build("spl/1"), install("spl/1"), build("zfs/2"), install("zfs/2")];
    let (spl, zfs, indexing) = (Task::Job(0), Task::Job(1), Task::After(0));
    let note = Note::Problem(format!("note {BAD}"));
    let depmod = Step { action: Action::Depmod("7.2".parse().unwrap()), why: vec![] };
    let plan = Plan {
        jobs: vec![job("spl/1", &[]), job("zfs/2", &["spl"])],
        after: vec![depmod.clone()],
        notes: vec![note],
        ..Plan::default()
    };
    let mut run = TestRun::new(&plan);
    run.started(0, spl, &steps[0]);
    run.phase(1, spl, &steps[0], Phase::Copying);
    run.phase(2, spl, &steps[0], Phase::Compiling);
    run.finish(9, spl, &steps[0], Outcome::Done, 7); // reported late: it ended at 8
    run.started(9, spl, &steps[1]);
    run.finish(10, spl, &steps[1], Outcome::Done, 1);
    run.started(11, zfs, &steps[2]);
    run.phase(12, zfs, &steps[2], Phase::Compiling);
    let failed = Failure {
        cause: Some(format!("cause {BAD}")),
        log: Some(PathBuf::from("/log")),
        ..Failure::new(10, format!("message {BAD}"))
    };
    run.finish(14, zfs, &steps[2], Outcome::Failed(failed), 2);
    run.started(14, zfs, &steps[3]);
    run.finish(14, zfs, &steps[3], Outcome::Skipped("not built".into()), 0);
    run.started(14, indexing, &depmod);
    run.finish(15, indexing, &depmod, Outcome::Done, 1);
    run.timings.load = vec![(Duration::from_secs(5), 0.5), (Duration::from_secs(10), 1.0)];
    run
}

#[test]
fn timeline_contains_work_and_waiting() {
    let spans: Vec<Vec<_>> = failing_run()
        .timings
        .rows
        .values()
        .map(|row| row.spans.iter().map(|s| (s.doing, s.from.as_secs(), s.to.as_secs())).collect())
        .collect();
    let compiling = Doing::Building(Phase::Compiling);
    assert_eq!(
        spans,
        [
            vec![
                (Doing::Queued, 0, 1),
                (Doing::Building(Phase::Copying), 1, 2),
                (compiling, 2, 8),
                (Doing::Installing, 9, 10),
            ],
            vec![(Doing::Depending, 0, 10), (Doing::Queued, 10, 12), (compiling, 12, 14)],
            vec![(Doing::Other, 14, 15)],
        ]
    );
}

#[test]
fn page_is_well_formed_and_shows_each_job_once() {
    let text = failing_run().timings.to_string();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let page = Document::parse_with_options(&text, options).unwrap();
    let with_class = |class: &str| -> Vec<Node<'_, '_>> {
        page.descendants().filter(|node| node.attribute("class") == Some(class)).collect()
    };
    let names: Vec<_> = with_class("name").iter().filter_map(Node::text).collect();
    assert_eq!(names, ["spl/1 for 7.2", "zfs/2 for 7.2", "run depmod for 7.2"]);
    let compiled: Vec<_> =
        with_class("compiling").iter().filter_map(|node| node.attribute("style")).collect();
    assert_eq!(compiled, ["left:13.33%;width:40.00%", "left:80.00%;width:13.33%"]);
    let cells =
        page.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "tr")));
    assert_eq!(cells.count(), 4);
    assert_eq!(page.descendants().filter(|node| node.tag_name().name() == "path").count(), 2);
}

#[test]
fn foreign_text_is_escaped() {
    let text = failing_run().timings.to_string();
    assert!(!text.contains("<script>") && !text.contains('\u{1b}'), "{text}");
    for what in ["note", "cause", "message"] {
        assert!(
            text.contains(&format!("{what} &lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot; "))
        );
    }
}

#[test]
fn page_is_self_contained() {
    let text = failing_run().timings.to_string();
    for reference in ["<script", "<link", "<img", "@import", "url(", "src="] {
        assert!(!text.contains(reference), "{reference}");
    }
    assert_eq!(text.matches("http").count(), 1, "only the XML namespace");
}

#[test]
fn empty_run_has_a_page() {
    let text = Timings::default().to_string();
    assert!(text.contains("0 builds in "), "{text}");
}

#[test]
fn retried_build_has_spans_for_both_attempts() {
    let step = build("foo/1");
    let mut run = TestRun::new(&Plan { jobs: vec![job("foo/1", &[])], ..Plan::default() });
    run.started(0, Task::Job(0), &step);
    for (second, phase) in
        [(1, Phase::Copying), (2, Phase::Waiting), (5, Phase::Copying), (6, Phase::Compiling)]
    {
        run.phase(second, Task::Job(0), &step, phase);
    }
    run.finish(9, Task::Job(0), &step, Outcome::Done, 3);
    let spans = run.timings.rows[&Task::Job(0)].spans.iter();
    let spans: Vec<_> = spans.map(|span| (span.doing.class(), span.to.as_secs())).collect();
    let want = [("queued", 1), ("copying", 2), ("queued", 5), ("copying", 6), ("compiling", 8)];
    assert_eq!(spans, want);
}
