use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use oplog_core::{Kek, KekTextError, RngError};
use zeroize::Zeroizing;

/// Where key-encryption keys come from. The first key wraps new data keys; all of them unwrap.
pub trait KeySource {
    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// [`KeySourceError`], which names the file or variable and never shows its content.
    fn keys(&self) -> Result<Vec<Kek>, KeySourceError>;
}

/// A file with key-encryption keys, one a line: `oplog-kek-v1:` and 43 characters of base64url.
///
/// On Unix the file must be readable and writable by its owner only (mode `0600` or less).
/// Source: `FORMAT.md`, section "Key-encryption keys".
///
/// # Examples
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("oplog-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// use oplog_diesel::{KeyFile, KeySource};
///
/// let path = folder.join("oplog.key");
/// assert!(KeyFile::new(&path).keys().is_err()); // never creates a file
/// let file = KeyFile::create_if_missing(&path)?;
/// assert_eq!(file.keys()?.len(), 1);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), oplog_diesel::KeySourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

/// The environment variable `OPLOG_KEK`, or another one, in the form of a [`KeyFile`].
///
/// Weaker than a file: child processes inherit it, and whoever may look at the process can read it.
#[derive(Clone, Debug)]
pub struct KeyEnv {
    variable: String,
}

/// Key-encryption keys that could not be read. Never holds any of their text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// No source was given to the builder.
    #[error("no key was given: call `OplogBuilder::key`")]
    Missing,
    /// The file can't be read, or not be created.
    #[error("the key file {} could not be {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Others than the owner may use the file.
    #[error("the key file {} has mode {mode:04o}; run `chmod 600` on it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is far larger than keys are.
    #[error("the key file {} is larger than {max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// The file or variable does not hold keys.
    #[error("{place} holds no keys in the form `oplog-kek-v1:…`")]
    Text {
        /// The file or variable.
        place: String,
        /// What is wrong.
        source: KekTextError,
    },
    /// The variable is not set, or not Unicode.
    #[error("the environment variable `{variable}` is not set")]
    NotSet {
        /// The variable.
        variable: String,
    },
    /// The operating system gave no random bytes for a new key.
    #[error("no key could be drawn")]
    Rng(#[from] RngError),
}

/// More than a thousand keys.
const FILE_LEN_MAX: u64 = 64 * 1024;

impl KeyFile {
    /// An existing file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        KeyFile { path: path.into() }
    }

    /// The file, which is created with a new random key if it does not exist.
    ///
    /// Safe when several processes do it at once: one creates the file, the others read it.
    /// **Keep a copy of the file somewhere else. Without it the log can't be read by anybody.**
    ///
    /// # Errors
    ///
    /// [`KeySourceError::Io`] or [`KeySourceError::Rng`] if it could not be created.
    pub fn create_if_missing(path: impl Into<PathBuf>) -> Result<Self, KeySourceError> {
        let file = KeyFile::new(path);
        if !file.path.exists() {
            file.create().or_else(|error| match error {
                // Somebody else was first.
                KeySourceError::Io { source, .. }
                    if source.kind() == io::ErrorKind::AlreadyExists =>
                {
                    Ok(())
                }
                error => Err(error),
            })?;
        }
        Ok(file)
    }

    fn create(&self) -> Result<(), KeySourceError> {
        let kek = Kek::generate()?;
        // Written beside it and then linked into place, so that nobody ever reads half a key. Under
        // a name that no other thread has, and none that died on the way: process ids come again.
        let mut name = self.path.clone().into_os_string();
        name.push(format!(
            ".{:016x}.new",
            getrandom::u64().map_err(RngError::from)?
        ));
        let new = PathBuf::from(name);
        let written = write_private(&new, kek.to_text().as_bytes())
            .and_then(|()| fs::hard_link(&new, &self.path));
        let _ = fs::remove_file(&new);
        written.map_err(|source| self.io("created", source))
    }

    fn io(&self, action: &'static str, source: io::Error) -> KeySourceError {
        KeySourceError::Io {
            path: self.path.clone(),
            action,
            source,
        }
    }
}

impl KeySource for KeyFile {
    fn keys(&self) -> Result<Vec<Kek>, KeySourceError> {
        let file = File::open(&self.path).map_err(|source| self.io("opened", source))?;
        let metadata = file.metadata().map_err(|source| self.io("read", source))?;
        check_mode(&self.path, &metadata)?;
        // One byte more than is allowed, since a pipe does not tell its length. With the full size
        // from the start: a buffer that grows leaves copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(FILE_LEN_MAX as usize + 1));
        file.take(FILE_LEN_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|source| self.io("read", source))?;
        if text.len() as u64 > FILE_LEN_MAX {
            return Err(KeySourceError::TooLong {
                path: self.path.clone(),
                max: FILE_LEN_MAX,
            });
        }
        parse(&text, || self.path.display().to_string())
    }
}

impl KeyEnv {
    /// The variable `OPLOG_KEK`.
    pub fn new() -> Self {
        KeyEnv::named("OPLOG_KEK")
    }

    /// Another variable.
    pub fn named(variable: impl Into<String>) -> Self {
        KeyEnv {
            variable: variable.into(),
        }
    }
}

impl Default for KeyEnv {
    fn default() -> Self {
        KeyEnv::new()
    }
}

impl KeySource for KeyEnv {
    fn keys(&self) -> Result<Vec<Kek>, KeySourceError> {
        let text = std::env::var(&self.variable)
            .map(Zeroizing::new)
            .map_err(|_| KeySourceError::NotSet {
                variable: self.variable.clone(),
            })?;
        parse(&text, || {
            format!("the environment variable `{}`", self.variable)
        })
    }
}

fn parse(text: &str, place: impl Fn() -> String) -> Result<Vec<Kek>, KeySourceError> {
    Kek::parse_text(text).map_err(|source| KeySourceError::Text {
        place: place(),
        source,
    })
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), KeySourceError> {
    use std::os::unix::fs::PermissionsExt;
    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o077 != 0 => Err(KeySourceError::Mode {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), KeySourceError> {
    Ok(())
}

impl fmt::Display for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
