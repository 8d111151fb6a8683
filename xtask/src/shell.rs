//! Runs commands so that a signal to us ends them and everything they started.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Error, Result, cannot};

const POLL: Duration = Duration::from_millis(20);
/// How long a command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Where we work, and whether we were asked to stop.
pub(crate) struct Shell {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Shell {
    pub(crate) fn new() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(cannot("watch for Ctrl-C"))?;
        }
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().unwrap_or(&package).to_owned();
        // `<target>/debug/xtask`: right for every way to choose a target folder. Asked now, because
        // `cargo test --workspace` may replace the file that we run from.
        let executable = env::current_exe().map_err(cannot("find this program's own file"))?;
        let target = executable.ancestors().nth(2).unwrap_or(&root).to_owned();
        Ok(Self { root, target, stop })
    }

    /// An error once a signal asked us to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Waits until `ready` gives a value, a signal arrives or the time is over (`None`).
    pub(crate) fn poll<T>(
        &self,
        most: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let start = Instant::now();
        loop {
            self.check()?;
            if let Some(value) = ready()? {
                return Ok(Some(value));
            }
            if start.elapsed() > most {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// A cargo command in the workspace, of the toolchain that runs us.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(&self.root);
        // What `cargo run` tells us about our own package is not meant for others, and would show up as a change
        // in the fingerprints of build scripts.
        for (name, _) in env::vars_os() {
            let ours = |prefix: &str| name.to_str().is_some_and(|name| name.starts_with(prefix));
            if ours("CARGO_PKG_") || ours("CARGO_MANIFEST_") || ours("CARGO_BIN_NAME") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Prints a command, runs it with our output and fails if it does.
    pub(crate) fn run(&self, mut command: Command) -> Result<()> {
        let text = describe(&command);
        eprintln!("{}", dim(&format!("$ {text}")));
        let status = self.wait(&mut Group::spawn(&mut command)?)?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Failed(format!("`{text}` failed ({status})")))
        }
    }

    /// Runs a command and gives its standard output; an error quotes its standard error.
    pub(crate) fn output(&self, mut command: Command) -> Result<String> {
        let text = describe(&command);
        let mut group = Group::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
        let (status, out, err) = thread::scope(|scope| {
            let out = scope.spawn(|| read(out));
            let err = scope.spawn(|| read(err));
            let status = self.wait(&mut group);
            (
                status,
                out.join().unwrap_or_default(),
                err.join().unwrap_or_default(),
            )
        });
        let status = status?;
        if status.success() {
            Ok(out)
        } else {
            // The first lines of an error say what it is, and some tools print very many.
            let said: String = (err + &out)
                .lines()
                .take(8)
                .map(|line| format!("\n{line}"))
                .collect();
            let text: String = text.chars().take(200).collect();
            Err(Error::Failed(format!("`{text}` failed ({status}){said}")))
        }
    }

    fn wait(&self, group: &mut Group) -> Result<ExitStatus> {
        loop {
            let status = group
                .child
                .try_wait()
                .map_err(cannot("wait for a command"))?;
            self.check()?; // an early return drops the group, which ends it
            match status {
                Some(status) => return Ok(status),
                None => thread::sleep(POLL),
            }
        }
    }
}

/// A command and whatever it starts, in a process group of its own. Dropping it ends them all.
pub(crate) struct Group {
    child: Child,
    id: Option<Pid>,
    /// How to ask them to end.
    farewell: Signal,
}

impl Group {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // Ctrl-C in a terminal goes to our process group. The server must not hear it before its clients do, and
        // a SIGTERM to us alone must reach the grandchildren as well: so every command has its own group.
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(cannot(format!("run `{name}`")))?;
        let id = Pid::from_raw(child.id().cast_signed());
        Ok(Self {
            child,
            id,
            farewell: Signal::TERM,
        })
    }

    pub(crate) fn farewell(mut self, signal: Signal) -> Self {
        self.farewell = signal;
        self
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if self.ended().is_none() {
            let _ = kill_process_group(id, self.farewell);
            let start = Instant::now();
            while self.ended().is_none() && start.elapsed() < GRACE {
                thread::sleep(POLL);
            }
            // The leader may be gone and others not: the number stays taken as long as one of them lives.
            let _ = kill_process_group(id, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn read(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A command as one would type it in the workspace.
fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value?;
        Some(format!("{}={}", name.to_string_lossy(), quote(value)))
    });
    let words = std::iter::once(program)
        .chain(command.get_args())
        .map(quote);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

pub(crate) fn dim(text: &str) -> String {
    paint("2", text)
}

pub(crate) fn paint(code: &str, text: &str) -> String {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stderr().is_terminal() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The last lines of a log file, indented, for an error message.
pub(crate) fn tail(path: &Path) -> String {
    let text = read(File::open(path).ok());
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(20);
    lines[from..]
        .iter()
        .map(|line| format!("\n    {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command
            .args(["test", "--", "it's"])
            .env("A", "1 2")
            .env_remove("B");
        assert_eq!(describe(&command), r"A='1 2' cargo test -- 'it'\''s'");
    }
}
