//! dkms's settings, in `framework.conf` and `framework.conf.d` (dkms-behaviour 4.7).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Trees;
use crate::names::KernelRelease;
use crate::objects::CompressionOptions;
use crate::os::bash::{BashReader, expanded};

/// The names that are taken over; nothing else in these files has an effect on us.
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

/// What dkms's own settings say. Texts are as written; unset and empty are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Framework {
    /// Where module sources are, if not in `/usr/src`; absolute.
    pub source_tree: Option<PathBuf>,
    /// The dkms tree, if not `/var/lib/dkms`; absolute.
    pub dkms_tree: Option<PathBuf>,
    /// Where the kernels' directories are, if not in `/usr/lib/modules`; absolute.
    pub install_tree: Option<PathBuf>,
    /// Where archives are unpacked.
    pub tmp_location: Option<PathBuf>,
    /// Say which commands are run.
    pub verbose: bool,
    /// Install links instead of copies.
    pub symlink_modules: bool,
    /// Load what was installed for the running kernel.
    pub modprobe_on_install: bool,
    /// How many jobs a build may run; dkms takes 0 for "as many as there are".
    pub parallel_jobs: Option<usize>,
    /// `compress_gzip_opts` and its like, as words.
    pub(crate) compression: CompressionOptions,
    /// A file whose exported variables builds get.
    pub build_environment: Option<PathBuf>,
    /// A command for the shell, run after something has changed.
    pub post_transaction: Option<String>,
    /// The program that signs.
    pub sign_file: Option<PathBuf>,
    /// The private key to sign with.
    pub mok_signing_key: Option<PathBuf>,
    /// The certificate that belongs to it.
    pub mok_certificate: Option<PathBuf>,
    /// Whether to sign at all, as written.
    pub try_sign_modules: Option<String>,
}

impl Framework {
    /// Reads the files in `trees.etc`. Their values may name `$kernelver` where a kernel is given.
    /// What cannot be read or understood is reported and otherwise as if it were not there.
    pub(crate) fn read(
        trees: &Trees,
        kernel: Option<&KernelRelease>,
        reader: &mut BashReader,
        problems: &mut Vec<String>,
    ) -> Self {
        // Empty before: what the caller happens to export by these names is no setting.
        let mut given: BTreeMap<_, _> =
            NAMES.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        if let Some(kernel) = kernel {
            given.insert("kernelver".to_owned(), kernel.to_string());
        }
        let CompressionOptions { gzip, xz, zstd } = CompressionOptions::default();
        for (name, words) in [("gzip", gzip), ("xz", xz), ("zstd", zstd)] {
            given.insert(format!("compress_{name}_opts"), words.join(" "));
        }
        for file in files(&trees.etc) {
            let set = given.iter().map(|(name, text)| (name.clone(), OsString::from(text)));
            let variables = match reader.read(&file, set.collect(), &NAMES) {
                Ok(reply) => reply.variables,
                Err(error) => {
                    problems.push(Failure::from(&error).to_string());
                    continue;
                }
            };
            for (name, index, text) in variables.into_iter().filter(|(_, index, _)| index == "0") {
                match String::from_utf8(text) {
                    // As in a dkms.conf: a DOS line end goes, and variables stand for themselves.
                    Ok(text) => {
                        let text = text.strip_suffix('\r').unwrap_or(&text);
                        let text = expanded(text, |name| given.get(name).map(String::as_str));
                        given.insert(name, text);
                    }
                    Err(_) => problems.push(format!(
                        "{}: the value of {name}[{index}] is not UTF-8",
                        file.display()
                    )),
                }
            }
        }
        Self::from_texts(&given, problems)
    }

    fn from_texts(texts: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Self {
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
            problems.push(format!(
                "{name} in framework.conf must be an absolute path without ..: {}",
                path.display()
            ));
            None
        };
        let (source_tree, dkms_tree) = (tree("source_tree"), tree("dkms_tree"));
        let install_tree = tree("install_tree");
        let parallel_jobs = text("parallel_jobs").and_then(|jobs| match jobs.trim().parse() {
            Ok(jobs) => Some(jobs),
            Err(_) => {
                problems.push(format!("parallel_jobs in framework.conf is no number: {jobs:?}"));
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
        }
    }
}

/// `framework.conf`, then the `*.conf` of `framework.conf.d` as a shell in the C locale lists them.
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
    files.retain(|file| file.exists());
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_the_man_page() {
        let page = include_str!("../../../../../man/alpm-dkms.7");
        let entries = page.lines().filter_map(|line| line.strip_prefix(".It Ic "));
        let told: Vec<&str> = entries.flat_map(|entry| entry.split(" , ")).collect();
        for name in NAMES {
            assert!(told.contains(&name), "{name}");
        }
    }
}
