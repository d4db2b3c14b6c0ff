//! What changes something in the running system, when a person or a timer asks for it.

pub mod adopt;
pub mod check;
pub mod init;
pub mod purge;
pub mod recover;
