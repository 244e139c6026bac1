//! Expands `$name` and `${name}` in a value.

/// Replaces every reference in `text` with the value that `lookup` returns for the name.
///
/// A reference is unchanged if `lookup` returns `None`. Otherwise, a backslash before the
/// reference prevents the replacement and is itself removed.
pub(crate) fn expanded<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        let reference = name_of(from);
        let value = reference.and_then(|(name, length)| Some((lookup(name)?, length)));
        match (value, before.strip_suffix('\\')) {
            (Some((_, length)), Some(before)) => {
                done.push_str(before);
                done.push_str(&from[..length]);
                rest = &from[length..];
            }
            (Some((value, length)), None) => {
                done.push_str(before);
                done.push_str(value);
                rest = &from[length..];
            }
            (None, _) => {
                done.push_str(before);
                done.push('$');
                rest = &from[1..];
            }
        }
    }
    done.push_str(rest);
    done
}

/// Parses the reference (`$name` or `${name}`) at the start of `text`. Returns the name and the
/// length of the whole reference, or `None` if there is no reference.
fn name_of(text: &str) -> Option<(&str, usize)> {
    let word = |text: &str| {
        text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
    };
    match text.strip_prefix("${") {
        Some(inner) => {
            let length = word(inner);
            inner[length..].starts_with('}').then(|| (&inner[..length], length + 3))
        }
        None => {
            let inner = text.strip_prefix('$')?;
            let length = word(inner);
            Some((&inner[..length], length + 1))
        }
    }
}
