//! A PostgreSQL server of a test's own, which may be stopped while others write.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Set by `cargo xtask test` to the folder of the programs that it uses itself.
const PROGRAMS: &str = "OPLOG_TEST_POSTGRES_BIN";
/// Set by it if those need libraries from elsewhere.
const LIBRARIES: &str = "OPLOG_TEST_POSTGRES_LIBRARIES";
const START_MAX: Duration = Duration::from_secs(60);

/// What is committed survives the end of the server, but need not survive that of the machine.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "port=5432",
    "fsync=off",
    "synchronous_commit=on",
    "max_connections=50",
    "jit=off",
];

/// A server with an empty cluster, stopped and removed when it is dropped.
pub struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    account: Option<(u32, u32)>,
    /// Bytes that a file may have at most.
    file_max: Option<u64>,
    process: Option<Child>,
}

impl Server {
    /// A running server.
    pub fn new() -> Self {
        Self::create(None)
    }

    /// A running server of which no file can grow beyond so many bytes, as if the disk were full then.
    pub fn with_file_max(bytes: u64) -> Self {
        Self::create(Some(bytes))
    }

    fn create(file_max: Option<u64>) -> Self {
        let mut server = Server {
            folder: tempfile::tempdir().expect("a temporary folder"),
            programs: programs(),
            account: geteuid().is_root().then(account),
            file_max,
            process: None,
        };
        fs::create_dir(server.private()).expect("a folder for the server");
        if let Some((uid, gid)) = server.account {
            // The server refuses to be root, and so needs to get into the folder as somebody else.
            fs::set_permissions(server.folder.path(), Permissions::from_mode(0o711))
                .expect("a folder that others pass");
            chown(server.private(), Some(uid), Some(gid)).expect("a folder of the server's");
        }
        let mut initdb = server.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres"]);
        initdb.args(["--encoding=UTF8", "--no-locale", "--wal-segsize=1"]);
        initdb.arg("--pgdata").arg(server.data());
        let made = initdb.output().expect("initdb");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.start();
        server
    }

    /// For Diesel.
    pub fn url(&self) -> String {
        let host = self.private();
        format!(
            "postgres://postgres@/postgres?host={}&port=5432",
            host.display()
        )
    }

    /// Starts the server again, once nothing of the one before is left.
    pub fn start(&mut self) {
        let started = Instant::now();
        while !self.try_start() {
            assert!(
                started.elapsed() < START_MAX,
                "PostgreSQL does not start: {}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// As `pg_ctl stop --mode=immediate`: connections end at once, and the next start recovers.
    pub fn stop(&mut self) {
        self.end(Signal::QUIT);
    }

    /// Kills the server's first process. Those of the connections find out by themselves.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), signal).expect("a signal to the server");
            process.wait().expect("the server's end");
        }
    }

    fn try_start(&mut self) -> bool {
        let log = File::create(self.log()).expect("the server's log");
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.private());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let stdout = log.try_clone().expect("the server's log");
        let mut process = command
            .stderr(log)
            .stdout(stdout)
            .spawn()
            .expect("postgres");
        let pid_file = self.data().join("postmaster.pid");
        loop {
            let ended = process.try_wait().expect("the server's state");
            if ended.is_some() {
                return false;
            }
            // The eighth line is the server's state, the first its process.
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            if lines.first() == Some(&process.id().to_string().as_str())
                && lines.get(7) == Some(&"ready")
            {
                self.process = Some(process);
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A program of PostgreSQL's, as the server's account and under its limits.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.file_max {
            None => Command::new(program),
            Some(bytes) => {
                // In blocks of 512 bytes, whatever shell it is.
                let limit = format!("ulimit -f {} && exec \"$@\"", bytes / 512);
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &limit, "sh"]).arg(program);
                shell
            }
        };
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        if let Some(libraries) = env::var_os(LIBRARIES) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command.current_dir(self.private()).env("LC_ALL", "C");
        command
    }

    fn private(&self) -> PathBuf {
        self.folder.path().join("private")
    }

    fn data(&self) -> PathBuf {
        self.private().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The folder with `initdb` and `postgres`.
fn programs() -> PathBuf {
    let named = [PROGRAMS, "PGBIN"].map(env::var_os);
    let named = named
        .into_iter()
        .flatten()
        .filter(|value| !value.is_empty());
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    let has_both = |folder: &PathBuf| {
        ["initdb", "postgres"]
            .map(|name| folder.join(name))
            .iter()
            .all(|program| program.exists())
    };
    let mut folders = named
        .map(PathBuf::from)
        .chain(env::split_paths(&path))
        .chain(installed);
    folders.find(has_both).unwrap_or_else(|| {
        panic!(
            "`initdb` and `postgres` are missing: they are neither in the folder of {PROGRAMS} or PGBIN, \
             nor in PATH or /usr/lib/postgresql/*/bin"
        )
    })
}

/// Somebody who is not root: user and group.
fn account() -> (u32, u32) {
    let passwd = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let number = |index: usize| fields.get(index)?.parse().ok();
            (fields.first() == Some(&wanted)).then_some((number(2)?, number(3)?))
        })
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .unwrap_or((65534, 65534))
}
