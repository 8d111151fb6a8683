//! Why a task ends early.

use std::io;

pub(crate) type Result<T> = std::result::Result<T, Error>;

pub(crate) enum Error {
    /// Ctrl-C or another signal; the user knows why, so it carries no text.
    Interrupted,
    /// A whole sentence for the user.
    Failed(String),
}

impl Error {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Error::Failed(why.into())
    }
}

/// `cannot <what>: <io error>`
pub(crate) fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |cause| Error::Failed(format!("cannot {what}: {cause}"))
}
