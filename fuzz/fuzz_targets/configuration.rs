//! The configuration: whatever the bytes, it is refused in words with a place that exists, or what
//! comes out of it holds to the rules.
#![no_main]

use std::path::{Component, Path};

use darlings::config::Config;
use darlings::rules::Verdict;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let config = match Config::from_bytes(Path::new("it"), bytes) {
        Ok(config) => config,
        Err(error) => {
            let words = error.to_string();
            let place = words.strip_prefix("it:").expect("it names the file");
            if let Some((line, rest)) = place.split_once(':')
                && let Ok(line) = line.parse::<usize>()
            {
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&line), "line {line} of {lines}: {words}");
                assert!(rest.contains(": "), "{words}");
            }
            return;
        }
    };
    for volume in &config.volumes {
        assert!(volume.mount_point.is_absolute());
        for persisted in volume.rules.persisted() {
            let path = &persisted.path;
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
            assert!(!path.as_os_str().is_empty() && !path.starts_with(".darlings"), "{path:?}");
            assert_eq!(volume.rules.verdict(path), Verdict::Persisted, "{path:?}");
        }
        for excluded in volume.rules.excluded() {
            assert_ne!(volume.rules.verdict(&excluded), Verdict::Persisted, "{excluded:?}");
        }
    }
});
