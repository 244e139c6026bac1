//! Reads the tables of intended differences, `docs/compatibility.md`.

use std::fs;
use std::path::Path;

/// A row of the tables.
#[derive(Debug)]
pub struct Row {
    /// The first cell, by which scenarios refer to the row.
    pub key: String,
}

/// The heading of the section without keys, whose rows scenarios cannot show.
const NOT_SHOWN: &str = "## What the comparison does not show";

/// Returns all rows that scenarios can show, in order.
pub fn rows() -> Vec<Row> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let text = fs::read_to_string(file).expect("read docs/compatibility.md");
    let shown = text.split_once(NOT_SHOWN).map_or(text.as_str(), |(shown, _)| shown);
    let rows = shown.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Key |"));
    let key = |line: &str| {
        let key = line.strip_prefix("| `").and_then(|line| line.split_once("` |"));
        key.unwrap_or_else(|| panic!("row without a key: {line}")).0.to_owned()
    };
    rows.map(|line| Row { key: key(line) }).collect()
}
