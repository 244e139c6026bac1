//! Shell patterns, as `dkms status` takes them for modules, versions, kernels and architectures.

/// Whether `text` as a whole matches `pattern`: `*` any text, `?` any character, `[a-z]` and
/// `[!a-z]` one of a set, `\` the next character itself. A set that does not end is a plain `[`.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Where to go on when the last `*` has to swallow one more character.
    let (mut star, mut swallowed) = (None, 0);
    let (mut at, mut read) = (0, 0);
    while read < text.len() {
        if pattern.get(at) == Some(&'*') {
            (star, swallowed) = (Some(at), read);
            at += 1;
        } else if let Some(length) = one(&pattern[at..], text[read]) {
            at += length;
            read += 1;
        } else if let Some(star) = star {
            swallowed += 1;
            (at, read) = (star + 1, swallowed);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// How long the part of the pattern is that matches one character; nothing if it does not.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', plain, ..] => (*plain == c).then_some(2),
        ['[', rest @ ..] if set(rest).is_some() => {
            let (negated, members, length) = set(rest)?;
            (contains(members, c) != negated).then_some(length + 1)
        }
        [plain, ..] => (*plain == c).then_some(1),
        [] => None,
    }
}

/// A set after its `[`: whether it is negated, its members, its length with the `]`.
fn set(rest: &[char]) -> Option<(bool, &[char], usize)> {
    let negated = matches!(rest.first(), Some('!' | '^'));
    let start = usize::from(negated);
    // A `]` that comes first is a member.
    let end = rest.iter().skip(start + 1).position(|c| *c == ']')? + start + 1;
    Some((negated, &rest[start..end], end + 1))
}

fn contains(mut members: &[char], c: char) -> bool {
    while let [first, rest @ ..] = members {
        members = match rest {
            ['-', last, rest @ ..] => {
                if (*first..=*last).contains(&c) {
                    return true;
                }
                rest
            }
            _ if *first == c => return true,
            _ => rest,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("foo", "foo", true)]
    #[case("foo", "foo2", false)]
    #[case("*", "", true)]
    #[case("f*o*", "fxxo", true)]
    #[case("6.*-lts", "6.12.8-1-lts", true)]
    #[case("6.*-lts", "6.12.8-1-lts2", false)]
    #[case("*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false)]
    #[case("?", "", false)]
    #[case("[a-c]x", "bx", true)]
    #[case("[!a-c]x", "bx", false)]
    #[case("[]]", "]", true)]
    #[case("[a", "[a", true)]
    #[case(r"\*", "x", false)]
    #[case(r"\*", "*", true)]
    fn matches_as_the_shell_does(#[case] pattern: &str, #[case] text: &str, #[case] want: bool) {
        assert_eq!(matches(pattern, text), want);
    }
}
