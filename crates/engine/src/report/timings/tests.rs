use std::collections::BTreeMap;
use std::path::PathBuf;

use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::dkms_tree::Reason;
use crate::failure::Failure;
use crate::names::ModuleId;
use crate::plan::{Action, Job, Note, Plan, Step, Task};
use crate::report::{Event, Finished, Outcome, Phase};

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
        depends: BTreeMap::new(),
        build: build(id),
        install: Some(install(id)),
    }
}

/// A run whose clock is set by hand.
struct Story {
    begun: Instant,
    timings: Timings,
}

impl Story {
    fn new(plan: &Plan) -> Self {
        let mut story =
            Self { begun: Instant::now(), timings: Timings { jobs: 2, ..Timings::default() } };
        story.at(0, &Event::Planned(plan));
        story
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

    fn over(&mut self, second: u64, task: Task, step: &Step, outcome: Outcome, elapsed: u64) {
        let elapsed = Duration::from_secs(elapsed);
        let finished = Finished { task, step: step.clone(), outcome, elapsed };
        self.at(second, &Event::Finished(&finished));
    }
}

/// spl is built and installed; zfs, which builds upon it, waits and then fails.
fn story() -> Story {
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
    let mut story = Story::new(&plan);
    story.started(0, spl, &steps[0]);
    story.phase(1, spl, &steps[0], Phase::Copying);
    story.phase(2, spl, &steps[0], Phase::Compiling);
    story.over(9, spl, &steps[0], Outcome::Done, 7); // heard of late: it ended at 8
    story.started(9, spl, &steps[1]);
    story.over(10, spl, &steps[1], Outcome::Done, 1);
    story.started(11, zfs, &steps[2]);
    story.phase(12, zfs, &steps[2], Phase::Compiling);
    let failed = Failure {
        cause: Some(format!("cause {BAD}")),
        log: Some(PathBuf::from("/log")),
        ..Failure::new(10, format!("message {BAD}"))
    };
    story.over(14, zfs, &steps[2], Outcome::Failed(failed), 2);
    story.started(14, zfs, &steps[3]);
    story.over(14, zfs, &steps[3], Outcome::Skipped("it was not built".into()), 0);
    story.started(14, indexing, &depmod);
    story.over(15, indexing, &depmod, Outcome::Done, 1);
    story.timings.load = vec![(Duration::from_secs(5), 0.5), (Duration::from_secs(10), 1.0)];
    story
}

#[test]
fn knows_what_was_done_and_waited_for() {
    let spans: Vec<Vec<_>> = story()
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
fn the_page_is_whole_and_has_each_job_once() {
    let text = story().timings.to_string();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let page = Document::parse_with_options(&text, options).unwrap();
    let with_class = |class: &str| -> Vec<Node<'_, '_>> {
        page.descendants().filter(|node| node.attribute("class") == Some(class)).collect()
    };
    let names: Vec<_> = with_class("name").iter().filter_map(Node::text).collect();
    assert_eq!(names, ["spl/1 for 7.2", "zfs/2 for 7.2", "index the modules of 7.2 (depmod)"]);
    let compiled: Vec<_> =
        with_class("compiling").iter().filter_map(|node| node.attribute("style")).collect();
    assert_eq!(compiled, ["left:13.33%;width:40.00%", "left:80.00%;width:13.33%"]);
    let cells =
        page.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "tr")));
    assert_eq!(cells.count(), 4);
    assert_eq!(page.descendants().filter(|node| node.tag_name().name() == "path").count(), 2);
}

#[test]
fn text_of_others_stays_text() {
    let text = story().timings.to_string();
    assert!(!text.contains("<script>") && !text.contains('\u{1b}'), "{text}");
    for what in ["note", "cause", "message"] {
        assert!(
            text.contains(&format!("{what} &lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot; "))
        );
    }
}

#[test]
fn the_page_needs_nothing_else() {
    let text = story().timings.to_string();
    for fetching in ["<script", "<link", "<img", "@import", "url(", "src="] {
        assert!(!text.contains(fetching), "{fetching}");
    }
    assert_eq!(text.matches("http").count(), 1, "the name space alone");
}

#[test]
fn an_empty_run_has_a_page_too() {
    let text = Timings::default().to_string();
    assert!(text.contains("0 builds in "), "{text}");
}

#[test]
fn a_build_that_is_tried_again_is_shown_twice() {
    let step = build("foo/1");
    let mut story = Story::new(&Plan { jobs: vec![job("foo/1", &[])], ..Plan::default() });
    story.started(0, Task::Job(0), &step);
    for (second, phase) in
        [(1, Phase::Copying), (2, Phase::Waiting), (5, Phase::Copying), (6, Phase::Compiling)]
    {
        story.phase(second, Task::Job(0), &step, phase);
    }
    story.over(9, Task::Job(0), &step, Outcome::Done, 3);
    let spans = story.timings.rows[&Task::Job(0)].spans.iter();
    let spans: Vec<_> = spans.map(|span| (span.doing.class(), span.to.as_secs())).collect();
    let want = [("queued", 1), ("copying", 2), ("queued", 5), ("copying", 6), ("compiling", 8)];
    assert_eq!(spans, want);
}
