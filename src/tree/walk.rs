//! The walk: one subtree of the previous state, entry by entry, into the target.
//!
//! Depth first, so that memory grows with the depth and not with the number of files. A
//! thread gives work away only while another one has none. Open descriptors do not grow with
//! the depth either: only the last levels are open, those above are opened again on the way back.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Context as _;
use rustix::fs::{FileType, Mode, SeekFrom, Statx, mkdirat, seek};
use rustix::io::Errno;

use super::attributes::{Created, Handle, Scratch, Source, seal, unseal};
use super::clear;
use super::data::Ladder;
use super::directory::move_stub_named;
use super::entry::{Files, Place, Seen, device, make_directory};
use super::links::{Links, lock};
use crate::fs::Dir;
use crate::fs::at::{self, BATCH, Entry, next_batch};
use crate::rules::Node;

/// One persisted path that is being restored.
pub(crate) struct Job<'r> {
    /// Its path below the volume's root.
    pub(crate) path: PathBuf,
    /// The rules below it, for what is left out.
    pub(crate) rules: Option<&'r Node>,
    /// Where the blank's directory of the same path was laid, if it had one: what is left
    /// out comes from there.
    pub(crate) aside: Option<Dir>,
    /// Entries restored.
    pub(crate) entries: AtomicU64,
    /// Bytes of its regular files.
    pub(crate) bytes: AtomicU64,
}

impl Job<'_> {
    /// Counts an entry and its bytes, if it is a regular file.
    fn count(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A directory whose entries are being restored.
struct Directory<'j> {
    above: Option<Arc<Directory<'j>>>,
    name: CString,
    /// What those who work in it hold open.
    open: Mutex<Weak<Pair>>,
    status: Statx,
    job: &'j Job<'j>,
    rules: Option<&'j Node>,
    /// One for the reading of its entries, one for every directory and batch given away that
    /// is not done. Its attributes are set when none is left.
    unfinished: AtomicUsize,
}

/// A directory of the previous state and the same of the target, open.
struct Pair {
    source: OwnedFd,
    target: OwnedFd,
}

impl Directory<'_> {
    /// Below the volume's root.
    fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut directory = self;
        while let Some(above) = &directory.above {
            names.push(at::os_name(&directory.name));
            directory = above;
        }
        let mut path = directory.job.path.clone();
        path.extend(names.into_iter().rev());
        path
    }

    /// Opens it again, from a directory in it, if nobody has it open.
    fn open_above(&self, below: &Pair) -> anyhow::Result<Arc<Pair>> {
        let mut open = lock(&self.open);
        if let Some(pair) = open.upgrade() {
            return Ok(pair);
        }
        let source = at::open_directory(below.source.as_fd(), c"..")?;
        let found = at::status_of(source.as_fd())?;
        anyhow::ensure!(
            (device(&found), found.stx_ino) == (device(&self.status), self.status.stx_ino),
            "what is in it was moved while it was read; is the volume mounted somewhere?"
        );
        let target = at::open_directory(below.target.as_fd(), c"..")?;
        let pair = Arc::new(Pair { source, target });
        *open = Arc::downgrade(&pair);
        Ok(pair)
    }
}

impl Drop for Directory<'_> {
    /// One after the other: a directory may be the last to hold ten thousand levels above it,
    /// and each would drop the next in a call of its own.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut directory) = above.and_then(Arc::into_inner) {
            above = directory.above.take();
        }
    }
}

/// Work that any thread can take.
enum Task<'j> {
    /// Restore the entries of a directory and everything below it.
    Enter(Opened<'j>),
    /// Restore these entries of a directory, none of them a directory.
    Entries(Opened<'j>, Vec<Entry>),
}

/// A directory that stays open while somebody has this.
struct Opened<'j> {
    directory: Arc<Directory<'j>>,
    pair: Arc<Pair>,
}

impl<'j> Opened<'j> {
    fn new(
        above: Option<Arc<Directory<'j>>>,
        name: &CStr,
        (source, target, status): (OwnedFd, OwnedFd, Statx),
        job: &'j Job<'j>,
        rules: Option<&'j Node>,
    ) -> Self {
        let pair = Arc::new(Pair { source, target });
        let open = Mutex::new(Arc::downgrade(&pair));
        let (name, unfinished) = (name.to_owned(), AtomicUsize::new(1));
        let directory = Arc::new(Directory { above, name, open, status, job, rules, unfinished });
        Self { directory, pair }
    }

    /// An entry of it and where that goes.
    fn place<'a>(&'a self, entry: &'a Entry) -> Place<'a> {
        let (source, target) = (self.pair.source.as_fd(), self.pair.target.as_fd());
        Place { source, target, name: &entry.name, kind: entry.kind, inherits: false }
    }
}

/// What all threads of a walk share.
pub(crate) struct Walk<'j> {
    files: Files<'j>,
    /// Held by the thread that makes files; see [`Walk::turn`].
    turn: Mutex<()>,
    takes_turns: bool,
    queue: Mutex<Queue<'j>>,
    changed: Condvar,
    /// Threads that wait for work; read without the lock, only as a hint.
    idle: AtomicUsize,
    /// Tasks that wait for a thread; likewise. A woken thread may be long in coming, and what is
    /// given away meanwhile must not pile up: each task holds descriptors.
    queued: AtomicUsize,
    stop: AtomicBool,
    nested: Mutex<Vec<PathBuf>>,
}

#[derive(Default)]
struct Queue<'j> {
    tasks: VecDeque<Task<'j>>,
    working: usize,
    error: Option<anyhow::Error>,
}

/// Entries that one thread keeps for itself before it gives some away.
const SHARE_FROM: usize = 64;

/// Entries that a thread looks at before it makes them. Their files are open meanwhile.
const GROUP: usize = 16;

/// Bytes of a file that is not small: making it has less to do with others.
const LARGE: u64 = 1 << 20;

/// Levels that one thread keeps open, with two descriptors each.
const OPEN_LEVELS: usize = 16;

impl<'j> Walk<'j> {
    pub(crate) fn new(target: BorrowedFd<'j>, ladder: &'j Ladder, links: &'j Links) -> Self {
        Self {
            files: Files { target, ladder, links },
            turn: Mutex::default(),
            takes_turns: false,
            queue: Mutex::default(),
            changed: Condvar::new(),
            idle: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            nested: Mutex::default(),
        }
    }

    /// Adds the persisted path of `job`: `name` in `source` becomes `name` in `target`, where
    /// nothing is. What is not a directory is restored at once.
    pub(crate) fn add(
        &self,
        job: &'j Job<'j>,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &CStr,
        scratch: &mut Scratch,
    ) -> anyhow::Result<()> {
        let status = at::status(source, name).context("cannot read its attributes")?;
        let place = Place { source, target, name, kind: at::kind(&status), inherits: true };
        if place.kind != FileType::Directory {
            let bytes = self.files.restore(&place, || job.path.clone(), scratch)?;
            job.count(bytes);
            return Ok(());
        }
        job.count(0);
        let above = at::status_of(source).context("cannot read the directory above it")?;
        let directory = make_directory(&place, device(&above), scratch)?;
        let Some(made) = directory else {
            self.found_nested(job.path.clone());
            return Ok(());
        };
        let opened = Opened::new(None, name, made, job, job.rules);
        self.give_away(Task::Enter(opened));
        Ok(())
    }

    /// Adds the persisted path of `job`, which is at a path below a source, and goes to the job's below
    /// `target`.
    pub(crate) fn add_at(
        &self,
        job: &'j Job<'j>,
        (source, from): (&Dir, &Path),
        target: &Dir,
        scratch: &mut Scratch,
    ) -> anyhow::Result<()> {
        let (source, name) = source.open_parent(from)?;
        let (target, _) = target.open_parent(&job.path)?;
        self.add(job, source.as_fd(), target.as_fd(), &at::c_name(&name)?, scratch)
    }

    /// Restores everything that was added, with this many threads.
    pub(crate) fn run(mut self, threads: usize) -> anyhow::Result<Vec<PathBuf>> {
        self.takes_turns = darlings_btrfs::is_btrfs(self.files.target)?;
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        let queue = self.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        match queue.error {
            Some(error) => Err(error),
            None => Ok(self.nested.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn work(&self) {
        let mut worker = Worker {
            walk: self,
            scratch: Scratch::default(),
            buffer: vec![MaybeUninit::uninit(); BATCH],
        };
        while let Some(task) = self.next_task() {
            let result = worker.perform(task);
            let mut queue = lock(&self.queue);
            queue.working -= 1;
            if let Err(error) = result {
                self.stop.store(true, Ordering::Relaxed);
                queue.error.get_or_insert(error);
            }
            self.changed.notify_all();
        }
    }

    /// The next task, or `None` when there is nothing left to do or a thread has failed.
    fn next_task(&self) -> Option<Task<'j>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.error.is_some() {
                return None;
            }
            if let Some(task) = queue.tasks.pop_front() {
                self.queued.fetch_sub(1, Ordering::Relaxed);
                queue.working += 1;
                return Some(task);
            }
            if queue.working == 0 {
                return None;
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn somebody_waits(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > self.queued.load(Ordering::Relaxed)
    }

    fn give_away(&self, task: Task<'j>) {
        let mut queue = lock(&self.queue);
        queue.tasks.push_back(task);
        self.queued.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        self.changed.notify_one();
    }

    /// Waits until no other thread makes small files, where that is better.
    ///
    /// btrfs gives new files numbers one after the other, so that all of them go to the last leaf of
    /// one tree. Threads that make files at the same time put each other to sleep several times for
    /// every file. What can be done at the same time is looking at the files of the previous state,
    /// which is about as much work, and waits for the disk.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.takes_turns.then(|| lock(&self.turn))
    }

    fn found_nested(&self, path: PathBuf) {
        lock(&self.nested).push(path);
    }
}

/// One thread of a walk.
struct Worker<'w, 'j> {
    walk: &'w Walk<'j>,
    scratch: Scratch,
    buffer: Vec<MaybeUninit<u8>>,
}

/// A directory on the way down.
struct Level<'j> {
    directory: Arc<Directory<'j>>,
    /// `None` while it is far above the level that the thread is at.
    pair: Option<Arc<Pair>>,
    /// Where the reading of its entries goes on.
    position: u64,
    /// Directories of the last batch that are still to be entered.
    below: Vec<CString>,
    read: bool,
}

impl<'j> Level<'j> {
    fn opened(&self) -> anyhow::Result<Opened<'j>> {
        let pair = self.pair.clone().context("BUG: the level is closed")?;
        Ok(Opened { directory: Arc::clone(&self.directory), pair })
    }

    fn close(&mut self) -> anyhow::Result<()> {
        if let Some(pair) = self.pair.take() {
            self.position = seek(&pair.source, SeekFrom::Current(0)).with_context(|| {
                format!("cannot read the directory {:?}", self.directory.path())
            })?;
        }
        Ok(())
    }

    fn open_above(&mut self, below: &Pair) -> anyhow::Result<()> {
        if self.pair.is_some() {
            return Ok(());
        }
        let open = || -> anyhow::Result<Arc<Pair>> {
            let pair = self.directory.open_above(below)?;
            seek(&pair.source, SeekFrom::Start(self.position))?;
            Ok(pair)
        };
        self.pair = Some(open().with_context(|| cannot_open_again(&self.directory))?);
        Ok(())
    }
}

impl<'j> Worker<'_, 'j> {
    fn perform(&mut self, task: Task<'j>) -> anyhow::Result<()> {
        match task {
            Task::Enter(opened) => self.descend(opened),
            Task::Entries(opened, entries) => {
                self.restore_entries(&opened, &entries)?;
                self.finished_one(opened)
            }
        }
    }

    fn descend(&mut self, top: Opened<'j>) -> anyhow::Result<()> {
        let mut levels = vec![Self::enter(top)?];
        while let Some(level) = levels.last_mut() {
            if self.walk.stop.load(Ordering::Relaxed) {
                return Ok(()); // another thread has the error
            }
            if let Some(name) = level.below.pop() {
                if let Some(below) = self.make_below(&level.opened()?, &name)? {
                    if self.walk.somebody_waits() {
                        self.walk.give_away(Task::Enter(below));
                    } else {
                        levels.push(Self::enter(below)?);
                        if let Some(far) = levels.len().checked_sub(OPEN_LEVELS + 1) {
                            levels[far].close()?;
                        }
                    }
                }
            } else if level.read {
                let done = level.opened()?;
                levels.pop();
                if let Some(above) = levels.last_mut() {
                    above.open_above(&done.pair)?;
                }
                self.finished_one(done)?;
            } else {
                self.restore_batch(level)?;
            }
        }
        Ok(())
    }

    /// Before the entries of a directory come: what the blank has in its excluded paths.
    fn enter(opened: Opened<'j>) -> anyhow::Result<Level<'j>> {
        let Opened { directory, pair } = opened;
        for (name, rules) in directory.rules.into_iter().flat_map(Node::children) {
            if rules.is_excluded() {
                let name = at::c_name(name).context("BUG: a declared path holds a NUL")?;
                Self::lay_excluded(&directory, &pair, &name, rules)
                    .with_context(|| at_path(&directory, &name))?;
            }
        }
        Ok(Level { directory, pair: Some(pair), position: 0, below: Vec::new(), read: false })
    }

    fn lay_excluded(
        directory: &Directory<'j>,
        pair: &Pair,
        name: &CStr,
        rules: &Node,
    ) -> anyhow::Result<()> {
        if let Some(aside) = &directory.job.aside {
            let path = directory.path();
            let below = path.strip_prefix(&directory.job.path).unwrap_or(Path::new(""));
            let blank = at::directory_beneath(aside.as_fd(), below)
                .context("cannot open the blank's directory")?;
            if let Some(blank) = blank {
                // What is left of it is thrown away, so its seals are of no use to anyone.
                unseal(blank.as_fd()).context("cannot clear the flags of the blank's directory")?;
                let (from, to) = ((blank.as_fd(), name), (pair.target.as_fd(), name));
                let moved = match clear::rename_named(from, to) {
                    Err(Errno::NOTEMPTY) => move_stub_named(from, to)
                        .and_then(|moved| moved.then_some(true).context(Errno::NOTEMPTY)),
                    moved => moved.map_err(anyhow::Error::from),
                };
                if moved.context("cannot move the blank's content into place")? {
                    return Ok(());
                }
            }
        }
        // A directory above a persisted path. It gets its attributes with the other connectors.
        let source = at::present(at::status(pair.source.as_fd(), name))
            .context("cannot read its attributes")?;
        if rules.has_persisted_below()
            && source.is_some_and(|status| at::kind(&status) == FileType::Directory)
        {
            mkdirat(&pair.target, name, Mode::RWXU).context("cannot make the directory")?;
        }
        Ok(())
    }

    fn restore_batch(&mut self, level: &mut Level<'j>) -> anyhow::Result<()> {
        let opened = level.opened()?;
        let Opened { directory, pair } = &opened;
        let batch = next_batch(pair.source.as_fd(), &mut self.buffer)
            .with_context(|| format!("cannot read the directory {:?}", directory.path()))?;
        level.read = batch.is_empty();
        let mut files = Vec::new();
        for mut entry in batch {
            let rules = directory.rules.and_then(|rules| rules.child(at::os_name(&entry.name)));
            if rules.is_some_and(Node::is_excluded) {
                continue;
            }
            if entry.kind == FileType::Unknown {
                let status = at::status(pair.source.as_fd(), &entry.name)
                    .with_context(|| at_path(directory, &entry.name))?;
                entry.kind = at::kind(&status);
            }
            match entry.kind {
                FileType::Directory => level.below.push(entry.name),
                _ => files.push(entry),
            }
        }
        if files.len() > SHARE_FROM && self.walk.somebody_waits() {
            let others = files.split_off(files.len() / 2);
            directory.unfinished.fetch_add(1, Ordering::Relaxed);
            self.walk.give_away(Task::Entries(level.opened()?, others));
        }
        self.restore_entries(&opened, &files)
    }

    fn restore_entries(&mut self, opened: &Opened<'j>, entries: &[Entry]) -> anyhow::Result<()> {
        for group in entries.chunks(GROUP) {
            let (mut small, mut large) = (Vec::with_capacity(group.len()), Vec::new());
            for entry in group {
                let seen = opened
                    .place(entry)
                    .look(&mut self.scratch)
                    .with_context(|| at_path(&opened.directory, &entry.name))?;
                let those = if seen.bytes() < LARGE { &mut small } else { &mut large };
                those.push((entry, seen));
            }
            self.make(opened, &large)?;
            let turn = self.walk.turn();
            self.make(opened, &small)?;
            drop(turn);
        }
        Ok(())
    }

    fn make(&mut self, opened: &Opened<'j>, entries: &[(&Entry, Seen)]) -> anyhow::Result<()> {
        let Opened { directory, .. } = opened;
        for (entry, seen) in entries {
            let path = || at::join(&directory.path(), &entry.name);
            let made = self.walk.files.make(&opened.place(entry), seen, path, &mut self.scratch);
            let bytes = made.with_context(|| at_path(directory, &entry.name))?;
            directory.job.count(bytes);
        }
        Ok(())
    }

    fn make_below(
        &mut self,
        opened: &Opened<'j>,
        name: &CStr,
    ) -> anyhow::Result<Option<Opened<'j>>> {
        let Opened { directory: above, pair } = opened;
        let (source, target) = (pair.source.as_fd(), pair.target.as_fd());
        let kind = FileType::Directory;
        let place = Place { source, target, name, kind, inherits: false };
        let made = make_directory(&place, device(&above.status), &mut self.scratch)
            .with_context(|| at_path(above, name))?;
        above.job.count(0);
        let Some(made) = made else {
            self.walk.found_nested(at::join(&above.path(), name));
            return Ok(None);
        };
        above.unfinished.fetch_add(1, Ordering::Relaxed);
        let rules = above.rules.and_then(|rules| rules.child(at::os_name(name)));
        Ok(Some(Opened::new(Some(Arc::clone(above)), name, made, above.job, rules)))
    }

    /// One part of a directory is done. After the last its attributes are set, which ends a
    /// part of the directory above it.
    fn finished_one(&mut self, mut opened: Opened<'j>) -> anyhow::Result<()> {
        while opened.directory.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(&opened).with_context(|| format!("{:?}", opened.directory.path()))?;
            let Some(above) = &opened.directory.above else { break };
            let directory = Arc::clone(above);
            let pair = directory
                .open_above(&opened.pair)
                .with_context(|| cannot_open_again(&directory))?;
            opened = Opened { directory, pair };
        }
        Ok(())
    }

    fn finish(&mut self, opened: &Opened<'j>) -> anyhow::Result<()> {
        let Opened { directory, pair } = opened;
        let (handle, target) =
            (Handle::Open(pair.source.as_fd()), Handle::Open(pair.target.as_fd()));
        let flags = handle.flags().context("cannot read the flags of chattr(1)")?;
        let source = Source { handle, status: &directory.status, flags, has_xattrs: true };
        let created = Created { mode: Some(Mode::RWXU) };
        let seals = source.copy_to(target, created, &mut self.scratch)?;
        seal(pair.target.as_fd(), seals).context("cannot set its flags")
    }
}

fn cannot_open_again(directory: &Directory<'_>) -> String {
    format!("cannot open the directory {:?} again", directory.path())
}

fn at_path(directory: &Directory<'_>, name: &CStr) -> String {
    format!("{:?}", at::join(&directory.path(), name))
}
