//! Reads the `.modinfo` section of a kernel object.

use std::fs::File;
use std::path::Path;

use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSection};

use super::uncompressed::read_uncompressed;
use crate::os::durable::FileError;
use crate::os::process::{Environment, Tools};

/// Fields of an object's `.modinfo` section. A field that the section does not contain is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModInfo {
    /// The kernel release and the build options, which the kernel checks before loading the module.
    pub(crate) vermagic: Option<String>,
    /// The version that the source declares with `MODULE_VERSION`.
    pub(crate) version: Option<String>,
    /// A checksum of the source files, recorded by modpost.
    pub(crate) srcversion: Option<String>,
}

impl ModInfo {
    /// Returns the kernel release for which the object was built: the first word of the vermagic.
    #[must_use]
    pub(crate) fn vermagic_release(&self) -> Option<&str> {
        self.vermagic.as_deref()?.split_ascii_whitespace().next()
    }

    /// Parses the content of a `.modinfo` section: NUL-terminated `key=value` strings.
    ///
    /// If a key is repeated, the first value is used, as in the kernel.
    fn from_section(section: &[u8]) -> Self {
        let mut info = Self::default();
        for field in section.split(|byte| *byte == 0) {
            let field = String::from_utf8_lossy(field);
            let Some((key, value)) = field.split_once('=') else { continue };
            let place = match key {
                "vermagic" => &mut info.vermagic,
                "version" => &mut info.version,
                "srcversion" => &mut info.srcversion,
                _ => continue,
            };
            place.get_or_insert_with(|| value.to_owned());
        }
        info
    }
}

/// The error for a file that is not a kernel object or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadObject {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not an ELF object.
    #[error("{path}: not a kernel object: {reason}")]
    NotElf {
        path: String,
        /// The ELF reader's message.
        reason: String,
    },
    /// The file is an ELF object, but not a module.
    #[error("{path}: not a kernel object: no .modinfo section")]
    NoModInfo { path: String },
}

/// Reads the `.modinfo` section of the uncompressed object `path`.
///
/// # Errors
/// [`BadObject`] unless `path` is a readable ELF file with a `.modinfo` section.
pub(crate) fn read_modinfo(path: &Path) -> Result<ModInfo, BadObject> {
    let file = File::open(path).map_err(FileError::when("read", path))?;
    // The cache reads only the required parts: with debug information, nvidia's object has
    // hundreds of MB.
    parse_modinfo(&ReadCache::new(file), &path.display().to_string())
}

/// Reads the `.modinfo` section of a stored object, which may be compressed. Returns `None` on
/// failure.
pub(crate) fn read_stored_modinfo(
    tools: &Tools,
    env: &Environment,
    object: &Path,
) -> Option<ModInfo> {
    parse_modinfo(&*read_uncompressed(tools, env, object)?, "").ok()
}

/// Reads the `.modinfo` section of the uncompressed object `data`. `path` names the object in
/// errors.
///
/// # Errors
/// [`BadObject`] unless `data` is an ELF file with a `.modinfo` section.
pub(crate) fn parse_modinfo<'data>(
    data: impl ReadRef<'data>,
    path: &str,
) -> Result<ModInfo, BadObject> {
    let not_elf = |error: object::Error| BadObject::NotElf {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let elf = object::File::parse(data).map_err(not_elf)?;
    let section = elf
        .section_by_name(".modinfo")
        .ok_or_else(|| BadObject::NoModInfo { path: path.to_owned() })?;
    Ok(ModInfo::from_section(section.data().map_err(not_elf)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::fs;

    use crate::os::process::Program;

    #[test]
    fn parses_nul_terminated_fields() {
        let info = ModInfo::from_section(
            b"license=GPL\0version=0.15.4\0\0version=later\0depends=videodev,a\0no field\0\
              vermagic=7.2.12-arch1-1 SMP preempt mod_unload \0name=v4l2loopback\0srcversion=A=B",
        );
        assert_eq!(info.version.as_deref(), Some("0.15.4"));
        assert_eq!(info.srcversion.as_deref(), Some("A=B"));
        assert_eq!(info.vermagic_release(), Some("7.2.12-arch1-1"));
    }

    /// Returns a 64-bit little-endian relocatable ELF object with the sections `.modinfo` and
    /// `.shstrtab`. Assembled by hand, because the tests must not need a compiler.
    fn tiny_object(modinfo: &[u8]) -> Vec<u8> {
        const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
        let names_at = 64 + modinfo.len();
        let headers_at = (names_at + NAMES.len()).next_multiple_of(8);
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([1, 0, 62, 0, 1, 0, 0, 0]); // relocatable, x86-64, version
        elf.extend([0; 16]); // no entry point, no segments
        elf.extend((headers_at as u64).to_le_bytes());
        elf.extend([0; 4]);
        for half in [64u16, 0, 0, 64, 3, 2] {
            elf.extend(half.to_le_bytes());
        }
        elf.extend(modinfo);
        elf.extend(NAMES);
        elf.resize(headers_at + 64, 0); // the first section header is empty
        for (name, kind, at, size) in
            [(1u32, 1u32, 64, modinfo.len()), (10, 3, names_at, NAMES.len())]
        {
            elf.extend(name.to_le_bytes());
            elf.extend(kind.to_le_bytes());
            elf.extend([0; 16]);
            elf.extend((at as u64).to_le_bytes());
            elf.extend((size as u64).to_le_bytes());
            elf.extend([0; 24]);
        }
        elf
    }

    #[test]
    fn reads_the_section_of_an_object() {
        let info = parse_modinfo(&*tiny_object(b"vermagic=6.1 SMP\0"), "a.ko").unwrap();
        assert_eq!(info.vermagic_release(), Some("6.1"));
    }

    #[rstest]
    #[case::plain("a.ko", None)]
    #[case::gzip("a.ko.gz", Some("gzip"))]
    #[case::xz("a.ko.xz", Some("xz"))]
    #[case::zstd("a.ko.zst", Some("zstd"))]
    fn reads_stored_objects(#[case] name: &str, #[case] compressor: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let (env, plain) = (Environment::fixed(), dir.path().join("a.ko"));
        fs::write(&plain, tiny_object(b"version=1.2\0")).unwrap();
        if let Some(compressor) = compressor {
            let ended = Program::new(compressor, &env).arg("-q").arg(&plain).run().unwrap();
            assert!(ended.success(), "{ended:?}");
        }
        let info = read_stored_modinfo(&Tools::default(), &env, &dir.path().join(name));
        assert_eq!(info.and_then(|info| info.version).as_deref(), Some("1.2"));
        fs::write(dir.path().join(name), "damaged").unwrap();
        assert_eq!(read_stored_modinfo(&Tools::default(), &env, &dir.path().join(name)), None);
    }

    #[test]
    fn errors_explain_why_a_file_is_not_an_object() {
        let message = |bytes: &[u8]| parse_modinfo(bytes, "a.ko").unwrap_err().to_string();
        assert!(message(b"hello").starts_with("a.ko: not a kernel object: "));
        let other = tiny_object(b"x")
            .iter()
            .map(|b| if *b == b'm' { b'M' } else { *b })
            .collect::<Vec<_>>();
        assert_eq!(message(&other), "a.ko: not a kernel object: no .modinfo section");
    }

    proptest! {
        #[test]
        fn never_panics_on_garbage(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse_modinfo(&*bytes, "garbage");
        }

        #[test]
        fn never_panics_on_a_damaged_object(
            at in 0usize..300, to in any::<u8>(), cut in 0usize..300,
        ) {
            let mut elf = tiny_object(b"vermagic=6.1 SMP\0name=a\0");
            let last = elf.len() - 1;
            elf[at.min(last)] = to;
            elf.truncate(elf.len().saturating_sub(cut / 2));
            let _ = parse_modinfo(&*elf, "damaged");
        }
    }
}
