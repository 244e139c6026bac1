//! A jobserver of GNU make: a FIFO with one byte for each job that may run.
//!
//! Every make runs one job without a token and takes a token for each further job (POSIX Jobserver
//! Interaction, GNU make manual). Unlike a pipe, a FIFO can be opened by its path, even in a
//! namespace with its own /proc.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::poll::PollFlags;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::NamedTempFile;

use super::process::ready;

/// A token in the FIFO. Its value has no meaning.
const TOKEN: &[u8] = b"+";

/// A jobserver. Dropping it removes the FIFO.
#[derive(Debug)]
pub(crate) struct Jobserver(NamedTempFile<Arc<File>>);

impl Jobserver {
    /// Creates a jobserver with a number of tokens in the existing directory `dir`.
    ///
    /// # Errors
    /// An error if the FIFO cannot be created.
    pub(crate) fn create_in(dir: &Path, tokens: usize) -> io::Result<Self> {
        let fifo = tempfile::Builder::new().prefix("jobserver-").make_in(dir, |path| {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            // Opening a FIFO for reading and writing never blocks.
            File::options().read(true).write(true).open(path).map(Arc::new)
        })?;
        let jobserver = Self(fifo);
        (0..tokens).try_for_each(|_| jobserver.add())?;
        Ok(jobserver)
    }

    /// Returns the path of the FIFO.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Waits for a token and takes it.
    pub(crate) fn acquire(&self) -> io::Result<Token> {
        let file = Arc::clone(self.0.as_file());
        (&*file).read_exact(&mut [0])?;
        Ok(Token(file))
    }

    /// Adds a token, to replace one that a killed make did not return.
    pub(crate) fn add(&self) -> io::Result<()> {
        self.0.as_file().as_ref().write_all(TOKEN)
    }

    /// Returns true if [`Self::acquire`] would not wait.
    pub(crate) fn has_token(&self) -> io::Result<bool> {
        let fifo = [(self.0.as_file().as_fd(), PollFlags::POLLIN)];
        Ok(ready(&fifo, Some(Instant::now()))?.contains(&true))
    }
}

/// A token taken from a jobserver. It is returned when dropped.
#[derive(Debug)]
pub(crate) struct Token(Arc<File>);

impl Drop for Token {
    fn drop(&mut self) {
        if let Err(error) = self.0.as_ref().write_all(TOKEN) {
            log::warn!("cannot return a token to the jobserver: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_and_returned() {
        let dir = tempfile::tempdir().unwrap();
        let jobserver = Jobserver::create_in(dir.path(), 2).unwrap();
        let (one, two) = (jobserver.acquire().unwrap(), jobserver.acquire().unwrap());
        assert!(!jobserver.has_token().unwrap());
        drop(one);
        assert!(jobserver.has_token().unwrap());
        drop((jobserver.acquire().unwrap(), two));
        let path = jobserver.path().to_owned();
        drop(jobserver);
        assert!(!path.exists());
    }
}
