//! Real machines, booted several times in a row.

mod boots_again_and_again;
mod common;
mod failed_reset;
mod nixos;
mod power_cuts;
mod ten_boots;
