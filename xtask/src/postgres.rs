//! A private PostgreSQL server.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::account::Account;
use crate::debian::{self, Packages};
use crate::error::{Error, Result, cannot};
use crate::folder::Folder;
use crate::server::{Engine, Server};
use crate::shell::{Group, Shell, tail};

const START_MAX: Duration = Duration::from_secs(60);
/// Only the name of the socket file: no server of ours listens on the network.
const PORT: &str = "5432";
/// What every server of ours has. JIT would only add its start-up time, and the library for it is large.
const SETTINGS: &[&str] = &["listen_addresses=", "port=5432", "jit=off"];

/// A server and what it is for.
pub(crate) struct Postgres {
    variable: &'static str,
    settings: &'static [&'static str],
}

impl Postgres {
    /// Data that nobody keeps needs no care for power failures. The tests open one connection per thread and some
    /// more.
    pub(crate) const FOR_TESTS: Self = Self {
        variable: "OPLOG_TEST_POSTGRES_URL",
        settings: &[
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=200",
        ],
    };

    /// A commit must cost what it costs. Room for the log keeps checkpoints, which write whole pages again, out of
    /// a run of some minutes; there is a connection for each thread of each variant.
    pub(crate) const FOR_BENCHMARKS: Self = Self {
        variable: "OPLOG_BENCH_POSTGRES_URL",
        settings: &[
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "shared_buffers=512MB",
            "max_wal_size=8GB",
            "checkpoint_timeout=1h",
            "max_connections=500",
        ],
    };
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn start(&self, shell: &Shell) -> Result<Server> {
        let folder = Folder::create("pg", Account::for_servers())?;
        let binaries = Binaries::find(shell, &folder)?;
        let data = folder.private().join("data");

        let mut initdb = binaries.command(&folder, "initdb");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
        ]);
        initdb.arg("--pgdata").arg(&data);
        shell.output(initdb)?;

        let log = folder.log();
        let file = File::create(&log).map_err(cannot("make the server's log"))?;
        let mut command = binaries.command(&folder, "postgres");
        command.arg("-D").arg(&data).arg("-k").arg(folder.private());
        for setting in SETTINGS.iter().chain(self.settings) {
            command.args(["-c", setting]);
        }
        command
            .stderr(file.try_clone().map_err(cannot("share the server's log"))?)
            .stdout(file);
        // SIGQUIT is PostgreSQL's "immediate" shutdown: no checkpoint of what is thrown away anyway.
        let mut process = Group::spawn(&mut command)?.farewell(Signal::QUIT);
        folder.note(process.id())?;

        let pid_file = data.join("postmaster.pid");
        let up = shell.poll(START_MAX, || match process.ended() {
            Some(status) => Err(Error::new(format!(
                "PostgreSQL did not start ({status}){}",
                tail(&log)
            ))),
            None => Ok(is_ready(&pid_file).then_some(())),
        })?;
        if up.is_none() {
            return Err(Error::new(format!(
                "PostgreSQL is not up after {} s{}",
                START_MAX.as_secs(),
                tail(&log)
            )));
        }
        let url = format!(
            "postgres://postgres@/postgres?host={}&port={PORT}",
            encode(&folder.private())
        );
        let mut programs = vec![("OPLOG_TEST_POSTGRES_BIN", binaries.folder.into_os_string())];
        programs.extend(
            binaries
                .libraries
                .map(|libraries| ("OPLOG_TEST_POSTGRES_LIBRARIES", libraries)),
        );
        Ok(Server {
            process,
            folder,
            about: binaries.about,
            url,
            programs,
        })
    }
}

/// The eighth line of `postmaster.pid` is the server's status.
fn is_ready(pid_file: &Path) -> bool {
    fs::read_to_string(pid_file)
        .is_ok_and(|text| text.lines().nth(7).map(str::trim) == Some("ready"))
}

/// PostgreSQL programs that this machine and the server's account can run.
struct Binaries {
    folder: PathBuf,
    /// For unpacked packages: where their shared libraries are.
    libraries: Option<OsString>,
    about: String,
}

impl Binaries {
    fn find(shell: &Shell, folder: &Folder) -> Result<Self> {
        let mut tried = Vec::new();
        if debian::ignores_installed() {
            tried.push(
                "installed binaries: ignored because of OPLOG_TEST_IGNORE_INSTALLED".to_owned(),
            );
        } else {
            let chosen = env::var_os("PGBIN")
                .filter(|bin| !bin.is_empty())
                .map(PathBuf::from);
            let candidates = chosen
                .clone()
                .map_or_else(|| installed(shell), |bin| vec![bin]);
            if candidates.is_empty() {
                tried.push(
                    "installed binaries: none in PATH, /usr/lib/postgresql/*/bin, pg_config's"
                        .to_owned(),
                );
            }
            for candidate in candidates {
                match Self::check(shell, folder, candidate, None) {
                    Ok(binaries) => return Ok(binaries),
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    // Another server than the one asked for would be a surprise.
                    Err(Error::Failed(why)) if chosen.is_some() => {
                        return Err(Error::new(format!("PGBIN cannot be used: {why}")));
                    }
                    Err(Error::Failed(why)) => tried.push(why),
                }
            }
        }
        let get = || Packages::get(shell, "postgresql", is_needed);
        let unpacked = get().and_then(|packages| match Self::unpacked(shell, folder, &packages) {
            // What lies there from an earlier run may be of another system.
            Err(Error::Failed(_)) if packages.were_there() => {
                packages.forget()?;
                Self::unpacked(shell, folder, &get()?)
            }
            found => found,
        });
        match unpacked {
            Err(Error::Failed(why)) => {
                tried.push(format!("Debian's packages: {why}"));
                Err(Error::new(advice(&tried)))
            }
            found => found,
        }
    }

    fn unpacked(shell: &Shell, folder: &Folder, packages: &Packages) -> Result<Self> {
        // The server's account may not be let into a checkout below somebody's home.
        let open = folder
            .account()
            .is_none_or(|account| account.can_enter(packages.tree()));
        let tree = if open {
            packages.tree().to_owned()
        } else {
            packages.unpack(shell, &folder.path().join("debian"))?
        };
        let bin = newest(&tree.join("usr/lib/postgresql"))
            .into_iter()
            .next()
            .ok_or_else(|| Error::new("the packages hold no PostgreSQL server"))?;
        if !Path::new("/usr/share/zoneinfo/UTC").exists() {
            // Debian's server looks there and nowhere else, and Diesel sets the time zone of every connection.
            return Err(Error::new("they need the package `tzdata` to be installed"));
        }
        Self::check(shell, folder, bin, Some(debian::library_path(&tree)))
    }

    /// Tries the programs as the server's account.
    fn check(
        shell: &Shell,
        folder: &Folder,
        bin: PathBuf,
        libraries: Option<OsString>,
    ) -> Result<Self> {
        let origin = if libraries.is_some() {
            "Debian's packages in"
        } else {
            "installed in"
        };
        let mut binaries = Self {
            about: String::new(),
            folder: bin,
            libraries,
        };
        for program in ["initdb", "postgres"] {
            let mut command = binaries.command(folder, program);
            command.arg("--version");
            let version = shell.output(command).map_err(|error| match error {
                Error::Failed(why) => Error::new(format!("{}: {why}", binaries.folder.display())),
                Error::Interrupted => Error::Interrupted,
            })?;
            binaries.about = format!("{}, {origin} {}", version.trim(), binaries.folder.display());
        }
        Ok(binaries)
    }

    fn command(&self, folder: &Folder, program: &str) -> Command {
        let mut command = folder.command(&self.folder.join(program));
        // The user's PGDATA, PGPORT and others are for another server.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// Folders with both programs, best first.
fn installed(shell: &Shell) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(newest(Path::new("/usr/lib/postgresql")));
    let mut config = Command::new("pg_config");
    config.arg("--bindir");
    folders.extend(
        shell
            .output(config)
            .ok()
            .map(|folder| PathBuf::from(folder.trim())),
    );
    let mut found = Vec::new();
    for folder in folders.into_iter().filter(|folder| folder.is_absolute()) {
        // A link from another folder: PostgreSQL looks for its other files beside the program itself.
        let program = |name: &str| folder.join(name).canonicalize().ok();
        let (Some(postgres), Some(_)) = (program("postgres"), program("initdb")) else {
            continue;
        };
        let real = postgres
            .parent()
            .map_or_else(|| folder.clone(), Path::to_owned);
        let real = if real.join("initdb").exists() {
            real
        } else {
            folder
        };
        if !found.contains(&real) {
            found.push(real);
        }
    }
    found
}

/// `<base>/<version>/bin`, newest version first.
fn newest(base: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("postgres").exists() && bin.join("initdb").exists())
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, bin)| bin).collect()
}

/// Of what `postgresql` depends on: the server of one version and the libraries it is linked to. The rest of
/// `postgresql` manages servers of a whole machine; LLVM is only for JIT.
fn is_needed(package: &str) -> bool {
    let server = package.strip_prefix("postgresql-");
    server.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
        || (debian::is_library(package) && !package.starts_with("libllvm"))
}

/// A path as a value in a URL's query.
fn encode(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte))
            }
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

fn advice(tried: &[String]) -> String {
    let tried: String = tried
        .iter()
        .map(|line| format!("\n  {}", line.replace('\n', "\n    ")))
        .collect();
    format!(
        "no PostgreSQL server can be started.{tried}
Do one of these and try again:
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-server
  Arch:            pacman -S postgresql
  Alpine:          apk add postgresql
  macOS:           brew install postgresql
  binaries at hand:          PGBIN=/folder/of/initdb cargo xtask test
  a server at hand:          OPLOG_TEST_POSTGRES_URL=postgres://user@host/database cargo xtask test
  leave PostgreSQL out:      cargo xtask test sqlite"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_of_a_path_survive_a_url() {
        assert_eq!(
            encode(Path::new("/tmp/a b&c%/ü")),
            "/tmp/a%20b%26c%25/%C3%BC"
        );
    }

    #[test]
    fn only_the_server_and_its_libraries_are_fetched() {
        let check = |package, expected| assert_eq!(is_needed(package), expected, "{package}");
        check("postgresql-15", true);
        check("postgresql-client-15", false);
        check("postgresql-common", false);
        check("libicu72", true);
        check("libllvm14", false);
        check("tzdata", false);
    }
}
