#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;

use super::*;
use crate::cmdline::Which;
use crate::config::{Btrfs, Strategy};
use crate::fs::Dir;

/// What a distribution with a merged /usr has.
const DEBIAN: [&str; 6] = [
    "usr/lib/systemd/systemd",
    "usr/sbin/init -> ../lib/systemd/systemd",
    "sbin -> usr/sbin",
    "lib -> usr/lib",
    "usr/bin/bash",
    "etc/machine-id",
];

/// What NixOS has on its root, where the store is another filesystem.
const NIXOS: [&str; 6] = [
    "bin/sh -> /nix/store/1-bash/bin/sh",
    "usr/bin/env -> /nix/store/2-coreutils/bin/env",
    "lib64/ld-linux-x86-64.so.2 -> /nix/store/3-glibc/lib/ld.so",
    "nix/",
    "etc/NIXOS",
    "etc/systemd/system -> /etc/static/systemd/system",
];

/// The same of Debian and of Fedora, with what the init needs to start.
const DEBIAN_WITH_LIBRARIES: [&str; 8] = [
    "usr/lib/systemd/systemd ELF /lib64/ld-linux-x86-64.so.2",
    "usr/sbin/init -> ../lib/systemd/systemd",
    "usr/lib64/ld-linux-x86-64.so.2 -> /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "usr/lib/x86_64-linux-gnu/libc.so.6",
    "sbin -> usr/sbin",
    "lib -> usr/lib",
    "lib64 -> usr/lib64",
];
const FEDORA: [&str; 6] = [
    "usr/lib/systemd/systemd ELF /lib64/ld-linux-x86-64.so.2",
    "usr/sbin/init -> ../lib/systemd/systemd",
    "usr/lib64/ld-linux-x86-64.so.2",
    "usr/lib64/libc.so.6",
    "sbin -> usr/sbin",
    "lib64 -> usr/lib64",
];

/// An executable of 64 bits that names a dynamic loader, and nothing else.
fn executable(loader: &str) -> Vec<u8> {
    let mut bytes = vec![0; 120];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let length = u8::try_from(loader.len()).unwrap();
    for (at, byte) in [(32, 64), (54, 56), (56, 1), (64, 3), (72, 120), (96, length)] {
        bytes[at] = byte;
    }
    bytes.extend(loader.as_bytes());
    bytes
}

/// A directory with these entries: `a/` is a directory, `a -> b` a link, `a ELF b` an executable whose
/// dynamic loader is `b`, and the rest are files.
fn tree(entries: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for entry in entries {
        let (path, target) =
            entry.split_once(" -> ").map_or((*entry, None), |it| (it.0, Some(it.1)));
        let (path, loader) = path.split_once(" ELF ").map_or((path, None), |it| (it.0, Some(it.1)));
        let at = root.path().join(path);
        if path.ends_with('/') {
            std::fs::create_dir_all(at).unwrap();
            continue;
        }
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        match target {
            Some(target) => symlink(target, at).unwrap(),
            None => std::fs::write(at, loader.map(executable).unwrap_or_default()).unwrap(),
        }
    }
    root
}

fn volume(mount_point: &str, persisted: &[&str]) -> config::Volume {
    let persisted: Vec<PathBuf> = persisted.iter().map(PathBuf::from).collect();
    config::Volume {
        mount_point: mount_point.into(),
        backing: Backing::Btrfs(Btrfs {
            device: "/dev/vda".into(),
            subvolume: "@".into(),
            blank: None,
            generations: "@darlings/root".into(),
        }),
        strategy: Strategy::Carry,
        keep: None,
        rules: Rules::from_lists(&persisted, &[]),
    }
}

/// What a reset is refused for, up to the advice.
fn refused(volume: &config::Volume, previous: &[&str], blank: Option<&[&str]>) -> Option<String> {
    refused_as(Asked::Reset, volume, previous, blank)
}

fn refused_as(
    asked: Asked,
    volume: &config::Volume,
    previous: &[&str],
    blank: Option<&[&str]>,
) -> Option<String> {
    let (previous, blank) = (tree(previous), blank.map(tree));
    let open = |tree: &tempfile::TempDir| Dir::open(tree.path()).unwrap();
    let (previous, blank) = (open(&previous), blank.as_ref().map(open));
    let error = ensure(volume, asked, &previous, blank.as_ref()).err()?.to_string();
    Some(error.split_once(';').unwrap().0.to_owned())
}

const NO_INIT: &str = "the result would hold no init, and the previous state has /sbin/init";

#[test]
fn a_distribution_is_not_reset_to_an_empty_blank_and_is_to_one_with_an_init() {
    let root = volume("/", &["etc/machine-id"]);
    assert_eq!(refused(&root, &DEBIAN, None).as_deref(), Some(NO_INIT));
    assert_eq!(refused(&root, &DEBIAN, Some(&["etc/issue"])).as_deref(), Some(NO_INIT));
    assert_eq!(refused(&root, &DEBIAN, Some(&DEBIAN)), None);
    // A link of the blank's that leads nowhere in the result is not an init.
    let dangling = ["sbin/init -> ../lib/systemd/systemd", "lib -> usr/lib"];
    assert_eq!(refused(&root, &DEBIAN, Some(&dangling)).as_deref(), Some(NO_INIT));
    assert_eq!(
        refused(&root, &["init", "usr/bin/x"], None).as_deref(),
        Some("the result would hold no init, and the previous state has /init")
    );
}

#[test]
fn what_is_persisted_counts_with_the_links_of_the_blank() {
    // All of /usr is kept, and the links into it are the blank's.
    let links = ["sbin -> usr/sbin", "lib -> usr/lib"];
    let keeps_usr = volume("/", &["usr"]);
    assert_eq!(refused(&keeps_usr, &DEBIAN, Some(&links)), None);
    // systemd looks for itself there, too.
    assert_eq!(refused(&keeps_usr, &DEBIAN, None), None);
    let keeps_link = volume("/", &["sbin", "usr/sbin/init"]);
    assert_eq!(refused(&keeps_link, &DEBIAN, None).as_deref(), Some(NO_INIT));
    let keeps_all_of_it = volume("/", &["sbin", "usr/sbin/init", "usr/lib/systemd/systemd"]);
    assert_eq!(refused(&keeps_all_of_it, &DEBIAN, None), None);
}

#[test]
fn nixos_is_reset_to_nothing_unless_the_store_would_go_too() {
    let root = volume("/", &["var/log"]);
    assert_eq!(refused(&root, &NIXOS, None), None);
    // A link into a store that is mounted there later says nothing of this volume.
    let linked = [&NIXOS[..], &["init -> /nix/var/nix/profiles/system/init"]].concat();
    assert_eq!(refused(&root, &linked, None), None);
    let with_store = [
        &NIXOS[..],
        &[
            "nix/store/4-system/init",
            "nix/var/nix/profiles/system -> system-1-link",
            "nix/var/nix/profiles/system-1-link -> /nix/store/4-system",
        ],
    ]
    .concat();
    let expected = "the result would hold no init of NixOS, and the previous state has \
                    /nix/var/nix/profiles/system/init";
    assert_eq!(refused(&root, &with_store, None).as_deref(), Some(expected));
    assert_eq!(refused(&volume("/", &["nix"]), &with_store, None), None);
    // A container is started by its /init, which the store alone does not bring back.
    let container = [&with_store[..], &["init -> /nix/store/4-system/init"]].concat();
    let expected = "the result would hold no init, and the previous state has /init";
    assert_eq!(refused(&volume("/", &["nix"]), &container, None).as_deref(), Some(expected));
    assert_eq!(refused(&volume("/", &["nix", "init"]), &container, None), None);
}

#[test]
fn the_modules_of_the_kernel_that_runs_stay() {
    let release = rustix::system::uname();
    let release = release.release().to_str().unwrap();
    let directory = format!("usr/lib/modules/{release}/");
    let index = format!("{directory}modules.dep");
    let root = volume("/", &[]);
    let with = |more: &[&'static str]| [&DEBIAN[..], more].concat();
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let (directory, index) = (leak(directory), leak(index));
    let of_kernel = |path| {
        Some(format!(
            "the result would hold no modules of the running kernel {release}, and the previous state \
             has {path}"
        ))
    };
    let other = with(&["usr/lib/modules/0.1/modules.dep"]);
    let modules = with(&[index]);
    assert_eq!(
        refused(&root, &modules, Some(&other)),
        of_kernel(format!("/usr/lib/modules/{release}"))
    );
    // A directory with nothing in it holds no modules.
    let empty = with(&[directory]);
    assert_eq!(
        refused(&root, &modules, Some(&empty)),
        of_kernel(format!("/usr/lib/modules/{release}/modules.dep"))
    );
    assert_eq!(refused(&root, &modules, Some(&modules)), None);
    assert_eq!(refused(&volume("/", &["usr/lib/modules"]), &modules, Some(&DEBIAN)), None);
    // Nothing is asked of a result that the previous state did not have.
    assert_eq!(refused(&root, &other, Some(&DEBIAN)), None);
}

#[test]
fn a_volume_of_usr_is_looked_at_by_the_paths_that_it_has_in_the_machine() {
    let usr = ["lib/systemd/systemd", "sbin/init -> /usr/lib/systemd/systemd"];
    assert_eq!(refused(&volume("/usr", &["local"]), &usr, None).as_deref(), Some(NO_INIT));
    assert_eq!(refused(&volume("/usr", &["lib"]), &usr, None), None);
    assert_eq!(refused(&volume("/home", &[]), &["mia/sbin/init", "sbin/init"], None), None);
}

#[test]
fn an_init_stays_with_its_dynamic_loader_and_its_c_library() {
    let loses = |what: &str, has: &str| {
        Some(format!("the result would hold no {what} of init, and the previous state has {has}"))
    };
    let loader = loses("dynamic loader", "/lib64/ld-linux-x86-64.so.2");
    // What holds the init, the modules and the configuration, and no library.
    let kept = ["etc", "usr/lib/systemd", "usr/lib/modules", "usr/sbin"];
    let links = ["sbin -> usr/sbin", "lib64 -> usr/lib64", "lib -> usr/lib"];
    for distribution in [&DEBIAN_WITH_LIBRARIES[..], &FEDORA] {
        for blank in [None, Some(&links[..])] {
            assert_eq!(refused(&volume("/", &kept), distribution, blank), loader);
        }
        assert_eq!(refused(&volume("/", &["usr"]), distribution, Some(&links)), None);
        // The links that the result lacks systemd makes.
        assert_eq!(refused(&volume("/", &["usr"]), distribution, None), None);
        assert_eq!(refused(&volume("/", &["etc"]), distribution, Some(distribution)), None);
    }
    let with_loader = [&kept[..], &["usr/lib64/ld-linux-x86-64.so.2"]].concat();
    let library = loses("C library", "/usr/lib64/libc.so.6");
    assert_eq!(refused(&volume("/", &with_loader), &FEDORA, Some(&links)), library);
    // The blank may be another distribution, with the library elsewhere, or an init that needs neither.
    let root = volume("/", &["home"]);
    assert_eq!(refused(&root, &FEDORA, Some(&DEBIAN_WITH_LIBRARIES)), None);
    assert_eq!(refused(&root, &DEBIAN_WITH_LIBRARIES, Some(&FEDORA)), None);
    assert_eq!(refused(&root, &FEDORA, Some(&["sbin/init"])), None);
    let musl = ["sbin/init ELF /lib/ld-musl-x86_64.so.1", "lib/ld-musl-x86_64.so.1"];
    assert_eq!(refused(&root, &FEDORA, Some(&musl)), None);
    let musl_loader = loses("dynamic loader", "/lib/ld-musl-x86_64.so.1");
    assert_eq!(refused(&volume("/", &["sbin"]), &musl, None), musl_loader);
    // What was never there is not asked for.
    assert_eq!(refused(&volume("/", &["sbin"]), &musl[..1], None), None);
}

#[test]
fn usr_as_a_volume_of_its_own_has_what_the_links_of_the_root_lead_to() {
    for distribution in [&DEBIAN_WITH_LIBRARIES[..], &FEDORA] {
        let below = |entry: &&&'static str| entry.starts_with("usr/");
        let (usr, root): (Vec<&str>, Vec<&str>) = distribution.iter().partition(below);
        let usr: Vec<&str> = usr.iter().map(|entry| &entry[4..]).collect();
        // Nothing of it is the root's, nor are the links needed.
        let root = [&root[..], &["usr/"]].concat();
        assert_eq!(refused(&volume("/", &["etc"]), &root, None), None);
        let blank = ["lib/systemd/systemd ELF /lib64/ld-linux-x86-64.so.2"];
        assert_eq!(
            refused(&volume("/usr", &["local"]), &usr, Some(&blank)).as_deref(),
            Some(
                "the result would hold no dynamic loader of init, and the previous state has \
                 /lib64/ld-linux-x86-64.so.2"
            )
        );
        assert_eq!(refused(&volume("/usr", &["lib", "lib64"]), &usr, Some(&blank)), None);
        assert_eq!(refused(&volume("/usr", &["local"]), &usr, Some(&usr)), None);
    }
}

#[test]
fn a_generation_without_an_init_is_not_restored_whatever_is_persisted() {
    let keeps_all = volume("/", &["usr", "sbin", "lib"]);
    let asked = Asked::Restore(Which::Number(3));
    let refused = |blank| refused_as(asked, &keeps_all, &DEBIAN, Some(blank));
    assert_eq!(refused(&["etc/issue"]).as_deref(), Some(NO_INIT));
    assert_eq!(refused(&DEBIAN), None);
}

#[test]
fn kernels_and_what_is_our_own_are_told_where_they_vanish_from_a_distribution() {
    let told = |previous: &[&str], blank: &[&str], persisted: &[&str]| {
        let (previous, blank) = (tree(previous), tree(blank));
        let (previous, blank) =
            (Dir::open(previous.path()).unwrap(), Dir::open(blank.path()).unwrap());
        vanishing(&volume("/", persisted), &previous, Some(&blank)).unwrap()
    };
    let ours = ["usr/bin/darlings", "etc/darlings.toml", "usr/lib/modules/0.1/kernel/x.ko"];
    let installed = [&DEBIAN[..], &ours].concat();
    assert_eq!(
        told(&installed, &DEBIAN, &["usr/bin/darlings"]),
        [
            "the result would not hold /usr/lib/modules/0.1: when the kernel 0.1 is booted, nothing is \
             reset; make the blank anew, or persist it",
            "the reset erases /etc/darlings.toml, which belongs to darlings itself; persist it, or put \
             it into the blank",
        ]
    );
    assert_eq!(told(&installed, &installed, &[]), [""; 0]);
    // NixOS makes its configuration again at every activation.
    assert_eq!(told(&["etc/darlings.toml", "nix/"], &["etc/issue"], &[]), [""; 0]);
}
