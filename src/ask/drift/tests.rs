#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::Config;
use crate::config::digest::{digest, fnv1a};

const CONFIG: &str = r#"
[[volume]]
mount_point = "/"
btrfs = { device = "/dev/vda", subvolume = "@", blank = "@blank" }

[[volume]]
mount_point = "/home"
zfs = { dataset = "rpool/home", blank = "empty" }

[[persist]]
path = "/var/log"
exclude = ["journal"]

[[persist]]
path = "/home/mia"
"#;

fn parse(text: &str) -> Config {
    Config::from_bytes(Path::new("darlings.toml"), text.as_bytes()).unwrap()
}

fn of(text: &str) -> String {
    digest(&parse(text))
}

#[test]
fn the_hash_is_fnv1a() {
    // The test vectors of its authors.
    assert_eq!(fnv1a([].iter()), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"a".iter()), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(b"foobar".iter()), 0x8594_4171_f739_67e8);
}

#[test]
fn a_digest_is_the_same_in_every_version() {
    assert_eq!(of(CONFIG), "159938bdd65dcd76");
    assert_eq!(parse(CONFIG).volumes[1].rules.configuration(), Some("159938bdd65dcd76"));
}

#[test]
fn what_decides_nothing_changes_no_digest_and_everything_else_does() {
    let same = [
        format!("# a comment\n{CONFIG}"),
        CONFIG.replace("/var/log", "//var/./log/"),
        CONFIG
            .replace("mount_point = \"/\"\n", "mount_point = \"/\"\nkeep = { generations = 3 }\n"),
        CONFIG
            .replace("blank = \"@blank\"", "blank = \"@blank\", generations = \"@darlings/root\""),
        format!("on_failure = \"boot\"\n{CONFIG}"),
        format!("{CONFIG}\n[[persist]]\npath = \"/var/log/here-already\"\n"),
    ];
    for text in same {
        assert_eq!(of(&text), of(CONFIG), "{text}");
    }
    let other = [
        format!("on_failure = \"emergency\"\n{CONFIG}"),
        CONFIG.replace("/dev/vda", "/dev/vdb"),
        CONFIG.replace("\"@blank\"", "\"empty\""),
        CONFIG.replace("rpool/home", "tank/home"),
        CONFIG.replace("mount_point = \"/\"\n", "mount_point = \"/\"\nstrategy = \"rollback\"\n"),
        CONFIG.replace("[\"journal\"]", "[]"),
        CONFIG.replace("/home/mia", "/home/leo"),
        CONFIG.replace("blank = \"empty\"", "blank = \"empty\", newer_snapshots = \"destroy\""),
    ];
    for text in other {
        assert_ne!(of(&text), of(CONFIG), "{text}");
    }
}

/// What is said of the first volume of `text`, where `then` is the configuration of the last reset.
fn said(then: &str, text: &str, change: impl FnOnce(&mut Manifest)) -> Option<String> {
    let then = parse(then);
    let mut manifest = Manifest::new(6, &then.volumes[0].rules).unwrap();
    change(&mut manifest);
    words(&parse(text).volumes[0], &manifest, "run `dracut -f`")
}

const DIFFERS: &str = "the configuration on the disk is not the one that reset 6 went by; unless the initrd \
                       was rebuilt since, the next reset goes by the older one";

#[test]
fn a_difference_names_what_the_older_configuration_does_not_keep() {
    let more = format!("{CONFIG}\n[[persist]]\npath = \"/srv/data\"\n");
    let named =
        |paths: &str| Some(format!("{DIFFERS}, which does not keep {paths}: run `dracut -f`"));
    assert_eq!(said(CONFIG, CONFIG, |_| {}), None);
    assert_eq!(said(CONFIG, &more, |_| {}), named("/srv/data"));
    assert_eq!(said(&more, CONFIG, |_| {}), Some(format!("{DIFFERS}: run `dracut -f`")));
    let included = CONFIG.replace("[\"journal\"]", "[]");
    assert_eq!(said(CONFIG, &included, |_| {}), named("/var/log/journal"));
    // On another volume there is something else, which decides there.
    let on_home = CONFIG.replace("/home/mia", "/home/leo");
    assert_eq!(said(CONFIG, &on_home, |_| {}), Some(format!("{DIFFERS}: run `dracut -f`")));
    let many = ["1", "2", "3", "4", "5", "6", "7"]
        .map(|it| format!("\n[[persist]]\npath = \"/srv/{it}\"\n"))
        .concat();
    let expected = named("/srv/1, /srv/2, /srv/3, /srv/4, /srv/5, and 2 more");
    assert_eq!(said(CONFIG, &format!("{CONFIG}{many}"), |_| {}), expected);
}

#[test]
fn a_manifest_of_an_earlier_version_is_compared_by_its_lists() {
    let more = format!("{CONFIG}\n[[persist]]\npath = \"/srv/data\"\n");
    let earlier = |manifest: &mut Manifest| manifest.configuration = None;
    assert_eq!(said(CONFIG, CONFIG, earlier), None);
    let other_device = CONFIG.replace("/dev/vda", "/dev/vdb");
    assert_eq!(said(CONFIG, &other_device, earlier), None);
    let expected = format!("{DIFFERS}, which does not keep /srv/data: run `dracut -f`");
    assert_eq!(said(CONFIG, &more, earlier), Some(expected));
    // Its lists are those of the generation.
    let restored = |manifest: &mut Manifest| {
        manifest.configuration = None;
        manifest.restored = Some(3);
    };
    assert_eq!(said(CONFIG, &more, restored), None);
}

#[test]
fn the_command_is_the_one_that_the_machine_has() {
    let root = tempfile::tempdir().unwrap();
    let has = |file: &str| {
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        rebuild(root.path())
    };
    assert_eq!(rebuild(root.path()), "rebuild it");
    assert_eq!(has("usr/sbin/update-initramfs"), "run `update-initramfs -u`");
    assert_eq!(has("usr/bin/mkinitcpio"), "run `mkinitcpio -P`");
    assert_eq!(has("usr/bin/dracut"), "run `dracut -f`");
    assert_eq!(has("etc/NIXOS"), "run `nixos-rebuild boot`");
}
