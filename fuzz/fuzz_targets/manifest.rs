//! The manifest: whatever the bytes, it is refused, or it is read as it is written.
#![no_main]

use darlings::own::state::{Manifest, parse_manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(manifest) = parse_manifest(text, "it") else { return };
    assert_eq!(manifest.version.max(1), 1, "a newer version was read");
    let written = serde_json::to_vec(&manifest).expect("what was read can be written");
    let again: Manifest = parse_manifest(&written, "it").expect("what was written can be read");
    assert_eq!(again, manifest);
});
