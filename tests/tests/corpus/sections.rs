//! Compares two kernel objects by ELF section.

use std::collections::BTreeMap;

use object::{Object, ObjectSection, SectionFlags};

/// The end of a signed module.
const MAGIC: &[u8] = b"~Module signature appended~\n";

/// The size of the kernel's `struct module_signature`, which ends with the length of the signature.
const SIGNATURE_HEADER: usize = 12;

/// Returns the sorted names of the sections that differ. The list is empty if the files are equal
/// apart from their signatures.
///
/// If only the headers differ, or if a file is not ELF, the name is `headers`.
pub fn differing_sections(one: &[u8], other: &[u8]) -> Vec<String> {
    let (one, other) = (unsigned(one), unsigned(other));
    if one == other {
        return Vec::new();
    }
    let (Some(one), Some(other)) = (sections(one), sections(other)) else {
        return vec!["headers".into()];
    };
    let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
    let mut differing: Vec<String> =
        names.filter(|name| one.get(*name) != other.get(*name)).cloned().collect();
    differing.sort();
    if differing.is_empty() {
        differing.push("headers".into());
    }
    differing
}

/// Returns a module without its signature, because the two programs sign with different keys.
fn unsigned(file: &[u8]) -> &[u8] {
    let before = file.strip_suffix(MAGIC).and_then(|signed| {
        let length = usize::try_from(u32::from_be_bytes(*signed.last_chunk()?)).ok()?;
        signed.get(..signed.len().checked_sub(SIGNATURE_HEADER + length)?)
    });
    before.unwrap_or(file)
}

/// A section: its flags, its size in memory and its bytes.
type Section<'data> = (SectionFlags, u64, &'data [u8]);

/// Returns the sections by name, or `None` if the file is not ELF. Several sections can have the
/// same name.
fn sections(file: &[u8]) -> Option<BTreeMap<String, Vec<Section<'_>>>> {
    let mut all: BTreeMap<String, Vec<Section<'_>>> = BTreeMap::new();
    for section in object::File::parse(file).ok()?.sections() {
        let name = section.name().ok()?.to_owned();
        let content = (section.flags(), section.size(), section.data().ok()?);
        all.entry(name).or_default().push(content);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use testroot::kernel_object;

    use super::differing_sections;

    #[test]
    fn equal_objects_have_no_differing_sections() {
        let object = kernel_object("7.2.12", "one", &["version=1.0"]);
        assert_eq!(differing_sections(&object, &object.clone()), [""; 0]);
    }

    #[test]
    fn changed_section_is_named() {
        let [one, other] =
            ["version=1.0", "version=2.0"].map(|entry| kernel_object("7.2.12", "one", &[entry]));
        assert_eq!(differing_sections(&one, &other), [".modinfo"]);
    }

    #[test]
    fn changed_header_is_named() {
        let one = kernel_object("7.2.12", "one", &[]);
        let mut other = one.clone();
        other[8] ^= 1; // padding
        assert_eq!(differing_sections(&one, &other), ["headers"]);
    }

    #[test]
    fn signatures_are_not_compared() {
        let plain = kernel_object("7.2.12", "one", &[]);
        let signed = |signature: &[u8]| {
            let length = u32::try_from(signature.len()).expect("a short signature").to_be_bytes();
            [&plain, signature, &[0; 8], &length, super::MAGIC].concat()
        };
        assert_eq!(differing_sections(&plain, &signed(b"by dkms")), [""; 0]);
        assert_eq!(differing_sections(&signed(b"by us"), &signed(b"by dkms")), [""; 0]);
        // The length is wrong.
        let broken = [&plain[..], b"\xff\xff\xff\xff", super::MAGIC].concat();
        assert_eq!(differing_sections(&plain, &broken), ["headers"]);
    }

    #[test]
    fn files_that_are_not_elf_differ_in_their_headers() {
        assert_eq!(differing_sections(b"one", b"other"), ["headers"]);
    }
}
