//! The `darlings` command.

fn main() {}
