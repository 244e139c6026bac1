//! The source of a module: its dkms.conf as text and as values, and its other files.

use std::fs;
use std::path::{Path, PathBuf};

use super::Place;
use super::conf_text::ConfText;
use crate::conf::{Conf, ConfReply, Values, read_source};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::os::bash::BashError;

/// The name of the conf in a source directory.
const CONF: &str = "dkms.conf";

/// The maximum size in bytes of a file that is searched.
const MAX_SIZE: u64 = 1 << 20;

/// The source of a module and the meaning of its dkms.conf.
pub(super) struct Source {
    /// The source directory, without symbolic links.
    pub(super) dir: PathBuf,
    /// Whether the directory is in a source tree, such as `/usr/src` or `pkg/usr/src`.
    pub(super) in_source_tree: bool,
    /// The text of dkms.conf.
    pub(super) text: ConfText,
    /// The values for the kernel; empty if dkms.conf cannot be evaluated.
    pub(super) values: Values,
    /// The values for another kernel of the same version; empty if dkms.conf cannot be evaluated
    /// for that kernel.
    pub(super) other_values: Values,
    /// The interpreted values; `None` if the engine refuses them.
    pub(super) conf: Option<Conf>,
    /// The reasons why the engine refuses the dkms.conf.
    pub(super) refusals: Vec<String>,
    /// bash's messages about dkms.conf, each `FILE: line N: MESSAGE`.
    pub(super) complaints: Vec<String>,
    /// The deprecated directives that are set.
    pub(super) deprecated: Vec<&'static str>,
    /// The paths of the source in the dkms tree, which MAKE may name.
    pub(super) in_dkms_tree: Vec<PathBuf>,
}

impl Source {
    /// Reads the source in `dir` and evaluates its dkms.conf for `kernel`.
    ///
    /// # Errors
    /// See [`lint`](super::lint).
    pub(super) fn read(
        machine: &Machine,
        dir: &Path,
        kernel: &KernelRelease,
    ) -> Result<Self, Failure> {
        let no_conf = || Failure::new(9, format!("{}: no dkms.conf", dir.display()));
        let dir = dir.canonicalize().map_err(|_| no_conf())?;
        let text = fs::read(dir.join(CONF)).map_err(|_| no_conf())?;
        let text = ConfText::new(&String::from_utf8_lossy(&text));
        let placeholder = "unnamed/0".parse().map_err(|_| no_conf())?;
        let read = |id: &ModuleId, kernel: &KernelRelease| {
            let kernel = Kernel::of_release(&machine.trees, kernel.clone());
            read_source(machine, id, &kernel, &dir)
        };
        let (id, reply) = match read(&placeholder, kernel) {
            Ok(reply) => match id_of(&reply.values) {
                Some(id) => (id.clone(), read(&id, kernel)),
                None => (placeholder, Ok(reply)),
            },
            Err(error) => (placeholder, Err(error)),
        };
        let other = format!("{kernel}-other").parse().map(|other| read(&id, &other));
        let other_values = other.map_or_else(|_| Values::default(), values_of);
        let mut refusals = Vec::new();
        let reply = match reply {
            Ok(reply) => reply,
            Err(error @ BashError::NoReader { .. }) => return Err(Failure::from(&error)),
            Err(error) => {
                refusals.extend(problems(error, &dir));
                ConfReply::default()
            }
        };
        let conf = match Conf::from_values(&reply.values, Path::new(CONF), kernel) {
            Ok(conf) => {
                let strictly = conf.check_strictly(Path::new(CONF));
                refusals.extend(strictly.err().into_iter().flat_map(|why| problems(why, &dir)));
                Some(conf)
            }
            // If bash did not evaluate the dkms.conf to its end, the values are incomplete.
            Err(_) if !refusals.is_empty() => None,
            Err(error) => {
                refusals.extend(problems(error, &dir));
                None
            }
        };
        let version = machine.trees.source_link(&id).parent().map(Path::to_owned);
        let in_tree = |name| version.as_ref().map(|version| version.join(name));
        Ok(Self {
            in_source_tree: dir.parent().is_some_and(|parent| {
                parent.ends_with("usr/src") || parent == machine.trees.source
            }),
            in_dkms_tree: ["build", "source"].into_iter().filter_map(in_tree).collect(),
            text,
            values: reply.values,
            other_values,
            conf,
            refusals,
            complaints: reply.complaints.into_iter().flat_map(|(_, messages)| messages).collect(),
            deprecated: reply.deprecated.into_iter().map(|(name, _)| name).collect(),
            dir,
        })
    }

    /// Returns the place of `line` in dkms.conf.
    pub(super) fn in_conf(&self, line: Option<usize>) -> Place {
        Place { file: CONF.into(), line }
    }

    /// Returns the place in dkms.conf that sets the element of `directive` at `index`.
    pub(super) fn at(&self, directive: &str, index: usize) -> Place {
        self.in_conf(self.text.line_of(directive, index))
    }

    /// Returns the text of a file of the source. Returns `None` if it is missing, large or binary.
    pub(super) fn file(&self, path: &Path) -> Option<String> {
        let path = self.dir.join(path);
        let meta = path.metadata().ok()?;
        let bytes = (meta.is_file() && meta.len() <= MAX_SIZE).then(|| fs::read(&path).ok())??;
        (!bytes.contains(&0)).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns true if any element of `directive` is set.
    pub(super) fn sets(&self, directive: &str) -> bool {
        self.values.elements(directive).any(|(_, text)| !text.is_empty())
    }

    /// Returns true if a script or a patch can change the Makefiles before make reads them.
    pub(super) fn is_changed_before_make(&self) -> bool {
        self.sets("PRE_BUILD") || self.sets("PATCH")
    }

    /// Returns true if the element of MAKE at `index` is different for another kernel.
    pub(super) fn make_depends_on_kernel(&self, index: usize) -> bool {
        self.values.text("MAKE", index) != self.other_values.text("MAKE", index)
    }
}

fn id_of(values: &Values) -> Option<ModuleId> {
    let text = |name| values.text(name, 0);
    let (name, version) = (text("PACKAGE_NAME")?, text("PACKAGE_VERSION")?);
    Some(ModuleId { name: name.parse().ok()?, version: version.parse().ok()? })
}

fn values_of(reply: Result<ConfReply, BashError>) -> Values {
    reply.map(|reply| reply.values).unwrap_or_default()
}

/// Returns the problems that an error reports, without the path of the dkms.conf in `dir`.
fn problems(error: BashError, dir: &Path) -> Vec<String> {
    match error {
        BashError::Invalid { problems, .. } => problems,
        error => {
            let text = error.to_string();
            let file = format!("{}: ", dir.join(CONF).display());
            let lines: Vec<_> = text.strip_prefix(&file).unwrap_or(&text).lines().collect();
            vec![lines.join(" ")]
        }
    }
}
