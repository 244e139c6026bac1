//! Creates a kernel object of a few kilobytes without a compiler.

use std::iter;

/// The offset of `.modinfo` in the file, which is also its size, in bytes. The fake compiler writes
/// the section with a single `dd bs=1024 seek=1`.
pub(crate) const MODINFO: usize = 1024;

/// The machine type in the ELF header (`e_machine`).
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    link: u32,
    info: u32,
    entry_size: u64,
    content: Vec<u8>,
}

impl Section {
    fn plain(name: &'static str, flags: u64, content: Vec<u8>) -> Self {
        Self { name, kind: PROGBITS, flags, link: 0, info: 0, entry_size: 0, content }
    }
}

/// Returns a relocatable ELF object that kmod, strip and readers of `.modinfo` accept as a kernel
/// module.
///
/// The object is built for `release`, exports and imports no symbols, and has one debug section for
/// strip to remove. `more` are additional `.modinfo` entries, such as `version=1.0`.
#[must_use]
pub fn kernel_object(release: &str, name: &str, more: &[&str]) -> Vec<u8> {
    let vermagic = format!("vermagic={release} SMP preempt mod_unload ");
    let name = format!("name={name}");
    let mut modinfo = Vec::new();
    for entry in [vermagic.as_str(), &name, "depends=", "license=GPL"].iter().chain(more) {
        modinfo.extend(entry.bytes());
        modinfo.push(0);
    }
    modinfo.resize(MODINFO, 0);
    elf(modinfo)
}

fn elf(modinfo: Vec<u8>) -> Vec<u8> {
    let names = b"\0init_module\0cleanup_module\0".to_vec();
    let mut symbols = vec![0; 24]; // the first entry is unused
    for name_at in [1u32, 13] {
        symbols.extend(name_at.to_le_bytes());
        symbols.extend([0x12, 0]); // type: global function
        symbols.extend(2u16.to_le_bytes()); // section: .text
        symbols.extend([0; 16]); // offset 0 in the section
    }
    let mut sections = vec![
        Section::plain(".modinfo", 2, modinfo),
        Section::plain(".text", 6, vec![0xc3; 16]),
        Section::plain(".gnu.linkonce.this_module", 3, vec![0; 64]),
        Section::plain(".debug_info", 0, vec![0xdd; 64]),
        Section {
            name: ".symtab",
            kind: SYMTAB,
            flags: 0,
            link: 6,
            info: 1,
            entry_size: 24,
            content: symbols,
        },
        Section {
            name: ".strtab",
            kind: STRTAB,
            flags: 0,
            link: 0,
            info: 0,
            entry_size: 0,
            content: names,
        },
    ];
    let all_names: Vec<_> =
        iter::once("").chain(sections.iter().map(|it| it.name)).chain([".shstrtab"]).collect();
    let table: Vec<u8> = all_names.iter().flat_map(|name| name.bytes().chain([0])).collect();
    sections.push(Section {
        name: ".shstrtab",
        kind: STRTAB,
        flags: 0,
        link: 0,
        info: 0,
        entry_size: 0,
        content: table,
    });
    lay_out(&sections)
}

/// Returns an object file: the header, the sections in order from the offset [`MODINFO`], and the
/// section table.
fn lay_out(sections: &[Section]) -> Vec<u8> {
    let mut file = vec![0; MODINFO];
    let mut table = vec![0; 64]; // the first entry is unused
    let mut name_at = 1u32;
    for section in sections {
        file.resize(file.len().next_multiple_of(16), 0);
        table.extend(name_at.to_le_bytes());
        table.extend(section.kind.to_le_bytes());
        table.extend(section.flags.to_le_bytes());
        table.extend([0; 8]);
        table.extend((file.len() as u64).to_le_bytes());
        table.extend((section.content.len() as u64).to_le_bytes());
        table.extend(section.link.to_le_bytes());
        table.extend(section.info.to_le_bytes());
        table.extend(1u64.to_le_bytes());
        table.extend(section.entry_size.to_le_bytes());
        file.extend(&section.content);
        name_at += section.name.len() as u32 + 1;
    }
    file.resize(file.len().next_multiple_of(16), 0);
    let table_at = file.len() as u64;
    file.extend(table);

    let count = sections.len() as u16 + 1;
    let mut header = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64-bit, little-endian
    header.extend(1u16.to_le_bytes()); // relocatable
    header.extend(MACHINE.to_le_bytes());
    header.extend(1u32.to_le_bytes());
    header.extend([0; 16]); // no entry point, no program headers
    header.extend(table_at.to_le_bytes());
    header.extend([0; 4]);
    header.extend([64u16, 0, 0, 64, count, count - 1].iter().flat_map(|it| it.to_le_bytes()));
    file[..header.len()].copy_from_slice(&header);
    file
}
