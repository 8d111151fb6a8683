/// The operating system gave no random bytes. Nothing was sealed or created.
///
/// A guessable nonce or key would undo everything the envelope promises, so no fallback exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct RngError {
    #[from]
    source: getrandom::Error,
}

/// Fills the buffer from the operating system's generator, in place so that no copy stays behind.
pub(crate) fn fill(buffer: &mut [u8]) -> Result<(), RngError> {
    Ok(getrandom::fill(buffer)?)
}
