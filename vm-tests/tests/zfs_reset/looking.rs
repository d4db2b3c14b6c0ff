//! What was, on ZFS: paths are explained, listed, and brought back from snapshots.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use darlings_testkit::{capture, plant};
use serde_json::{Value, json};

use crate::guest::{checks, in_guest};
use crate::machine::{Machine, Strategy, reset};
use crate::pools::{DATASET, change, put, tree};

#[test]
fn what_was_on_zfs_is_explained_listed_and_brought_back() -> Result<()> {
    in_guest(
        "looking::what_was_on_zfs_is_explained_listed_and_brought_back",
        checks![a_path_is_explained_and_recovered_from_a_snapshot],
    )
}

/// Runs `darlings` with the configuration of the last reset; answers its JSON.
fn say(arguments: &[&str], code: i32) -> Result<Value> {
    let mut command = Command::new("darlings");
    command.args(arguments).args(["--config", "/tmp/darlings.toml", "--json"]);
    let output = command.env_remove("JOURNAL_STREAM").output()?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(code), "{arguments:?}: {:?} {stderr}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| stderr)
}

fn a_path_is_explained_and_recovered_from_a_snapshot() -> Result<()> {
    let machine =
        Machine::new(&["-O", "xattr=sa"], |blank| put(blank, "etc/motd", "blank"), |_| Ok(()))?
            .by(Strategy::Carry)
            .persist("keep", &[]);
    for boot in ["first", "second"] {
        change(DATASET, |live| {
            put(live, "keep/file", boot)?;
            put(live, "root/dir/file", boot)?;
            plant::owner(&live.join("root"), 7, 8)?;
            Ok(plant::xattr(&live.join("root/dir/file"), "user.of", boot.as_bytes())?)
        })?;
        reset(&machine.config(), &[])?.well()?;
    }
    let explained = say(&["explain", "/keep/file"], 0)?["explained"][0].clone();
    assert_eq!((&explained["verdict"], &explained["next_reset"]), (&json!("kept"), &json!("keep")));
    let explained = say(&["explain", "/etc/motd"], 3)?["explained"][0].clone();
    assert_eq!(explained["next_reset"], "same_as_blank", "{explained:#}");

    let all = say(&["history"], 0)?;
    assert_eq!(all["volumes"][0]["generations"][1]["ended_by"], json!({ "what": "reset" }));
    let history = say(&["history", "/keep/file"], 0)?;
    let versions = history["versions"].as_array().context("no versions")?;
    let told: Vec<_> = versions.iter().map(|it| (&it["generation"], &it["same_in"])).collect();
    assert_eq!(told, [(&Value::Null, &json!([2])), (&json!(1), &json!([]))]);

    let wanted = tree(&format!("{DATASET}@darlings-2"))?;
    let recovered = say(&["recover", "/root/dir"], 0)?;
    assert_eq!(recovered["from"], json!({ "generation": 2 }));
    assert_eq!(recovered["made"], json!(["/root"]));
    let now = tree(DATASET)?;
    for path in ["root", "root/dir", "root/dir/file"] {
        assert_eq!(now.at(path), wanted.at(path), "{path}");
    }
    let recovered = say(&["recover", "/root/dir", "--from", "1", "--force"], 0)?;
    assert_eq!(recovered["replaced_is_in"], ".darlings/trash/replaced-1");
    let first = tree(&format!("{DATASET}@darlings-1"))?;
    assert_eq!(tree(DATASET)?.at("root/dir/file"), first.at("root/dir/file"));
    // To another filesystem, by copying.
    let copy = std::path::Path::new("/tmp/copy");
    say(&["recover", "/root/dir", "--from", "2", "--to", "/tmp/copy"], 0)?;
    assert_eq!(std::fs::read_to_string(copy.join("file"))?, "second");
    ensure!(capture(copy)?.at("file").is_some_and(|it| !it.xattrs.is_empty()), "no attribute");
    darlings_testkit::remove::all(copy)?;
    let status = say(&["status", "--report", "/nothing/there"], 0)?;
    assert_eq!(status["volumes"][0]["generations"], json!([1, 2]));
    let left = std::fs::read_dir("/run/darlings")?.count();
    ensure!(left == 0, "{left} mount points are left in /run/darlings");
    Ok(())
}
