//! dkms's own settings in `framework.conf` and `framework.conf.d` (dkms-behaviour 4.7).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Trees;
use crate::names::KernelRelease;
use crate::objects::CompressionOptions;
use crate::os::bash::{BashReader, expanded};
use crate::os::pin::redacted;

/// The names of the settings that are read from dkms's files. All other variables are ignored.
const NAMES: [&str; 17] = [
    "source_tree",
    "dkms_tree",
    "install_tree",
    "tmp_location",
    "verbose",
    "symlink_modules",
    "modprobe_on_install",
    "parallel_jobs",
    "compress_gzip_opts",
    "compress_xz_opts",
    "compress_zstd_opts",
    "build_environment",
    "post_transaction",
    "sign_file",
    "mok_signing_key",
    "mok_certificate",
    "try_sign_modules",
];

/// The settings in dkms's own files. An empty value counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Framework {
    /// The absolute path of the source tree, or `None` for `/usr/src`.
    pub source_tree: Option<PathBuf>,
    /// The absolute path of the dkms tree, or `None` for `/var/lib/dkms`.
    pub dkms_tree: Option<PathBuf>,
    /// The absolute path of the install tree, or `None` for `/usr/lib/modules`.
    pub install_tree: Option<PathBuf>,
    /// The directory for temporary files, in which archives are unpacked.
    pub tmp_location: Option<PathBuf>,
    /// Whether to print every command that is run.
    pub verbose: bool,
    /// Whether to install objects as links to the dkms tree instead of copies.
    pub symlink_modules: bool,
    /// Whether to load the modules installed for the running kernel.
    pub modprobe_on_install: bool,
    /// The maximum number of parallel jobs; 0 means one per processor.
    pub parallel_jobs: Option<usize>,
    /// The words of `compress_gzip_opts`, `compress_xz_opts` and `compress_zstd_opts`.
    pub(crate) compression: CompressionOptions,
    /// The shell file whose exported variables are added to the environment of builds.
    pub build_environment: Option<PathBuf>,
    /// The shell command to run after modules have been installed or removed.
    pub post_transaction: Option<String>,
    /// The program that signs objects.
    pub sign_file: Option<PathBuf>,
    /// The private key that signs objects.
    pub mok_signing_key: Option<PathBuf>,
    /// The certificate of the private key.
    pub mok_certificate: Option<PathBuf>,
    /// `true` to sign always or `false` to sign never. With any other value, or `None`, modules are
    /// signed except in a chroot.
    pub try_sign_modules: Option<String>,
    /// The first file that could not be read to its end. Settings may be missing.
    pub(crate) unread: Option<PathBuf>,
    /// The first file in which bash reported an error. Settings may be missing even if bash read
    /// the file to its end.
    pub(crate) faulty: Option<PathBuf>,
}

impl Framework {
    /// Reads the files in `trees.etc`. If `kernel` is given, replaces `$kernelver` in all values
    /// with that release.
    ///
    /// Ignores invalid files and values. Adds a message about each invalid file or value to
    /// `problems`, and also bash's own messages about the files.
    pub(crate) fn read(
        trees: &Trees,
        kernel: Option<&KernelRelease>,
        reader: &mut BashReader,
        problems: &mut Vec<String>,
    ) -> Self {
        // Clear these names first, since a variable in the environment is not a setting.
        let mut given: BTreeMap<_, _> =
            NAMES.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        if let Some(kernel) = kernel {
            given.insert("kernelver".to_owned(), kernel.to_string());
        }
        let CompressionOptions { gzip, xz, zstd } = CompressionOptions::default();
        for (name, words) in [("gzip", gzip), ("xz", xz), ("zstd", zstd)] {
            given.insert(format!("compress_{name}_opts"), words.join(" "));
        }
        let mut origins = BTreeMap::new();
        let (mut unread, mut faulty) = (None, None);
        for file in files(&trees.etc) {
            let set = given.iter().map(|(name, text)| (name.clone(), OsString::from(text)));
            let reply = match reader.read(&file, set.collect(), &NAMES) {
                Ok(reply) => reply,
                Err(error) => {
                    problems.push(redacted(&Failure::from(&error).to_string()));
                    unread.get_or_insert(file);
                    continue;
                }
            };
            if let Some(complaint) = complaint(&file, &reply.complaint) {
                problems.push(complaint);
                faulty.get_or_insert_with(|| file.clone());
                if !reader.can_parse(&file) {
                    unread.get_or_insert_with(|| file.clone());
                }
            }
            let variables = reply.variables.into_iter();
            for (name, index, text) in variables.filter(|(_, index, _)| index == "0") {
                match String::from_utf8(text) {
                    // As in a dkms.conf, remove a DOS line ending and expand variables once more.
                    Ok(text) => {
                        let text = text.strip_suffix('\r').unwrap_or(&text);
                        let text = expanded(text, |name| given.get(name).map(String::as_str));
                        if given.get(&name) != Some(&text) {
                            origins.insert(name.clone(), file.clone());
                        }
                        given.insert(name, text);
                    }
                    Err(_) => {
                        problems
                            .push(format!("{}: {name}[{index}]: not valid UTF-8", file.display()));
                        faulty.get_or_insert_with(|| file.clone());
                    }
                }
            }
        }
        Self { unread, faulty, ..Self::from_texts(&given, &origins, problems) }
    }

    /// Interprets the values `texts`. `origins` maps the name of a value to the file that set it.
    fn from_texts(
        texts: &BTreeMap<String, String>,
        origins: &BTreeMap<String, PathBuf>,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut invalid = |name: &str, value: &str, expected: &str| {
            let file = origins
                .get(name)
                .map_or("framework.conf".into(), |file| file.display().to_string());
            problems
                .push(format!("{file}: invalid value for {name}: {value:?} (expected {expected})"));
        };
        let text = |name: &str| texts.get(name).filter(|text| !text.is_empty()).cloned();
        let words = |name: &str| {
            let words = texts.get(name).map(String::as_str).unwrap_or_default();
            words.split_whitespace().map(str::to_owned).collect()
        };
        let path = |name: &str| text(name).map(PathBuf::from);
        let mut tree = |name: &str| {
            let path = path(name)?;
            if path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..") {
                return Some(path);
            }
            invalid(name, &path.to_string_lossy(), "an absolute path without ..");
            None
        };
        let (source_tree, dkms_tree) = (tree("source_tree"), tree("dkms_tree"));
        let install_tree = tree("install_tree");
        let parallel_jobs = text("parallel_jobs").and_then(|jobs| match jobs.trim().parse() {
            Ok(jobs) => Some(jobs),
            Err(_) => {
                invalid("parallel_jobs", &jobs, "a number");
                None
            }
        });
        Self {
            source_tree,
            dkms_tree,
            install_tree,
            tmp_location: path("tmp_location"),
            verbose: text("verbose").is_some(),
            symlink_modules: text("symlink_modules").is_some(),
            modprobe_on_install: text("modprobe_on_install").is_some(),
            parallel_jobs,
            compression: CompressionOptions {
                gzip: words("compress_gzip_opts"),
                xz: words("compress_xz_opts"),
                zstd: words("compress_zstd_opts"),
            },
            build_environment: path("build_environment"),
            post_transaction: text("post_transaction"),
            sign_file: path("sign_file"),
            mok_signing_key: path("mok_signing_key"),
            mok_certificate: path("mok_certificate"),
            try_sign_modules: text("try_sign_modules"),
            unread: None,
            faulty: None,
        }
    }
}

/// Returns the existing settings files in the order of reading: `framework.conf`, followed by
/// `framework.conf.d/*.conf` in byte order.
fn files(etc: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(etc.join("framework.conf.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.ends_with(b".conf") && !name.starts_with(b".")
        })
        .collect();
    files.sort();
    files.insert(0, etc.join("framework.conf"));
    // A file that exists but cannot be read is an error. A link to /dev/null is an empty file.
    files.retain(|file| {
        let absent = fs::symlink_metadata(file).is_err_and(|error| error.kind() == NotFound);
        !absent && fs::canonicalize(file).ok().as_deref() != Some(Path::new("/dev/null"))
    });
    files
}

/// Returns the first lines of what bash wrote to standard error while it evaluated `file`, or
/// `None` if it reported no error. A locale that is not installed is not an error of the file.
pub(super) fn complaint(file: &Path, written: &str) -> Option<String> {
    let lines = written.lines().filter(|line| !line.contains(": warning: setlocale: "));
    let lines: Vec<_> = lines.take(5).collect();
    let file = file.display().to_string();
    let text = redacted(&lines.join("\n  "));
    let first = *lines.first()?;
    Some(if first.starts_with(&file) { text } else { format!("{file}: {text}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_page_lists_every_setting() {
        let page = include_str!("../../../../../man/alpm-dkms.7");
        let entries = page.lines().filter_map(|line| line.strip_prefix(".It Ic "));
        let listed: Vec<&str> = entries.flat_map(|entry| entry.split(" , ")).collect();
        for name in NAMES {
            assert!(listed.contains(&name), "{name}");
        }
    }
}
