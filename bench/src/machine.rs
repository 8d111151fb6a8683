//! The machine that is measured on: its cores and file systems.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::variant::Result;

/// On which cores a client and its server process run.
///
/// Nothing changes the numbers as much. On one core nobody has to be woken up, and what is measured
/// is the work itself. On two, every round trip wakes a sleeping core, much as over a fast network.
/// Left to the system, a run flips between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    Same,
    Apart,
    Any,
}

impl Cores {
    pub fn about(self) -> &'static str {
        match self {
            Self::Same => "client and server process on one core: the work itself, no wake-ups",
            Self::Apart => {
                "client and server process on a core each: every round trip wakes the other"
            }
            Self::Any => "client and server process where the system puts them",
        }
    }

    /// The cores of the client and of the server: the last ones, since the system's own work tends
    /// to be on the first.
    fn places(self) -> Option<(usize, usize)> {
        let (last, before) = match CORES.as_slice() {
            [.., before, last] => (*last, Some(*before)),
            [only] => (*only, None),
            [] => return None,
        };
        match self {
            Self::Same => Some((last, last)),
            Self::Apart => Some((last, before?)),
            Self::Any => None,
        }
    }

    /// Whether this machine can do it.
    pub fn is_possible(self) -> bool {
        self == Self::Any || self.places().is_some()
    }

    /// Places the calling thread.
    pub fn place_client(self) -> Result<()> {
        favour(None);
        self.places()
            .map_or(Ok(()), |(client, _)| place(None, client))
    }

    /// Places the process that works for a connection.
    pub fn place_server(self, process: i32) -> Result<()> {
        favour(Some(process));
        self.places()
            .map_or(Ok(()), |(_, server)| place(Some(process), server))
    }
}

/// The cores that this process may run on, asked before any thread is placed. None where the system
/// can't place.
static CORES: LazyLock<Vec<usize>> = LazyLock::new(usable);

/// How many cores there are for us.
pub fn cores() -> usize {
    match CORES.len() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        cores => cores,
    }
}

#[cfg(target_os = "linux")]
fn usable() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn usable() -> Vec<usize> {
    Vec::new()
}

/// Lets a process, or the calling thread, go before other work on the machine. Most users may not,
/// and then it stays as it is: the numbers only scatter more. Whether it worked.
#[cfg(target_os = "linux")]
pub fn favour(process: Option<i32>) -> bool {
    use rustix::process::{Pid, setpriority_process};

    setpriority_process(process.and_then(Pid::from_raw), -20).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub fn favour(_process: Option<i32>) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn place(process: Option<i32>, core: usize) -> Result<()> {
    use rustix::process::Pid;
    use rustix::thread::{CpuSet, sched_setaffinity};

    let process = process
        .map(|id| Pid::from_raw(id).ok_or("the server's process has no number"))
        .transpose()?;
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(process, &set)
        .map_err(|cause| format!("a process can't be kept on core {core}: {cause}").into())
}

#[cfg(not(target_os = "linux"))]
fn place(_process: Option<i32>, _core: usize) -> Result<()> {
    Err("only Linux keeps a process on a core".into())
}

/// `on <file system>`, with a warning where a commit is never more than a copy in memory.
pub fn on_file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match file_system(&mounts, path) {
        Some("tmpfs" | "ramfs") => "in memory (SYNCHRONOUS COMMITS MEAN NOTHING HERE)".to_owned(),
        Some(kind) => format!("on {kind}"),
        None => "on a file system unknown to us".to_owned(),
    }
}

/// The kind of the file system that a path is on: that of the longest mount point above it, the
/// last one if several are mounted there.
fn file_system<'m>(mounts: &'m str, path: &Path) -> Option<&'m str> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    mounted
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind)
}

/// How busy the machine is with other things: the average length of the queue in the last minute.
pub fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_tells_the_file_system() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/disk xfs rw 0 0\n";
        let check = |path, expected| assert_eq!(file_system(mounts, Path::new(path)), expected);
        check("/home/a", Some("ext4"));
        check("/tmp/a", Some("tmpfs"));
        check("/tmp/disk/a", Some("xfs"));
        check("/tmpfs", Some("ext4"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn a_client_and_its_server_share_a_core_or_do_not() {
        if let Some((client, server)) = Cores::Same.places() {
            assert_eq!(client, server);
        }
        if let Some((client, server)) = Cores::Apart.places() {
            assert_ne!(client, server);
        }
        assert_eq!(Cores::Any.places(), None);
    }
}
