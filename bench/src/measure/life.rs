//! What working with a kept path costs between two resets: in place, on a bind mount, and through a
//! symlink into a store; and whether a file can be saved there at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use darlings_bench::record::{Line, Outcome};
use darlings_testkit::loopfs::{run, unmount};

use crate::Settings;
use crate::contest::Notes;
use crate::stage::Stage;

/// How much is worked in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    pub(crate) random_mib: u64,
    pub(crate) sequential_mib: u64,
    pub(crate) renames: u64,
    pub(crate) replacements: u64,
}

/// One of the three places: what the running system calls it, and where its content really lies.
struct Place {
    name: &'static str,
    seen: PathBuf,
    lies: PathBuf,
}

pub(crate) fn measure(settings: &Settings) -> Result<()> {
    let mut stage = Stage::new(&settings.scratch)?;
    let notes = Notes::new(settings);
    stage.fresh()?;
    stage.volume.make_subvolume("@persist")?;
    let root = stage.volume.fs.mount_at("root", "subvol=@")?;
    let store = stage.volume.fs.mount_at("store", "subvol=@persist")?;
    for directory in
        [root.join("kept"), root.join("bind"), store.join("bind"), store.join("symlink")]
    {
        fs::create_dir(directory)?;
    }
    bind(&store.join("bind"), &root.join("bind"))?;
    symlink(store.join("symlink"), root.join("symlink"))?;
    let places = ["kept", "bind", "symlink"].map(|name| Place {
        name,
        seen: root.join(name),
        lies: if name == "kept" { root.join(name) } else { store.join(name) },
    });
    let done = work(settings, &notes, &places).and_then(|()| save(settings, &root, &store));
    // Whatever happened, for the filesystem cannot be taken down with it.
    unmount(&root.join("bind")).and(done)?;
    stage.close()
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("mount").arg("--bind").arg(from).arg(to))?;
    Ok(())
}

fn work(settings: &Settings, notes: &Notes<'_>, places: &[Place; 3]) -> Result<()> {
    let Amounts { random_mib, sequential_mib, renames, replacements } = settings.life;
    let random = ["--rw=randrw", "--bs=4k", "--fdatasync=64"];
    let sequential = ["--rw=rw", "--bs=1M", "--end_fsync=1"];
    let random_name = format!("`fio`, random, {random_mib} MiB by 4 KiB");
    let sequential_name = format!("`fio`, sequential, {sequential_mib} MiB by 1 MiB");
    if let Err(why) = run(Command::new("fio").arg("--version")) {
        for (name, place) in [&random_name, &sequential_name].into_iter().zip(places) {
            notes.left_out("life", name, place.name, &format!("{why:#}"))?;
        }
    } else {
        in_turns(settings, notes, &random_name, places, |place| fio(place, random_mib, &random))?;
        in_turns(settings, notes, &sequential_name, places, |place| {
            fio(place, sequential_mib, &sequential)
        })?;
    }
    in_turns(settings, notes, &format!("{renames} creates and renames"), places, |place| {
        let start = Instant::now();
        for number in 0..renames {
            let (new, named) = (place.join("new"), place.join(number.to_string()));
            File::create(&new).and_then(|_| fs::rename(&new, &named)).context("cannot rename")?;
        }
        synced(place, start)
    })?;
    in_turns(settings, notes, &format!("{replacements} atomic replacements"), places, |place| {
        let start = Instant::now();
        for number in 0..replacements {
            replace(&place.join("state"), &format!("state {number}\n"))?;
        }
        Ok(start.elapsed().as_secs_f64())
    })
}

/// All rounds of one kind of work, the places taking turns. What was made goes before the next.
fn in_turns(
    settings: &Settings,
    notes: &Notes<'_>,
    name: &str,
    places: &[Place; 3],
    work: impl Fn(&Path) -> Result<f64>,
) -> Result<()> {
    eprintln!("life: {name}");
    let mut values: [Vec<f64>; 3] = Default::default();
    for round in settings.rounds() {
        for turn in 0..places.len() {
            // Whoever comes first in a round meets the disk as the round before left it.
            let index = (turn + round) % places.len();
            let place = &places[index];
            run(Command::new("sync").arg("--file-system").arg(&place.lies))?;
            values[index]
                .push(work(&place.seen).with_context(|| format!("{name}, {}", place.name))?);
            for entry in fs::read_dir(&place.lies)? {
                fs::remove_file(entry?.path())?;
            }
        }
    }
    for (place, values) in places.iter().zip(values) {
        notes.measured("life", name, place.name, values)?;
    }
    Ok(())
}

fn synced(place: &Path, start: Instant) -> Result<f64> {
    run(Command::new("sync").arg("--file-system").arg(place))?;
    Ok(start.elapsed().as_secs_f64())
}

/// The time that fio says its job took, without its own start and without laying out the file.
fn fio(place: &Path, mebibytes: u64, words: &[&str]) -> Result<f64> {
    let mut command = Command::new("fio");
    command.args(["--name=work", "--ioengine=psync", "--output-format=json"]).args(words);
    // Not --directory, which fio refuses where it is a symlink.
    command.arg(format!("--size={mebibytes}M")).arg("--filename").arg(place.join("work"));
    let said = run(&mut command)?;
    // It may warn before it begins.
    let json = said.find('{').map_or("", |at| &said[at..]);
    let report: serde_json::Value = serde_json::from_str(json).context("fio wrote no JSON")?;
    let runtime = report["jobs"][0]["job_runtime"].as_f64().context("fio told no run time")?;
    Ok(runtime / 1000.0)
}

/// As programs save: a new file, durable, renamed over the old one.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Saves one declared file in each way of keeping it, and tells what became of it.
fn save(settings: &Settings, root: &Path, store: &Path) -> Result<()> {
    let all = ["kept", "bind", "symlink"];
    for name in all {
        let (seen, kept) = (root.join(format!("{name}-file")), store.join(format!("{name}-file")));
        let stays = match name {
            "kept" => seen.clone(),
            _ => kept.clone(),
        };
        fs::write(&stays, "old")?;
        match name {
            "bind" => {
                fs::write(&seen, "")?;
                bind(&kept, &seen)?;
            }
            "symlink" => symlink(&kept, &seen)?,
            _ => {}
        }
        let saved = replace(&seen, "new");
        if name == "bind" {
            unmount(&seen)?;
        }
        let content = fs::read_to_string(&stays)?;
        let said = match (saved, content.as_str()) {
            (Ok(()), "new") => "works; what is kept is the new content".to_owned(),
            (Ok(()), _) => {
                let link = fs::symlink_metadata(&seen)?.is_symlink();
                let what = if link { "the link stays" } else { "the link is replaced by a file" };
                format!("{what}, and what is kept is the old content")
            }
            (Err(why), _) => format!("fails: {why}; what is kept is the {content} content"),
        };
        let (set, at) = ("replace".to_owned(), "write, fsync, rename over it".to_owned());
        Line::Outcome(Outcome { set, at, contestant: name.to_owned(), said })
            .append(&settings.results)?;
    }
    Ok(())
}
