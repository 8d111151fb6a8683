//! Private servers for the tests. Each engine has a file of its own; a new one is added to [`ENGINES`].

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::postgres::Postgres;
use crate::report::Report;
use crate::shell::{Group, Shell, tail};

/// A database engine that we can bring up.
pub(crate) trait Engine {
    fn name(&self) -> &'static str;
    /// The variable in which the tests look for the URL. If the user has set it, no server is started.
    fn variable(&self) -> &'static str;
    fn start(&self, shell: &Shell) -> Result<Server>;
}

pub(crate) const ENGINES: &[&dyn Engine] = &[&Postgres::FOR_TESTS];

/// A running server of ours. Dropping it stops it and removes its folder.
pub(crate) struct Server {
    // Order matters: the process ends before its folder goes.
    pub(crate) process: Group,
    pub(crate) folder: Folder,
    /// For people: version and where it came from.
    pub(crate) about: String,
    pub(crate) url: String,
    /// What a test needs to start another server like it, as variables of the environment.
    pub(crate) programs: Vec<(&'static str, OsString)>,
}

impl Server {
    /// What it printed.
    fn log(&self) -> PathBuf {
        self.folder.log()
    }
}

/// Where the tests find a database of one engine.
pub(crate) struct Database {
    pub(crate) name: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) url: String,
    /// `None` for a server that the user gave.
    server: Option<Server>,
}

impl Database {
    /// Takes the server that the environment names, or starts one.
    pub(crate) fn open(engine: &dyn Engine, shell: &Shell) -> Result<Self> {
        let (name, variable) = (engine.name(), engine.variable());
        if let Some(url) = env::var(variable).ok().filter(|url| !url.is_empty()) {
            eprintln!("{name} of {variable}");
            return Ok(Self {
                name,
                variable,
                url,
                server: None,
            });
        }
        let server = engine.start(shell)?;
        eprintln!("{}", server.about);
        Ok(Self {
            name,
            variable,
            url: server.url.clone(),
            server: Some(server),
        })
    }

    /// Everything that the tests look for in the environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = vec![(self.variable, OsString::from(&self.url))];
        let programs = self.server.iter().flat_map(|server| &server.programs);
        environment.extend(programs.cloned());
        environment
    }

    pub(crate) fn is_private(&self) -> bool {
        self.server.is_some()
    }

    /// Keeps the server's log beside the build, for a step that failed.
    pub(crate) fn keep_log(&self, shell: &Shell) {
        let Some(server) = &self.server else { return };
        let kept = shell
            .target
            .join(format!("{}.log", self.name.to_lowercase()));
        if fs::copy(server.log(), &kept).is_ok() {
            eprintln!("log of {}: {}", self.name, kept.display());
        }
    }
}

/// Starts every engine and leaves it running until a signal comes.
pub(crate) fn serve(shell: &Shell) -> Result<()> {
    let mut report = Report::new();
    let mut databases = Vec::new();
    for engine in ENGINES {
        databases.push(report.step(engine.name(), || Database::open(*engine, shell))?);
    }
    eprintln!();
    for (name, value) in databases.iter().flat_map(Database::environment) {
        println!("export {name}='{}'", value.display());
    }
    eprintln!(
        "\nCtrl-C stops {}.",
        if databases.len() == 1 { "it" } else { "them" }
    );
    loop {
        shell.poll(Duration::from_secs(60), || {
            let ended = databases
                .iter_mut()
                .filter_map(|database| database.server.as_mut());
            for server in ended {
                if let Some(status) = server.process.ended() {
                    return Err(Error::new(format!(
                        "the server ended by itself ({status}){}",
                        tail(&server.log())
                    )));
                }
            }
            Ok(None::<()>)
        })?;
    }
}
