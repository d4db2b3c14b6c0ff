//! Several failures told as one.

/// Goes through all of it whatever fails, and reports every failure.
///
/// # Errors
/// All failures, in their order.
pub(crate) fn all(results: impl Iterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let failures = results.filter_map(Result::err);
    match failures.reduce(|first, next| and_then(&first, &next)) {
        Some(failed) => Err(failed),
        None => Ok(()),
    }
}

/// Two failures in the order in which they happened; neither is the other's cause.
pub(crate) fn and_then(first: &anyhow::Error, next: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{first:#}\nand then: {next:#}")
}
