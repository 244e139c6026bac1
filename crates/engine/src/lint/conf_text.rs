//! The text of a dkms.conf: its lines, and the assignments in them.

use std::iter::Peekable;
use std::str::Chars;

/// The words after which bash expects another command or assignment.
const BEFORE_COMMANDS: [&str; 10] =
    ["then", "else", "do", "{", "!", "export", "local", "declare", "typeset", "readonly"];

/// An assignment to a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The name of the variable.
    pub(super) name: String,
    /// The array index; `None` if there is none, or if it is not a number.
    pub(super) index: Option<usize>,
    /// The number of the line, from 1.
    pub(super) line: usize,
}

/// The text of a dkms.conf.
///
/// Only bash understands a dkms.conf completely. The assignments found here therefore serve only to
/// locate directives that bash has evaluated, and to find names that are not directives.
pub(super) struct ConfText {
    text: String,
    assignments: Vec<Assignment>,
}

impl ConfText {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), assignments: assignments(text) }
    }

    /// Returns all assignments, in order.
    pub(super) fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// Returns the number of the line that sets the element of `directive` at `index`. Falls back
    /// to the line that sets the whole array. Returns `None` if there is no such line.
    pub(super) fn line_of(&self, directive: &str, index: usize) -> Option<usize> {
        let named = || self.assignments.iter().filter(|it| it.name == directive);
        let exact = named().find(|it| it.index == Some(index));
        let whole = || named().find(|it| it.index.is_none());
        exact.or_else(whole).map(|it| it.line)
    }

    /// Returns true if the text refers to the variable `name`.
    pub(super) fn refers_to(&self, name: &str) -> bool {
        [format!("${name}"), format!("${{{name}"), format!("${{!{name}"), format!("${{#{name}")]
            .iter()
            .any(|reference| self.text.contains(reference))
    }

    /// Returns the lines that are not comments, each with its number.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with('#'))
    }
}

/// Returns the assignments in `text`, in order. Skips comments and quoted text.
fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    // Whether the next word is the first one of a command.
    let mut starts_command = true;
    while let Some(&c) = rest.peek() {
        match c {
            '\n' => (line, starts_command) = (line + 1, true),
            ';' | '&' | '|' | '(' => starts_command = true,
            ' ' | '\t' | '\r' => {}
            '#' => {
                while rest.next_if(|c| *c != '\n').is_some() {}
                continue;
            }
            _ if starts_command => {
                let (word, lines) = word(&mut rest);
                let assigned = assigned(&word, line);
                // An assignment can follow another one, as in `A=1 B=2`.
                starts_command = assigned.is_some() || BEFORE_COMMANDS.contains(&word.as_str());
                found.extend(assigned);
                line += lines;
                continue;
            }
            _ => {
                line += word(&mut rest).1;
                continue;
            }
        }
        rest.next();
    }
    found
}

/// Reads a word of a command, including quoted text, and counts the line breaks in it.
fn word(rest: &mut Peekable<Chars<'_>>) -> (String, usize) {
    let (mut word, mut lines, mut quote) = (String::new(), 0, None);
    while let Some(&c) = rest.peek() {
        let ends = quote.is_none() && (c.is_whitespace() || matches!(c, ';' | '&' | '|' | '('));
        if ends && !word.is_empty() {
            break;
        }
        rest.next();
        lines += usize::from(c == '\n');
        word.push(c);
        match (c, quote) {
            ('\\', Some('"') | None) => {
                if let Some(escaped) = rest.next() {
                    lines += usize::from(escaped == '\n');
                    word.push(escaped);
                }
            }
            ('"' | '\'' | '`', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    (word, lines)
}

/// Parses `word` as an assignment, such as `MAKE[0]="make"` or `MAKE+=x`.
fn assigned(word: &str, line: usize) -> Option<Assignment> {
    let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (name, rest) = word.split_at(end);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let (index, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((index, rest)) => (index.parse().ok(), rest),
        None => (None, rest),
    };
    let assigns = rest.strip_prefix('+').unwrap_or(rest).starts_with('=');
    (assigns && starts_well).then(|| Assignment { name: name.to_owned(), index, line })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("A=1\nB[2]=\"x\"\n", &[("A", None, 1), ("B", Some(2), 2)])]
    #[case::after_text_of_several_lines("A='x\n  Y=1\n'\nB=2", &[("A", None, 1), ("B", None, 4)])]
    #[case::continued("A=\"x \\\n  Y=1\"; B=2", &[("A", None, 1), ("B", None, 2)])]
    #[case::in_a_condition("if [ X=1 ]; then A=1; else\n\tB+=(2)\nfi", &[("A", None, 1), ("B", None, 2)])]
    #[case::several("export A=1 B=2 c D=3", &[("A", None, 1), ("B", None, 1)])]
    #[case::comments("# X=1\nA=x#Y=1 # Z=1", &[("A", None, 2)])]
    #[case::arguments("make X=1 && A=2", &[("A", None, 1)])]
    #[case::variable_as_index("A[$i]=1", &[("A", None, 1)])]
    #[case::not_an_assignment("A == 1\n1=x\n$A=1\n[[ A=~1 ]]", &[])]
    fn finds_assignments(#[case] text: &str, #[case] want: &[(&str, Option<usize>, usize)]) {
        let found = assignments(text);
        let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.index, it.line)).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn locates_an_element_by_its_index() {
        let text = ConfText::new("MAKE=a\nPATCH=(a b)\nSTRIP[1]=no\nMAKE[1]=b\n");
        assert_eq!(text.line_of("MAKE", 0), Some(1));
        assert_eq!(text.line_of("MAKE", 1), Some(4));
        assert_eq!(text.line_of("PATCH", 1), Some(2));
        assert_eq!(text.line_of("STRIP", 0), None);
    }
}
