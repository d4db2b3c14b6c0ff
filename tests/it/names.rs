//! Names are input: users choose them. What the commands print of them begins no line, steers no
//! terminal and turns no text, and `suggest` prints lines that mean exactly the paths there are.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Machine, put};
use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{capability, skip_unless};
use serde_json::Value;

/// A name that begins a line has this at its beginning.
const BEGINS: &str = "BEGINS-A-LINE";

/// What names are made of: what ends strings, lines and comments, steers terminals, turns text or hides.
const PIECES: &[&str] = &[
    "\n",
    "\r",
    "\t",
    "\u{1b}[31m",
    "\u{7}",
    "\u{7f}",
    "\u{9b}",
    "\"",
    "\\",
    "''",
    "'",
    "${x}",
    "$",
    "#",
    "\"\"\"",
    "]",
    "}",
    ";",
    " ",
    "  ",
    "mia",
    "\u{e9}",
    "e\u{301}",
    "\u{202e}",
    "\u{2066}",
    "\u{2069}",
    "\u{200e}",
    "\u{61c}",
    "\u{200b}",
    "\u{2028}",
    "\u{feff}",
    "\u{e0041}",
    "\u{1f600}",
    "\n[[persist]]\npath = \"\"\n",
    "\n\"evil\"\n",
    "\u{85}",
    "with",
];

/// Names of a fixed sequence of numbers, so that a failure is found again.
fn hostile_names(count: usize) -> Vec<String> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let mut names: Vec<String> = PIECES.iter().map(|piece| format!("a{piece}")).collect();
    names.extend((0..count).map(|_| {
        let pieces = (0..=next(5)).map(|_| PIECES[next(PIECES.len())]);
        pieces.collect::<String>()
    }));
    // A star does not mean what begins with a dot, and no name is empty.
    names.retain(|name| !name.is_empty() && !name.starts_with('.') && name.len() < 200);
    names.sort();
    names.dedup();
    names
}

fn darlings(command: &str, config: &Path, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut darlings = Command::new(env!("CARGO_BIN_EXE_darlings"));
    darlings.arg(command).arg("--config").arg(config).args(arguments);
    let output = darlings.stdin(Stdio::null()).env_remove("JOURNAL_STREAM").output()?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
    Ok((output.status.code(), stdout? + &stderr?))
}

/// That a text has nothing in it that a name brought along.
fn assert_harmless(command: &str, text: &str) {
    let odd = |letter: &char| {
        let turns = matches!(letter, '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let unseen = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{e0041}');
        let separates = matches!(letter, '\u{2028}' | '\u{2029}');
        turns || unseen || separates || *letter != '\n' && letter.is_control()
    };
    assert_eq!(text.chars().find(odd), None, "{command}: {text:?}");
    for line in text.lines() {
        let starts = line.trim_start_matches(['#', ' ']).starts_with(BEGINS);
        assert!(!starts, "{command}: a name begins the line {line:?} of\n{text}");
    }
}

#[test]
fn what_suggest_prints_means_exactly_the_paths_there_are() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    // It looks as if it had been reset once, so that it is what is looked at.
    std::fs::create_dir_all(root.join(".darlings"))?;
    let names = hostile_names(200);
    let homes = names.iter().map(|name| root.join("home").join(name));
    for home in homes {
        std::fs::create_dir_all(home.join(".ssh"))?;
        std::fs::write(home.join(".ssh/id"), "key")?;
    }
    let config = scratch.path().join("darlings.toml");
    let volume = "[[volume]]\nmount_point = \"/\"\n";
    let dir = format!("dir = {{ path = {:?}, blank = \"empty\" }}\n", root.to_str().unwrap());
    std::fs::write(&config, format!("{volume}{dir}"))?;
    let expected: BTreeSet<String> = names.iter().map(|it| format!("/home/{it}/.ssh")).collect();

    let (code, text) = darlings("suggest", &config, &[])?;
    assert_eq!(code, Some(3), "{text}");
    assert_harmless("suggest", &text);
    let table: toml::Table = text.parse().with_context(|| text.clone())?;
    assert_eq!(table.keys().collect::<Vec<_>>(), ["persist"]);
    let entries = table["persist"].as_array().unwrap();
    let paths = entries.iter().map(|it| it["path"].as_str().unwrap().to_owned());
    assert_eq!(paths.clone().count(), expected.len());
    assert_eq!(paths.collect::<BTreeSet<_>>(), expected);
    // What it means to darlings itself: appended, all of it is kept.
    std::fs::write(&config, format!("{volume}{dir}{text}"))?;
    let (code, text) = darlings("suggest", &config, &["--all"])?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.parse::<toml::Table>()?.is_empty(), "{text}");
    assert_harmless("suggest --all", &text);

    std::fs::write(&config, format!("{volume}{dir}"))?;
    let (code, text) = darlings("suggest", &config, &["--nix"])?;
    assert_eq!(code, Some(3));
    assert_harmless("suggest --nix", &text);
    if Command::new("nix-instantiate").arg("--version").output().is_err() {
        capability::skipped("needs the program nix-instantiate");
        return Ok(());
    }
    let file = scratch.path().join("suggested.nix");
    std::fs::write(&file, &text)?;
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json"])
        .arg(&file)
        .env("NIX_STATE_DIR", scratch.path())
        .env("NIX_STORE_DIR", scratch.path().join("store"))
        .output()?;
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let users = value["darlings"]["users"].as_object().context("no users")?;
    let paths = users.iter().flat_map(|(user, lists)| {
        let lists = lists["directories"].as_array().unwrap().iter();
        lists.map(move |path| format!("/home/{user}/{}", path.as_str().unwrap()))
    });
    assert_eq!(paths.collect::<BTreeSet<_>>(), expected);
    Ok(())
}

#[test]
fn a_name_that_is_not_utf8_is_reported_and_not_suggested() -> Result<()> {
    skip_unless!(capability::root(), Ok(()));
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    std::fs::create_dir_all(root.join(".darlings"))?;
    let home = root.join("home").join(OsStr::from_bytes(b"mia\xff\n"));
    std::fs::create_dir_all(home.join(".ssh"))?;
    std::fs::write(home.join(".ssh/id"), "key")?;
    let config = scratch.path().join("darlings.toml");
    let dir = format!("dir = {{ path = {:?}, blank = \"empty\" }}\n", root.to_str().unwrap());
    std::fs::write(&config, format!("[[volume]]\nmount_point = \"/\"\n{dir}"))?;
    let expected = "\
# The next reset erases this too, and no line can name it:
# \"/home/mia\\xFF\\n/.ssh\" is not valid UTF-8, so it cannot be persisted by itself: rename it, or
# persist /home

";
    assert_eq!(darlings("suggest", &config, &[])?, (Some(3), expected.to_owned()));
    assert_eq!(darlings("suggest", &config, &["--nix"])?, (Some(3), expected.to_owned()));
    let (code, json) = darlings("suggest", &config, &["--json"])?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!((code, &json["found"][0]["path"]), (Some(3), &"/home/mia\u{fffd}\n/.ssh".into()));
    Ok(())
}

/// Every command, on a machine whose users name things as badly as they can.
#[test]
fn no_command_prints_what_a_name_would_do_to_a_terminal() -> Result<()> {
    skip_unless!(capability::root_and_btrfs(), Ok(()));
    let evil = format!("x\n{BEGINS}: \u{1b}[31m\u{202e}\u{2066}\u{200f}\u{61c}\u{7}");
    let mut bytes = evil.clone().into_bytes();
    bytes.push(0xff);
    let raw = OsString::from_vec(bytes);
    let machine = Machine::new(
        |_| Ok(()),
        |live| {
            put(live, "etc/machine-id", "8f0c\n")?;
            for name in [OsStr::new(&evil), &raw] {
                let home = live.join("home").join(name);
                std::fs::create_dir_all(home.join(".ssh"))?;
                std::fs::write(home.join(".ssh").join(name), "key")?;
                symlink(name, home.join("link"))?;
                // To be kept as a link, behind a link, and put into the attic.
                std::fs::create_dir_all(live.join("srv").join(name))?;
            }
            put(live, "was/kept/file", "kept")?;
            symlink(&evil, live.join("linked"))?;
            symlink(format!("home/{evil}"), live.join("declared"))?;
            Ok(())
        },
    )?;
    for name in [OsStr::new(&evil), &raw] {
        let path = Path::new("@/home").join(name).join("nested");
        let path = machine.at(path.to_str().unwrap_or("@/nested"));
        darlings_testkit::loopfs::run(
            Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(path),
        )?;
    }
    let kept = format!("home/{evil}/link");
    let behind = format!("declared/{evil}");
    let strange = format!("srv/{evil}");
    let all = machine.persist(&kept, &[]).persist(&behind, &[]).persist("linked", &[]);
    let all = all.persist(&strange, &[]).persist("declared", &[]);
    let config = all.beside("darlings.toml");
    let report = all.beside("report.json");
    let report = report.to_str().unwrap();
    let ssh = format!("/home/{evil}/.ssh");
    let key = format!("/home/{evil}/.ssh/{evil}");
    let said = |command: &str, arguments: &[&str]| -> Result<String> {
        let (_, text) = darlings(command, &config, arguments)?;
        assert_harmless(command, &text);
        Ok(text)
    };
    std::fs::write(&config, all.config())?;
    let looks: &[(&str, &[&str])] = &[
        ("check", &["--fstab", "/dev/null"]),
        ("suggest", &["--all"]),
        ("suggest", &["--nix", "--all"]),
        ("diff", &[]),
        ("diff", &["--flat", "--all"]),
        ("diff", &["--tree", "--all"]),
        ("explain", &[&ssh]),
        ("explain", &["/linked"]),
        ("explain", &["/declared/x"]),
        ("history", &[&ssh]),
        ("history", &[]),
        ("generations", &[]),
        ("status", &["--report", report]),
        ("purge", &["--dry-run"]),
        ("reset", &["--dry-run", "--report", report]),
    ];
    for (command, arguments) in looks {
        said(command, arguments)?;
    }
    assert!(said("reset", &["--report", report])?.contains("BEGINS"));
    for (command, arguments) in looks {
        said(command, arguments)?;
    }
    assert!(said("recover", &[&key, "--dry-run"])?.contains("BEGINS"));
    assert!(said("recover", &[&key])?.contains("BEGINS"));
    assert!(said("recover", &[&ssh, "--force"])?.contains("BEGINS"));
    // No longer persisted: to the attic.
    let fewer = all.config().replace(&strange.replace('\n', "\\n"), "never/there");
    std::fs::write(&config, fewer)?;
    for (command, arguments) in looks {
        said(command, arguments)?;
    }
    said("reset", &["--report", report])?;
    said("diff", &["--since", "1"])?;
    said("purge", &[])?;
    all.close()
}
