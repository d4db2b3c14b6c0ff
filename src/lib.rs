//! darlings erases a machine's state at every boot, and keeps the paths that its owner persists.
pub mod act;
pub mod ask;
pub mod cli;
pub mod cmdline;
pub mod config;
pub mod engine;
mod errors;
pub mod fs;
pub mod generations;
pub mod keep;
pub mod names;
pub mod own;
pub mod paint;
pub mod rules;
pub mod text;
pub mod tree;
pub mod volume;
