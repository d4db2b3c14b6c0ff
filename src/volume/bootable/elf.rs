//! The one thing that is wanted of an ELF file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// The type of the program header that holds the path of the dynamic loader.
const INTERP: u64 = 3;

/// The dynamic loader that an executable names (elf(5), `PT_INTERP`); `None` where it is not an ELF file, or
/// is cut off, so that no kernel runs it, or needs none.
pub(super) fn loader(program: &File) -> io::Result<Option<PathBuf>> {
    match read(program) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        loader => loader,
    }
}

fn read(program: &File) -> io::Result<Option<PathBuf>> {
    let mut header = [0; 64];
    // A header of 32 bits is shorter, but no program is.
    program.read_exact_at(&mut header, 0)?;
    if !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let (wide, big) = (header[4] == 2, header[5] == 2);
    let number = |bytes: &[u8], at: usize, length: usize| {
        let bytes = bytes[at..at + length].iter();
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if big { bytes.fold(0, add) } else { bytes.rev().fold(0, add) }
    };
    let (table, size, count) = if wide {
        (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2))
    } else {
        (number(&header, 28, 4), number(&header, 42, 2), number(&header, 44, 2))
    };
    for index in 0..count {
        let mut entry = [0; 40];
        let wanted = if wide { 40 } else { 32 };
        program.read_exact_at(&mut entry[..wanted], table.saturating_add(index * size))?;
        if number(&entry, 0, 4) != INTERP {
            continue;
        }
        let (at, length) = if wide {
            (number(&entry, 8, 8), number(&entry, 32, 8))
        } else {
            (number(&entry, 4, 4), number(&entry, 16, 4))
        };
        // As long as a path may be (`PATH_MAX`).
        let mut path = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(4096)];
        program.read_exact_at(&mut path, at)?;
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        path.truncate(end);
        return Ok(Some(PathBuf::from(OsString::from_vec(path))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write as _;

    use super::*;

    fn loader_in(bytes: &[u8]) -> Option<PathBuf> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        loader(&file).unwrap()
    }

    #[test]
    fn the_loader_is_read_of_both_widths_and_byte_orders_and_of_no_other_file() {
        let own = File::open("/proc/self/exe").unwrap();
        let found = loader(&own).unwrap().unwrap();
        assert!(found.starts_with("/") && found.exists(), "{found:?}");

        // Of 32 bits, the other way around: one header at 52, the path at 84.
        let mut big = vec![0; 96];
        big[..6].copy_from_slice(b"\x7fELF\x01\x02");
        big[31] = 52;
        big[43] = 32;
        big[45] = 1;
        big[55] = 3;
        big[59] = 84;
        big[71] = 9;
        big[84..92].copy_from_slice(b"/lib/ld\0");
        assert_eq!(loader_in(&big), Some("/lib/ld".into()));
        // It names something behind its end, has no header of that kind, is short, or a script.
        assert_eq!(loader_in(&big[..88]), None);
        big[55] = 1;
        assert_eq!(loader_in(&big), None);
        assert_eq!(loader_in(b"\x7fELF"), None);
        assert_eq!(loader_in(&b"#!/bin/sh\n".repeat(9)), None);
    }
}
