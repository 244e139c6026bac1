//! A jobserver for GNU make: a FIFO that contains one byte (a token) for each job that may still
//! start.
//!
//! Every make runs one job without a token and takes a token for each further job (POSIX Jobserver
//! Interaction, GNU make manual). Unlike a pipe, a FIFO can be opened by its path, even in a
//! namespace with its own /proc.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::NamedTempFile;

/// A token in the FIFO. Its value has no meaning.
const TOKEN: &[u8] = b"+";

/// A jobserver. Dropping it removes the FIFO.
#[derive(Debug)]
pub(crate) struct Jobserver {
    fifo: NamedTempFile<Arc<File>>,
    /// The FIFO, opened a second time so that reading from it never blocks.
    nonblocking: File,
    /// The number of tokens in the FIFO while no job holds one.
    tokens: usize,
    /// Whether tokens may be missing: a program that may have held some was killed since the last
    /// refill.
    may_lack: AtomicBool,
}

impl Jobserver {
    /// Creates the FIFO in the existing directory `dir` and fills it with `tokens` tokens.
    ///
    /// # Errors
    /// An error if the FIFO cannot be created.
    pub(crate) fn create_in(dir: &Path, tokens: usize) -> io::Result<Self> {
        let fifo = tempfile::Builder::new().prefix("jobserver-").make_in(dir, |path| {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            // Opening a FIFO for reading and writing never blocks.
            File::options().read(true).write(true).open(path).map(Arc::new)
        })?;
        let nonblocking =
            File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(fifo.path())?;
        let jobserver = Self { fifo, nonblocking, tokens, may_lack: AtomicBool::new(false) };
        jobserver.refill()?;
        Ok(jobserver)
    }

    /// Returns the path of the FIFO.
    pub(crate) fn path(&self) -> &Path {
        self.fifo.path()
    }

    /// Waits for a token and takes it.
    pub(crate) fn acquire(&self) -> io::Result<Token> {
        let file = Arc::clone(self.fifo.as_file());
        (&*file).read_exact(&mut [0])?;
        Ok(Token(file))
    }

    /// Records that a program that may have held tokens was killed. A killed make does not return
    /// its tokens.
    pub(crate) fn note_killed(&self) {
        self.may_lack.store(true, Ordering::Release);
    }

    /// Returns true if a program that may have held tokens was killed since the last refill.
    pub(crate) fn may_lack_tokens(&self) -> bool {
        self.may_lack.load(Ordering::Acquire)
    }

    /// Restores the full number of tokens. The caller must ensure that no build is running and that
    /// no [`Token`] exists.
    pub(crate) fn refill(&self) -> io::Result<()> {
        loop {
            match (&self.nonblocking).read(&mut [0; 64]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.may_lack.store(false, Ordering::Release);
        self.fifo.as_file().as_ref().write_all(&TOKEN.repeat(self.tokens))
    }
}

/// A token taken from a jobserver. Dropping the value returns the token.
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
    use rstest::rstest;

    /// Returns the number of tokens in the FIFO.
    fn free(jobserver: &Jobserver) -> usize {
        let mut tokens = [0; 64];
        let count = (&jobserver.nonblocking).read(&mut tokens).unwrap_or_default();
        jobserver.fifo.as_file().as_ref().write_all(&tokens[..count]).unwrap();
        count
    }

    #[test]
    fn tokens_are_taken_and_returned() {
        let dir = tempfile::tempdir().unwrap();
        let jobserver = Jobserver::create_in(dir.path(), 2).unwrap();
        let (one, two) = (jobserver.acquire().unwrap(), jobserver.acquire().unwrap());
        assert_eq!(free(&jobserver), 0);
        drop(one);
        assert_eq!(free(&jobserver), 1);
        drop((jobserver.acquire().unwrap(), two));
        let path = jobserver.path().to_owned();
        drop(jobserver);
        assert!(!path.exists());
    }

    #[rstest]
    #[case::all_lost(0)]
    #[case::some_lost(2)]
    #[case::none_lost(3)]
    #[case::too_many(70)]
    fn refilling_restores_the_number_of_tokens(#[case] left: usize) {
        let dir = tempfile::tempdir().unwrap();
        let jobserver = Jobserver::create_in(dir.path(), 3).unwrap();
        while free(&jobserver) > 0 {
            std::mem::forget(jobserver.acquire().unwrap());
        }
        jobserver.fifo.as_file().as_ref().write_all(&TOKEN.repeat(left)).unwrap();
        jobserver.note_killed();
        jobserver.refill().unwrap();
        assert_eq!((free(&jobserver), jobserver.may_lack_tokens()), (3, false));
    }
}
