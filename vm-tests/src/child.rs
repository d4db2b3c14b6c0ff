//! A program that never outlives the test that started it.

use std::io::{self, Write as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(crate) type Collected = mpsc::Receiver<io::Result<Vec<u8>>>;

/// A program that is waited for no longer than a limit, and killed when dropped.
#[derive(Debug)]
pub(crate) struct LimitedChild {
    child: Child,
}

impl LimitedChild {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()? })
    }

    /// Waits for the end; `None` when the limit came first and it was killed.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn collect_output(&mut self, show: bool) -> Result<Collected> {
        let pipe = self.child.stdout.take().context("BUG: the output is not piped")?;
        Ok(collect(pipe, show))
    }

    pub(crate) fn collect_messages(&mut self) -> Result<Collected> {
        let pipe = self.child.stderr.take().context("BUG: the messages are not piped")?;
        Ok(collect(pipe, false))
    }
}

impl Drop for LimitedChild {
    /// The backstop: whoever returns early has nothing more to ask of the guest.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None))
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait())
        {
            eprintln!("cannot end process {}: {error}", self.child.id());
        }
    }
}

fn collect(mut pipe: impl io::Read + Send + 'static, show: bool) -> Collected {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let mut piece = [0; 8192];
        let result = loop {
            match pipe.read(&mut piece) {
                Ok(0) => break Ok(all),
                Ok(count) => {
                    all.extend_from_slice(&piece[..count]);
                    if show && let Err(error) = show_now(&piece[..count]) {
                        break Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // Nobody listens any more when the guest's starter returned early.
        drop(sender.send(result));
    });
    receiver
}

fn show_now(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
