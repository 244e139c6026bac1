//! The filter that selects the lines of `dkms status`.

use regex::Regex;

/// A shell pattern for a name, such as `v4l*`, `zfs?` or `6.[1-9]`.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    /// Compiles a pattern. An invalid pattern matches only its own text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let regex = Regex::new(&format!(r"\A(?s:{})\z", as_regex(text))).ok();
        Self { text: text.to_owned(), regex }
    }

    /// Returns true if the pattern matches the whole name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(name),
            None => self.text == name,
        }
    }
}

/// The selection of modules and kernels to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The pattern for modules (`-m`); `None` selects every module.
    pub module: Option<Pattern>,
    /// The pattern for module versions (`-v`); `None` selects every version.
    pub version: Option<Pattern>,
    /// One filter for each `-k`. The listing is repeated for each filter. If there is no filter,
    /// all kernels are listed once.
    pub kernels: Vec<KernelFilter>,
}

/// The selection of kernels by release and architecture.
#[derive(Debug, Clone, Default)]
pub struct KernelFilter {
    /// The pattern for kernel releases. As in dkms, `None` selects only releases that start with
    /// digits and a dot.
    pub kernel: Option<Pattern>,
    /// The pattern for architectures; `None` selects all of them.
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

/// Returns true if `name` matches `pattern` or if `pattern` is `None`.
pub(super) fn fits(pattern: Option<&Pattern>, name: &str) -> bool {
    pattern.is_none_or(|pattern| pattern.matches(name))
}

fn starts_like_a_version(kernel: &str) -> bool {
    let rest = kernel.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < kernel.len() && rest.starts_with('.')
}

/// Translates a shell pattern into a regular expression.
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

/// Translates a bracket expression into a regular expression. `rest` is the text after the `[`.
/// Returns the translation and the text after the `]`, or `None` if there is no `]`.
fn class(rest: &str) -> Option<(String, &str)> {
    let negated = rest.starts_with(['!', '^']);
    let members = if negated { &rest[1..] } else { rest };
    // A `]` in first position is a member and does not close the bracket.
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
    #[case::unclosed("a[b", "a[b", true)]
    #[case::escaped(r"a\*", "a*", true)]
    #[case::escaped_star_is_no_wildcard(r"a\*", "ab", false)]
    #[case::backward_range("[z-a]", "[z-a]", true)]
    #[case::plus("1+dfsg", "1+dfsg", true)]
    fn matches_like_a_shell(#[case] pattern: &str, #[case] name: &str, #[case] want: bool) {
        assert_eq!(Pattern::new(pattern).matches(name), want);
    }

    #[rstest]
    #[case("6.1", true)]
    #[case("12.x", true)]
    #[case("6", false)]
    #[case("linux-6.1", false)]
    #[case(".6", false)]
    fn default_filter_selects_only_names_that_start_like_a_version(
        #[case] kernel: &str,
        #[case] want: bool,
    ) {
        assert_eq!(KernelFilter::default().matches(kernel, "x86_64"), want);
    }
}
