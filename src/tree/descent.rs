//! The directories on the way down a tree, of which only the last are open: users make trees as deep as
//! they like, and descriptors are few.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{SeekFrom, Statx, seek};

use crate::fs::at;

/// So many of them are open.
pub const OPEN_LEVELS: usize = 32;

/// A directory that a walk is in, or below.
#[derive(Debug)]
pub struct Directory {
    /// `None` while the walk is far below, and when it is gone.
    opened: Option<Rc<OwnedFd>>,
    /// How far it was read when it was closed.
    position: u64,
    /// Which it was.
    identity: Option<(u32, u32, u64)>,
}

impl Directory {
    /// One that is open.
    #[must_use]
    pub fn new(opened: OwnedFd) -> Self {
        Self { opened: Some(Rc::new(opened)), position: 0, identity: None }
    }

    /// The descriptor, while it is open.
    #[must_use]
    pub fn opened(&self) -> Option<Rc<OwnedFd>> {
        self.opened.clone()
    }

    /// Closes it until the walk comes back.
    pub fn close(&mut self) -> anyhow::Result<()> {
        if let Some(opened) = self.opened.take() {
            self.position = seek(&opened, SeekFrom::Current(0))?;
            self.identity = Some(identity(&at::status_of(opened.as_fd())?));
        }
        Ok(())
    }

    /// Opens it again: from a directory in it that the walk comes back from, so that the way back is no
    /// longer than the way down; where that is elsewhere by now, by its path below the root.
    pub fn open_again(
        &mut self,
        from: Option<&Self>,
        root: BorrowedFd<'_>,
        path: &Path,
    ) -> anyhow::Result<()> {
        if self.opened.is_some() {
            return Ok(());
        }
        let above = match from.and_then(Self::opened) {
            Some(from) => at::present(at::open_directory(from.as_fd(), c".."))?,
            None => None,
        };
        let is_it = |above: &OwnedFd| -> anyhow::Result<bool> {
            Ok(Some(identity(&at::status_of(above.as_fd())?)) == self.identity)
        };
        let opened = match above {
            Some(above) if is_it(&above)? => Some(above),
            _ => at::directory_beneath(root, path)?,
        };
        if let Some(opened) = opened {
            seek(&opened, SeekFrom::Start(self.position))?;
            self.opened = Some(Rc::new(opened));
        }
        Ok(())
    }
}

fn identity(status: &Statx) -> (u32, u32, u64) {
    (status.stx_dev_major, status.stx_dev_minor, status.stx_ino)
}
