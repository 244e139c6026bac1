//! Matches the patterns of a conf: POSIX extended regular expressions, as in bash's `=~`.

use regex::Regex;

/// Returns true if `pattern` matches anywhere in `text`. An invalid pattern matches nothing, as in
/// dkms.
pub(super) fn found(pattern: &str, text: &str) -> bool {
    Regex::new(&translated(pattern)).is_ok_and(|regex| regex.is_match(text))
}

/// Translates a POSIX pattern to the syntax of the `regex` crate. The two syntaxes differ as
/// follows:
///
/// - In bracket expressions, POSIX has no escapes and no set operations.
/// - In POSIX, `+?` is two quantifiers. In `regex`, `+?` is one lazy quantifier.
/// - In POSIX, a backslash makes nearly every character literal. In `regex`, a backslash before
///   a letter has a special meaning or is an error.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    // The position in `out` of the expression to which a following quantifier applies.
    let mut atom = 0;
    let mut open_groups = Vec::new();
    let mut quantified = false;
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if is_quantifier(c) {
            if quantified {
                out.insert_str(atom, "(?:");
                out.push(')');
            }
            quantified = true;
            out.push(c);
            if c == '{' {
                out.extend(rest.by_ref().take_while(|c| *c != '}'));
                out.push('}');
            }
            continue;
        }
        quantified = false;
        match c {
            '(' => {
                open_groups.push(out.len());
                out.push_str("(?:");
            }
            ')' => match open_groups.pop() {
                Some(start) => {
                    atom = start;
                    out.push(')');
                }
                None => {
                    atom = out.len();
                    out.push_str(r"\)");
                }
            },
            '[' => {
                atom = out.len();
                bracket(&mut rest, &mut out);
            }
            '\\' => {
                atom = out.len();
                escaped(rest.next(), &mut out);
            }
            '^' | '$' | '|' | '.' => {
                atom = out.len();
                out.push(c);
            }
            _ => {
                atom = out.len();
                literal(c, &mut out);
            }
        }
    }
    out
}

fn is_quantifier(c: char) -> bool {
    matches!(c, '*' | '+' | '?' | '{')
}

fn literal(c: char, out: &mut String) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// Translates `c`, the character after a backslash. It is literal unless glibc gives it a special
/// meaning.
fn escaped(c: Option<char>, out: &mut String) {
    match c {
        Some(c @ ('w' | 'W' | 's' | 'S' | 'b' | 'B' | '<' | '>')) => out.extend(['\\', c]),
        Some('`') => out.push_str(r"\A"),
        Some('\'') => out.push_str(r"\z"),
        Some(c) => literal(c, out),
        // A trailing backslash is invalid in both syntaxes.
        None => out.push('\\'),
    }
}

/// Translates a bracket expression, such as `[a-z[:digit:]]`. `rest` starts after the opening `[`.
fn bracket(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return;
            }
            '[' if rest.peek() == Some(&':') => {
                let class: String = rest.by_ref().take_while(|c| *c != ']').collect();
                out.push_str(&format!("[{class}]"));
            }
            '-' if !first && rest.peek().is_some_and(|next| *next != ']') => out.push('-'),
            '\\' | '[' | ']' | '^' | '-' | '&' | '~' => out.extend(['\\', c]),
            _ => out.push(c),
        }
        first = false;
    }
    // An unclosed bracket is invalid in both syntaxes.
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::{Environment, How, Program};
    use proptest::prelude::*;
    use rstest::rstest;

    /// Returns true if bash's `=~` matches `pattern` in `text`.
    fn bash(pattern: &str, text: &str) -> bool {
        let env = Environment::fixed();
        let test = ["-c", r#"[[ $1 =~ $2 ]]"#, "bash", text, pattern];
        Program::new("bash", &env).args(test).run().unwrap().how == How::Exited(0)
    }

    #[rstest]
    #[case::anywhere("2-arch")]
    #[case::anchored(r"^7\.(1|2)\.")]
    #[case::anchored_not(r"^[^7]")]
    #[case::class("arch[[:digit:]]+-[[:digit:]]$")]
    #[case::backslash_in_bracket(r"[\.]12")]
    #[case::unknown_class_letter(r"\d")]
    #[case::word(r"\<arch1\>")]
    #[case::closing_bracket_first("[]7]")]
    #[case::dash_in_bracket("12[.-]arch")]
    #[case::dash_last_in_bracket("[x-]a")]
    #[case::operators_in_bracket("[&&~~]")]
    #[case::counted(r"[0-9]{2}-")]
    #[case::two_quantifiers("x+?7")]
    #[case::group_with_two_quantifiers("(arch)+?1")]
    #[case::quantifier_alone("*")]
    #[case::unclosed("(7")]
    #[case::unclosed_bracket("[7")]
    #[case::unopened("7)")]
    #[case::sentence("REQUIRES CONFIG_VIDEO_DEV")]
    #[case::comment_sign("7#")]
    #[case::empty_choice("(|x)12")]
    #[case::backslash_last("7\\")]
    #[case::range("^[6-9].*-arch")]
    fn agrees_with_bash(#[case] pattern: &str) {
        let text = "7.2.12-arch1-1";
        assert_eq!(found(pattern, text), bash(pattern, text), "{}", translated(pattern));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn agrees_with_bash_on_generated_patterns(
            pattern in r"(\^?)([0-9ac.]|\\\.|\[[0-9.]{1,3}\]|\[\^[0-9]\]|[0-9a][*+?]|\([0-9a]\|[0-9]\)){1,5}(\$?)",
            text in "[0-9ac.-]{0,6}",
        ) {
            prop_assert_eq!(found(&pattern, &text), bash(&pattern, &text), "{}", translated(&pattern));
        }

        #[test]
        fn any_text_is_accepted_as_a_pattern(pattern in any::<String>()) {
            let _ = found(&pattern, "7.2.12-arch1-1");
        }
    }
}
