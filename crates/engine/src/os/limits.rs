//! The limits of this process and its children.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit on open files that [`ensure_open_files`] sets for this process and its children,
/// unless the limit is already higher.
const USUAL_FILES: u64 = 1024;

/// The lowest limit on open files that is enough for reading confs and building modules.
const NEEDED_FILES: u64 = 256;

/// Raises the limit on open files to 1024, or as far as possible. Leaves a higher limit unchanged.
///
/// # Errors
/// A message with the limit, if the limit is still too low.
pub fn ensure_open_files() -> Result<(), String> {
    let limit = || getrlimit(Resource::RLIMIT_NOFILE);
    let Ok((soft, hard)) = limit() else { return Ok(()) };
    if soft >= USUAL_FILES {
        return Ok(());
    }
    // Only root may raise the hard limit.
    let both = setrlimit(Resource::RLIMIT_NOFILE, USUAL_FILES, hard.max(USUAL_FILES));
    if both.is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    match limit() {
        Ok((soft, _)) if soft < NEEDED_FILES => Err(format!(
            "limit of open files too low: {soft} (expected at least {NEEDED_FILES})\n  \
             run: ulimit -n {USUAL_FILES}"
        )),
        _ => Ok(()),
    }
}
