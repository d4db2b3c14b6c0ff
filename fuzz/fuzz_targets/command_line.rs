//! The kernel command line: whatever the bytes, what is asked for is known, or refused. A word of
//! ours at the end of a line that leaves no quote open counts.
#![no_main]

use darlings::cmdline::{Asked, CommandLine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let parsed = CommandLine::parse(line);
    let root = |line: &CommandLine| {
        (line.root_subvolid(), line.root_subvolume(), line.root_dataset())
    };
    match parsed.asked() {
        Ok(Asked::Reset) => {}
        Ok(asked) => {
            let said = CommandLine::parse(format!("darlings={asked}").as_bytes());
            assert_eq!(said.asked().expect("it was understood before"), asked);
        }
        Err(unknown) => assert!(unknown.to_string().contains("means nothing")),
    }
    if line.iter().filter(|byte| **byte == b'"').count() % 2 == 0 {
        let ended = CommandLine::parse(&[line, b" darlings=off"].concat());
        assert_eq!(ended.asked().expect("it is ours"), Asked::Off);
        assert_eq!(root(&ended), root(&parsed));
    }
});
