//! A hibernation image that waits to be resumed: a machine that sleeps with its filesystems
//! mounted. Changing them under it would destroy them, so nothing is reset (I6).

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;

/// What the kernel writes over the swap signature while an image waits (`HIBERNATE_SIG` in
/// kernel/power/swap.c).
const SIGNATURE: &[u8] = b"S1SUSPEND";

/// The signature ends six bytes before the end of the header's page.
const SIGNATURE_AT: u64 = 4086;

/// Whether an image waits on the device that the kernel would resume from, as
/// `/sys/power/resume` names it.
///
/// # Errors
/// The device cannot be read, so that nobody knows.
pub fn image_waits() -> anyhow::Result<bool> {
    let Some(device) = read_setting(Path::new("/sys/power/resume"))? else { return Ok(false) };
    if device == "0:0" {
        return Ok(false);
    }
    let pages = read_setting(Path::new("/sys/power/resume_offset"))?;
    let pages: u64 = pages
        .as_deref()
        .unwrap_or("0")
        .parse()
        .context("/sys/power/resume_offset holds no number")?;
    let path = format!("/dev/block/{device}");
    image_waits_on(Path::new(&path), pages * 4096)
        .with_context(|| format!("cannot tell whether a hibernation image waits on {path}"))
}

fn read_setting(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        // A kernel that cannot hibernate.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {path:?}")),
    }
}

fn image_waits_on(device: &Path, header_at: u64) -> std::io::Result<bool> {
    let mut found = [0; SIGNATURE.len()];
    match File::open(device)?.read_exact_at(&mut found, header_at + SIGNATURE_AT) {
        Ok(()) => Ok(found == SIGNATURE),
        // Smaller than a page: there is no room for an image.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::image_waits_on;

    #[test]
    fn an_image_is_known_by_its_signature_at_the_offset() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("swap");
        let mut bytes = vec![0; 3 * 4096];
        std::fs::write(&device, &bytes).unwrap();
        assert!(!image_waits_on(&device, 0).unwrap());
        bytes[4096 + 4086..4096 + 4095].copy_from_slice(b"S1SUSPEND");
        std::fs::write(&device, &bytes).unwrap();
        assert!(!image_waits_on(&device, 0).unwrap());
        assert!(image_waits_on(&device, 4096).unwrap());
        std::fs::write(&device, b"short").unwrap();
        assert!(!image_waits_on(&device, 0).unwrap());
    }
}
