//! The throw-away folder of one server, and what is left of those whose run was killed.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::account::Account;
use crate::error::{Error, Result, cannot};

const PREFIX: &str = "oplog-server-";
/// Held while the run lives. The kernel lets go of it however the run ends, and no number can be taken over
/// by a stranger as it can be with a process id.
const LOCK: &str = "lock";
const PID: &str = "pid";
/// Whose files belong to the server's account. Nobody else gets in: the server trusts every client.
const PRIVATE: &str = "private";
/// Shortest limit of a Unix socket's path that we know (macOS 104, Linux 108), one less for its end.
const SOCKET_PATH_MAX: usize = 103;

/// A folder that only we and the server can use, removed when dropped.
pub(crate) struct Folder {
    path: PathBuf,
    account: Option<Account>,
    _lock: File,
}

impl Folder {
    /// Makes a new folder for a server of that name that runs as `account`.
    pub(crate) fn create(server: &str, account: Option<Account>) -> Result<Self> {
        let bases = bases();
        for base in &bases {
            remove_stale(base);
        }
        let fits = |base: &&PathBuf| {
            let longest = format!("{PREFIX}{server}-{}-999/{PRIVATE}/.s.PGSQL.5432", u32::MAX);
            base.join(longest).as_os_str().len() <= SOCKET_PATH_MAX
                && account.is_none_or(|account| account.can_enter(base))
        };
        let base = bases.iter().find(fits).ok_or_else(|| {
            Error::new(format!(
                "no folder for the server's data: none of {} is short enough for a socket path and open to the \
                 server's user; set TMPDIR to one that is",
                bases.iter().map(|base| base.display().to_string()).collect::<Vec<_>>().join(", ")
            ))
        })?;
        // With another account the outer folder holds our notes and lets that account pass, no more.
        let mode = if account.is_some() { 0o711 } else { 0o700 };
        let path = (0..1000)
            .map(|number| base.join(format!("{PREFIX}{server}-{}-{number}", process::id())))
            .find_map(|path| match DirBuilder::new().mode(mode).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                made => Some(made.map(|()| path)),
            })
            .ok_or_else(|| Error::new(format!("{} is full of folders {PREFIX}*", base.display())))?
            .map_err(cannot(format!("make a folder in {}", base.display())))?;
        let folder = Self::fill(path.clone(), account, mode);
        if folder.is_err() {
            let _ = fs::remove_dir_all(path);
        }
        folder
    }

    fn fill(path: PathBuf, account: Option<Account>, mode: u32) -> Result<Self> {
        let what = || format!("set up {}", path.display());
        // The umask may have taken the bit that the other account needs.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(cannot(what()))?;
        let private = path.join(PRIVATE);
        DirBuilder::new()
            .mode(0o700)
            .create(&private)
            .map_err(cannot(what()))?;
        if let Some(account) = account {
            chown(&private, Some(account.uid), Some(account.gid)).map_err(cannot(what()))?;
        }
        // Renamed when locked: who finds a lock that nobody holds knows that its run is over.
        let new = path.join("lock.new");
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(cannot(what()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| cannot(what())(error.into()))?;
        fs::rename(new, path.join(LOCK)).map_err(cannot(what()))?;
        Ok(Self {
            path,
            account,
            _lock: lock,
        })
    }

    pub(crate) fn account(&self) -> Option<Account> {
        self.account
    }

    /// Readable for the server's account and writable only for us.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For what the server prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Owned by the server's account.
    pub(crate) fn private(&self) -> PathBuf {
        self.path.join(PRIVATE)
    }

    /// A command that runs as the server's account, in its folder, in English.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.private()).env("LC_ALL", "C");
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        command
    }

    /// Notes the server's process, for the run that may have to clean up after us.
    pub(crate) fn note(&self, process: u32) -> Result<()> {
        fs::write(self.path.join(PID), process.to_string())
            .map_err(cannot("note the server's process"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("warning: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Where a folder may be made, best first.
fn bases() -> Vec<PathBuf> {
    let mut bases = vec![
        env::temp_dir(),
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
    ];
    bases.retain(|base| base.is_absolute() && base.is_dir());
    bases.dedup();
    bases
}

/// Stops the servers and removes the folders of runs that ended without doing so.
fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Anyone may put folders into a temporary folder: only our own are believed.
        let ours =
            || fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() && meta.uid() == euid());
        if named && ours() {
            let Ok(lock) = File::open(path.join(LOCK)) else {
                continue;
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                eprintln!("removing {}, its run was killed", path.display());
                stop_stale(&path);
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

fn stop_stale(folder: &Path) {
    let number = fs::read_to_string(folder.join(PID))
        .ok()
        .and_then(|text| text.parse().ok());
    let Some(process) = number.and_then(Pid::from_raw) else {
        return;
    };
    // The number may belong to somebody else by now: the server names its folder on its command line.
    let alive = || {
        test_kill_process(process).is_ok()
            && command_line(process).contains(&*folder.to_string_lossy())
    };
    for signal in [Signal::QUIT, Signal::KILL] {
        if !alive() {
            return;
        }
        let _ = kill_process(process, signal);
        let start = Instant::now();
        while alive() && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn command_line(process: Pid) -> String {
    let process = process.as_raw_nonzero().to_string();
    fs::read(format!("/proc/{process}/cmdline"))
        .or_else(|_| {
            Command::new("ps")
                .args(["-o", "args=", "-p", &process])
                .output()
                .map(|output| output.stdout)
        })
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}
