//! The journal of a `carry`: whatever the bytes, it is refused, or it is read as it is written.
#![no_main]

use darlings::keep::carry::Journal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(journal) = Journal::parse(text, "it") else { return };
    assert_eq!(journal.version.max(1), 1, "a newer version was read");
    let written = serde_json::to_vec(&journal).expect("what was read can be written");
    let again = Journal::parse(&written, "it").expect("what was written can be read");
    assert_eq!(again, journal);
});
