//! The configuration file: TOML in, checked [`Config`] out.

mod backing;
pub mod digest;
mod error;
mod min_free;
mod parse;
mod types;

pub use error::ConfigError;
pub use min_free::MinFree;
pub use parse::DEFAULT_PATH;
pub use types::{
    Backing, Btrfs, Config, Keep, NewerSnapshots, OnFailure, PlainDirectory, Strategy, Volume, Zfs,
};

#[cfg(test)]
mod tests;
