//! The PIN of a signing key, which must not appear in messages, logs or arguments.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;

/// The attribute of a PKCS #11 URI that contains the PIN (RFC 7512, 2.4).
const PIN_VALUE: &str = "pin-value=";

/// The PIN of a token, or the passphrase of a private key. The `Debug` output does not contain the
/// secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pin(OsString);

impl Pin {
    pub(crate) fn new(text: impl Into<OsString>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        &self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// Removes the `pin-value` attribute from a PKCS #11 URI. Returns the remaining URI and the decoded
/// PIN. If the URI contains no PIN, returns the unchanged URI and `None`.
pub(crate) fn split_pin(uri: &str) -> (String, Option<Pin>) {
    let (scheme, rest) = uri.split_at(uri.find(':').map_or(0, |at| at + 1));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut pin = None;
    let mut without_pin = |attributes: &str| {
        let mut kept = String::new();
        for attribute in attributes.split_inclusive([';', '&']) {
            match attribute.strip_prefix(PIN_VALUE) {
                Some(value) => pin = Some(decoded(value.trim_end_matches([';', '&']))),
                None => kept.push_str(attribute),
            }
        }
        kept.trim_end_matches([';', '&']).to_owned()
    };
    let (path, query) = (without_pin(path), without_pin(query));
    match pin {
        Some(pin) if query.is_empty() => (format!("{scheme}{path}"), Some(pin)),
        Some(pin) => (format!("{scheme}{path}?{query}"), Some(pin)),
        None => (uri.to_owned(), None),
    }
}

/// Decodes the percent-encoded bytes of `text`.
fn decoded(text: &str) -> Pin {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%');
        let code = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    Pin(OsString::from_vec(bytes))
}

/// Returns `text` with every PIN in a PKCS #11 URI replaced by `…`.
///
/// A quotation mark does not end a PIN, since a PIN can contain one.
pub(crate) fn redacted(text: &str) -> String {
    let mut parts = text.split(PIN_VALUE);
    let mut redacted = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || c == ';' || c == '&');
        redacted.push_str(PIN_VALUE);
        redacted.push('…');
        redacted.push_str(&part[end.unwrap_or(part.len())..]);
    }
    redacted
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::only_query("pkcs11:token=a;object=b?pin-value=1234", "pkcs11:token=a;object=b")]
    #[case::first(
        "pkcs11:object=b?pin-value=1234&module-path=/m",
        "pkcs11:object=b?module-path=/m"
    )]
    #[case::last("pkcs11:object=b?module-path=/m&pin-value=1234", "pkcs11:object=b?module-path=/m")]
    #[case::in_the_path("pkcs11:pin-value=1234;object=b", "pkcs11:object=b")]
    #[case::encoded("pkcs11:object=b;pin-value=%312%334", "pkcs11:object=b")]
    fn splits_the_pin_off_a_uri(#[case] uri: &str, #[case] without: &str) {
        assert_eq!(split_pin(uri), (without.to_owned(), Some(Pin::new("1234"))));
    }

    #[rstest]
    #[case("pkcs11:token=a;object=b?pin-source=file:/p")]
    #[case("pkcs11:?")]
    #[case("/k/mok.key")]
    fn leaves_other_keys_unchanged(#[case] key: &str) {
        assert_eq!(split_pin(key), (key.to_owned(), None));
    }

    #[test]
    fn redacts_every_pin() {
        let text = "f: line 1: pin-value=12'34: command not found; k='pkcs11:a?pin-value=%35&b=c'";
        let shown = "f: line 1: pin-value=… command not found; k='pkcs11:a?pin-value=…&b=c'";
        assert_eq!(redacted(text), shown);
        assert_eq!(redacted("no PIN"), "no PIN");
        assert_eq!(format!("{:?}", Pin::new("1234")), "Pin(…)");
    }
}
