//! Selects the lines of a status.

use regex::Regex;

/// A shell pattern for a name, `*`, `?` and `[a-z]`: dkms lets the shell expand what is typed.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    /// Reads a pattern. Every text is one; what cannot be understood matches only itself.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let regex = Regex::new(&format!(r"\A(?s:{})\z", as_regex(text))).ok();
        Self { text: text.to_owned(), regex }
    }

    /// Returns true if a name fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(name),
            None => self.text == name,
        }
    }
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `-m`: every module if there is none.
    pub module: Option<Pattern>,
    /// `-v`: every version if there is none.
    pub version: Option<Pattern>,
    /// One for each `-k`: the listing is repeated for each. None at all lists once.
    pub kernels: Vec<KernelFilter>,
}

/// A kernel and architecture to list.
#[derive(Debug, Clone, Default)]
pub struct KernelFilter {
    /// The release. Without one, only directories that start like a kernel's version are listed
    /// (digits and a dot), as dkms does.
    pub kernel: Option<Pattern>,
    /// The architecture: every one if there is none.
    pub arch: Option<Pattern>,
}

impl KernelFilter {
    pub(super) fn matches(&self, kernel: &str, arch: &str) -> bool {
        let kernel_fits = match &self.kernel {
            Some(pattern) => pattern.matches(kernel),
            None => starts_like_a_version(kernel),
        };
        kernel_fits && fits(self.arch.as_ref(), arch)
    }
}

/// Returns true if `name` fits a pattern that may not have been given.
pub(super) fn fits(pattern: Option<&Pattern>, name: &str) -> bool {
    pattern.is_none_or(|pattern| pattern.matches(name))
}

fn starts_like_a_version(kernel: &str) -> bool {
    let rest = kernel.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < kernel.len() && rest.starts_with('.')
}

/// A shell pattern as a regular expression.
fn as_regex(pattern: &str) -> String {
    let mut regex = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => match class(rest) {
                Some((class, behind)) => {
                    regex.push_str(&class);
                    rest = behind;
                }
                None => regex.push_str(r"\["),
            },
            '\\' => {
                let quoted = rest.chars().next().unwrap_or('\\');
                rest = rest.strip_prefix(quoted).unwrap_or(rest);
                regex.push_str(&regex::escape(quoted.encode_utf8(&mut [0; 4])));
            }
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex
}

/// The rest of a `[…]`, as one of a regular expression, and what follows it.
fn class(rest: &str) -> Option<(String, &str)> {
    let negated = rest.starts_with(['!', '^']);
    let members = if negated { &rest[1..] } else { rest };
    // A bracket that comes first is a member.
    let end = members.char_indices().skip(1).find(|(_, c)| *c == ']')?.0;
    let mut class = String::from(if negated { "[^" } else { "[" });
    for c in members[..end].chars() {
        if c != '-' && !c.is_alphanumeric() {
            class.push('\\');
        }
        class.push(c);
    }
    class.push(']');
    Some((class, &members[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::literal("0.15.4", "0.15.4", true)]
    #[case::dots_are_dots("0.15.4", "0x15y4", false)]
    #[case::star("v4l*", "v4l2loopback", true)]
    #[case::whole("v4l", "v4l2loopback", false)]
    #[case::one("zfs?", "zfs2", true)]
    #[case::class("6.1[0-2]*", "6.12.1-arch", true)]
    #[case::not_class("6.1[!0-2]", "6.11", false)]
    #[case::bracket_first("[]x]", "]", true)]
    #[case::open("a[b", "a[b", true)]
    #[case::quoted(r"a\*", "a*", true)]
    #[case::quoted_nothing_else(r"a\*", "ab", false)]
    #[case::backwards("[z-a]", "[z-a]", true)]
    #[case::plus("1+dfsg", "1+dfsg", true)]
    fn matches_as_the_shell_does(#[case] pattern: &str, #[case] name: &str, #[case] want: bool) {
        assert_eq!(Pattern::new(pattern).matches(name), want);
    }

    #[rstest]
    #[case("6.1", true)]
    #[case("12.x", true)]
    #[case("6", false)]
    #[case("linux-6.1", false)]
    #[case(".6", false)]
    fn lists_kernels_that_look_like_one(#[case] kernel: &str, #[case] want: bool) {
        assert_eq!(KernelFilter::default().matches(kernel, "x86_64"), want);
    }
}
