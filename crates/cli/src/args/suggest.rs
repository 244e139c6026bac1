//! Suggests the command or option that a mistyped word most resembles.

use crate::args::commands::COMMANDS;
use crate::args::options::OPTIONS;

/// Returns the command that `word` most resembles; `None` if it resembles none.
#[must_use]
pub fn command(word: &str) -> Option<&'static str> {
    nearest(word, COMMANDS.iter().map(|info| info.name))
}

/// Returns the correct spelling of the option that `argument` most resembles; `None` if it
/// resembles none.
#[must_use]
pub fn option(argument: &str) -> Option<String> {
    if let Some(name) = argument.strip_prefix("--") {
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        let known = OPTIONS.iter().filter(|opt| !opt.help.is_empty() && !opt.long.is_empty());
        return nearest(name, known.map(|opt| opt.long)).map(|long| format!("--{long}"));
    }
    // For `-j4` and `-m=foo`: dkms takes the value of a short option from the next word.
    let mut letters = argument.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    let value = letters.as_str().trim_start_matches('=');
    let takes_value = |short| OPTIONS.iter().any(|opt| opt.short == short && opt.value.is_some());
    (!value.is_empty() && takes_value(Some(letter))).then(|| format!("-{letter} {value}"))
}

/// Returns the name that is nearest to `word`; `None` if every name differs in more than a third of
/// its letters.
fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let distance = |name: &str| strsim::damerau_levenshtein(word, name);
    let near = names.filter(|name| distance(name) <= name.len().div_ceil(3));
    near.min_by_key(|name| distance(name))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::swapped("isntall", Some("install"))]
    #[case::missing("remov", Some("remove"))]
    #[case::dash("generate-mok", Some("generate_mok"))]
    #[case::module("v4l2loopback/0.15", None)]
    #[case::far("frobnicate", None)]
    fn finds_the_nearest_command(#[case] word: &str, #[case] want: Option<&str>) {
        assert_eq!(command(word), want);
    }

    #[rstest]
    #[case::long("--forse", Some("--force"))]
    #[case::with_value("--directve=A=b", Some("--directive"))]
    #[case::flag_with_value("--all=yes", Some("--all"))]
    #[case::joined("-j4", Some("-j 4"))]
    #[case::short_with_equals_sign("-m=foo", Some("-m foo"))]
    #[case::letters("-qV", None)]
    #[case::letter("-x", None)]
    #[case::dashes("--", None)]
    #[case::dash("-", None)]
    #[case::far("--frobnicate", None)]
    fn finds_the_nearest_option(#[case] argument: &str, #[case] want: Option<&str>) {
        assert_eq!(option(argument).as_deref(), want);
    }
}
