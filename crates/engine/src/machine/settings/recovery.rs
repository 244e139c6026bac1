//! Reads as much of a TOML file as possible. An invalid value affects only its key; a syntax error
//! may also affect the settings after it.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer, Error};

/// Reads `text`. Adds a message to `problems` for the first syntax error and for each invalid
/// value. Keys that cannot be read get their defaults.
pub(super) fn read<T: DeserializeOwned + Default>(text: &str, problems: &mut Vec<String>) -> T {
    let (document, errors) = DeTable::parse_recoverable(text);
    let place = |error: &Error| error.span().map_or(0, |span| span.start);
    // Only the first error is reported, because later errors are often consequences of it.
    problems.extend(errors.iter().min_by_key(|error| place(error)).map(|error| {
        let line = text.get(..place(error)).unwrap_or_default().matches('\n').count() + 1;
        format!("line {line}: {}; settings after this line may be ignored", error.message())
    }));
    parse(document).unwrap_or_else(|_| {
        let (mut document, _) = DeTable::parse_recoverable(text);
        problems.extend(remove_invalid::<T>(document.get_mut(), &[]));
        parse(document).unwrap_or_default()
    })
}

fn parse<T: DeserializeOwned>(document: Spanned<DeTable<'_>>) -> Result<T, Error> {
    T::deserialize(Deserializer::from(document))
}

/// Removes the keys with invalid values from `table` and returns a message for each. `parents` is
/// the path of `table` in the file, and `T` is the type of the whole file.
fn remove_invalid<T: DeserializeOwned>(table: &mut DeTable<'_>, parents: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut is_valid = |key: &str, value: &mut Spanned<DeValue<'_>>| {
        let path = [parents, &[key]].concat();
        if let DeValue::Table(section) = value.get_mut() {
            problems.extend(remove_invalid::<T>(section, &path));
        }
        let mut alone = DeTable::from_iter([entry(key, value.get_ref().clone())]);
        for parent in parents.iter().rev() {
            alone = DeTable::from_iter([entry(parent, DeValue::Table(alone))]);
        }
        let Err(error) = parse::<T>(Spanned::new(0..0, alone)) else { return true };
        problems.push(format!("{}: ignored: {}", path.join("."), plain(error.message())));
        false
    };
    let entries = std::mem::take(table).into_iter();
    *table = entries
        .filter_map(|(key, mut value)| is_valid(key.get_ref(), &mut value).then_some((key, value)))
        .collect();
    problems
}

fn entry<'a>(key: &'a str, value: DeValue<'a>) -> (Spanned<DeString<'a>>, Spanned<DeValue<'a>>) {
    (Spanned::new(0..0, key.into()), Spanned::new(0..0, value))
}

/// The ends of messages that name Rust types, and their replacements. The first two are about
/// enums.
const ENDINGS: [(&str, &str); 4] = [
    ("expected string or map", "expected a string"),
    ("wanted string or table", "expected a string"),
    ("expected usize", "expected a non-negative number"),
    ("expected u64", "expected a non-negative number"),
];

/// Replaces Rust type names in a message with plain words.
fn plain(message: &str) -> String {
    // The messages about integers of more than 64 bits, and about 64-bit integers in a flattened
    // section.
    if message.contains(" as i128") || message.ends_with("expected any value") {
        return "number too large".to_owned();
    }
    if let Some((before, _)) = message.split_once("expected struct ") {
        return format!("{before}expected a section");
    }
    let plain = ENDINGS
        .iter()
        .find_map(|(end, plain)| Some(format!("{}{plain}", message.strip_suffix(end)?)));
    plain.unwrap_or_else(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct File {
        first: Section,
        last: Section,
        named: BTreeMap<String, Section>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Section {
        number: Option<u64>,
        choice: Option<Choice>,
        list: Vec<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        One,
        Other,
    }

    #[rstest]
    #[case::no_choice("choice = true", "first.choice: ignored: expected a string")]
    #[case::another_choice(
        "choice = 'x'",
        "first.choice: ignored: unknown variant `x`, expected `one` or `other`"
    )]
    #[case::wrong_type(
        "number = 'x'",
        "first.number: ignored: invalid type: string \"x\", expected a non-negative number"
    )]
    #[case::negative(
        "number = -5",
        "first.number: ignored: invalid value: integer `-5`, expected a non-negative number"
    )]
    #[case::too_large("number = 99999999999999999999", "first.number: ignored: number too large")]
    #[case::list_element(
        "list = [1]",
        "first.list: ignored: invalid type: integer `1`, expected a string"
    )]
    #[case::not_a_section(
        "[named]\na = 3",
        "named.a: ignored: invalid type: integer `3`, expected a section"
    )]
    #[case::named(
        "[named.a]\nnumber = true",
        "named.a.number: ignored: invalid type: boolean `true`, expected a non-negative number"
    )]
    #[case::missing_quotes(
        "number = x y",
        "line 2: string values must be quoted, expected literal string; settings after this line may be ignored"
    )]
    #[case::duplicate_key(
        "number = 1\nnumber = 2",
        "line 3: duplicate key; settings after this line may be ignored"
    )]
    fn a_mistake_does_not_affect_other_keys(#[case] mistake: &str, #[case] want: &str) {
        let mut problems = Vec::new();
        let text = format!("[first]\n{mistake}\n[last]\nnumber = 7\n");
        let file: File = super::read(&text, &mut problems);
        assert_eq!(problems.first().map(String::as_str), Some(want));
        assert_eq!(file.last, Section { number: Some(7), ..Section::default() });
    }

    #[rstest]
    #[case::open_quote("number = 'x", "line 4: invalid literal string, expected `'`")]
    #[case::open_list("list = ['x'\nnumber = 2", "line 5: ")]
    #[case::open_section("[named", "line 4: unclosed table, expected `]`")]
    #[case::not_toml("\u{0}<html>", "line 4: ")]
    fn a_mistake_does_not_affect_earlier_keys(#[case] mistake: &str, #[case] want: &str) {
        let mut problems = Vec::new();
        let text = format!("[last]\nnumber = 7\n[first]\n{mistake}\n");
        let file: File = super::read(&text, &mut problems);
        assert!(problems.first().is_some_and(|it| it.starts_with(want)), "{problems:?}");
        assert_eq!(file.last, Section { number: Some(7), ..Section::default() });
    }
}
