//! Reads the symbols that a kernel object needs and those that it exports.

use std::collections::{BTreeMap, BTreeSet};

use object::{Endianness, Object, ObjectSection, ObjectSymbol};

/// The prefix of the symbols that `EXPORT_SYMBOL` defines (`include/linux/export.h`).
const EXPORT: &str = "__ksymtab_";

/// The size in bytes of the kernel's `struct modversion_info`: an `unsigned long`, and a name that
/// fills the rest.
const VERSION: usize = 64;

/// A symbol that the kernel does not look up when it loads a module (`scripts/mod/modpost.c`).
const IGNORED: &str = "_GLOBAL_OFFSET_TABLE_";

/// The symbols of one kernel object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Symbols {
    /// The symbols that the kernel or other modules must export, each with the CRC that the object
    /// was built with. The CRC is 0 if the object contains none. Omits weak symbols.
    pub(crate) needed: BTreeMap<String, u32>,
    pub(crate) exported: BTreeSet<String>,
}

impl Symbols {
    /// Reads the symbols of an uncompressed object. Returns `None` if it is not an ELF file.
    pub(crate) fn read(object: &[u8]) -> Option<Self> {
        let elf = object::File::parse(object).ok()?;
        let versions = elf.section_by_name("__versions").and_then(|it| it.data().ok());
        let long = if elf.is_64() { 8 } else { 4 };
        let versions = versions.map(|data| crcs(data, long, elf.endianness())).unwrap_or_default();
        let mut symbols = Self::default();
        for symbol in elf.symbols() {
            let Ok(name) = symbol.name() else { continue };
            if symbol.is_undefined() && !symbol.is_weak() && !name.is_empty() && name != IGNORED {
                let crc = versions.get(name).copied().unwrap_or_default();
                symbols.needed.insert(name.to_owned(), crc);
            }
            symbols.exported.extend(name.strip_prefix(EXPORT).map(str::to_owned));
        }
        Some(symbols)
    }
}

/// Parses a `__versions` section. `long` is the size of an `unsigned long`.
fn crcs(section: &[u8], long: usize, endianness: Endianness) -> BTreeMap<String, u32> {
    let entry = |entry: &[u8]| {
        let (crc, name) = entry.split_at_checked(long)?;
        // A CRC has 32 bits on every architecture.
        let crc = match endianness {
            Endianness::Little => crc.first_chunk().map(|it| u32::from_le_bytes(*it)),
            Endianness::Big => crc.last_chunk().map(|it| u32::from_be_bytes(*it)),
        };
        let name = name.split(|byte| *byte == 0).next()?;
        Some((std::str::from_utf8(name).ok()?.to_owned(), crc?))
    };
    section.chunks_exact(VERSION).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_crcs() {
        let mut section = Vec::new();
        for (crc, name) in [(0x0102_0304_u64, "printk"), (5, "kfree")] {
            section.extend(crc.to_le_bytes());
            section.extend(format!("{name:\0<56}").into_bytes());
        }
        let read = crcs(&section, 8, Endianness::Little);
        assert_eq!(
            read,
            BTreeMap::from([("kfree".to_owned(), 5), ("printk".to_owned(), 0x0102_0304)])
        );
    }

    proptest! {
        #[test]
        fn never_panics_on_garbage(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Symbols::read(&bytes);
            let _ = crcs(&bytes, 8, Endianness::Big);
        }
    }
}
