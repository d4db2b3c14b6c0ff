//! Volumes: the seam between the engine and ZFS, btrfs and plain directories, one folder for each.

mod backing;
mod bootable;
mod booted;
mod btrfs;
mod dir;
mod elsewhere;
#[cfg(test)]
mod every_step;
mod looked;
mod missing;
mod mounts;
mod open;
mod running;
mod seam;
mod zfs;

pub use backing::{FromWithin, mounted_from_within};
pub use bootable::vanishing;
pub use booted::boots_another;
pub use looked::unreachable;
pub(in crate::volume) use looked::{LEAST_ROOM, Looked, ensure_copy_fits, ensure_room};
pub use missing::{InitOptions, Missing};
pub use mounts::{mount_points, mounted_at_or_below, mounted_over};
pub use open::{in_words, init, open, store, with_rules_for};
pub use running::{
    Cover, cover, in_running_system, is_mount_point, other_mount, place_in, zfs_clones_no_blocks,
};
pub use seam::{OnlyNow, OpenVolume, Options, Standing};
