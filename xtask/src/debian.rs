//! Servers from Debian's packages, without root: `apt-get` downloads and checks them, we unpack them below
//! `target/`. Nothing is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result, cannot};
use crate::shell::{Shell, dim};

/// The C library must be that of the program loader, so never one of our own.
const ALWAYS_INSTALLED: &[&str] = &["libc6", "libgcc-s1", "libstdc++6"];

/// Whether the user wants the packages even where they are installed, to try this very path.
pub(crate) fn ignores_installed() -> bool {
    env::var_os("OPLOG_TEST_IGNORE_INSTALLED").is_some_and(|value| value == "1")
}

/// A package with what it needs, downloaded and unpacked.
pub(crate) struct Packages {
    archives: PathBuf,
    tree: PathBuf,
    were_there: bool,
}

impl Packages {
    /// Gets `package` and those of its dependencies, direct or not, that are `needed`. What is not needed is
    /// not followed either. A second call finds the result of the first.
    pub(crate) fn get(shell: &Shell, package: &str, needed: fn(&str) -> bool) -> Result<Self> {
        let base = shell.target.join("debian").join(package);
        let (archives, tree) = (base.join("archives"), base.join("tree"));
        fs::create_dir_all(&base).map_err(cannot(format!("make {}", base.display())))?;
        // Two runs in one checkout: the second waits for the first and uses its tree.
        let lock = File::create(base.join("lock")).map_err(cannot("make a lock file"))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| cannot("wait for another run")(error.into()))?;
        let packages = Self {
            were_there: tree.exists(),
            archives,
            tree,
        };
        if !packages.were_there {
            packages.download(shell, &base, package, needed)?;
            let partial = base.join("partial");
            remove(&partial)?;
            packages.unpack(shell, &partial)?;
            fs::rename(partial, &packages.tree).map_err(cannot("keep the unpacked packages"))?;
        }
        Ok(packages)
    }

    /// The folder that stands for `/`.
    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Whether an earlier run made the tree.
    pub(crate) fn were_there(&self) -> bool {
        self.were_there
    }

    /// Throws away what a former call left: it may be of another release of the system.
    pub(crate) fn forget(self) -> Result<()> {
        remove(&self.tree)
    }

    /// Unpacks the packages once more, into a folder of the caller.
    pub(crate) fn unpack(&self, shell: &Shell, tree: &Path) -> Result<PathBuf> {
        fs::create_dir_all(tree).map_err(cannot(format!("make {}", tree.display())))?;
        let entries =
            fs::read_dir(&self.archives).map_err(cannot("list the downloaded packages"))?;
        for archive in entries.flatten().map(|entry| entry.path()) {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("-x").arg(archive).arg(tree);
            shell.output(dpkg)?;
        }
        Ok(tree.to_owned())
    }

    fn download(
        &self,
        shell: &Shell,
        base: &Path,
        package: &str,
        needed: fn(&str) -> bool,
    ) -> Result<()> {
        let first = self.try_download(shell, &Apt { lists: None }, package, needed);
        let Err(Error::Failed(_)) = first else {
            return first;
        };
        // The machine's package lists are missing, as in most container images, or too old: get private ones.
        let apt = Apt {
            lists: Some(base.join("apt")),
        };
        apt.update(shell)?;
        self.try_download(shell, &apt, package, needed)
    }

    fn try_download(
        &self,
        shell: &Shell,
        apt: &Apt,
        package: &str,
        needed: fn(&str) -> bool,
    ) -> Result<()> {
        let mut depends = apt.command("apt-cache");
        depends.args(["depends", "--recurse"]);
        for kind in [
            "recommends",
            "suggests",
            "conflicts",
            "breaks",
            "replaces",
            "enhances",
        ] {
            depends.arg(format!("--no-{kind}"));
        }
        depends.arg(package);
        let depends = shell.output(depends)?;
        let graph = Graph::parse(&depends);

        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${db:Status-Status} ${Package}\n"]);
        let query = shell.output(query)?;
        let mut installed: BTreeSet<&str> = query
            .lines()
            .filter_map(|line| line.strip_prefix("installed "))
            .collect();
        if ignores_installed() {
            installed.retain(|name| ALWAYS_INSTALLED.contains(name));
        }
        let wanted = graph.closure(package, &installed, needed);
        if wanted.is_empty() {
            return Err(Error::new(format!(
                "`{package}` names no package to download"
            )));
        }

        remove(&self.archives)?;
        fs::create_dir_all(&self.archives)
            .map_err(cannot(format!("make {}", self.archives.display())))?;
        let names: Vec<&str> = wanted.iter().copied().collect();
        eprintln!(
            "{}",
            dim(&format!("$ apt-get download {}", names.join(" ")))
        );
        let mut download = apt.command("apt-get");
        download
            .arg("download")
            .args(names)
            .current_dir(&self.archives);
        shell.output(download).map(drop)
    }
}

/// Debian's package tool, with the machine's package lists or with our own.
struct Apt {
    lists: Option<PathBuf>,
}

impl Apt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("--quiet");
        // As root, apt downloads as a user who may not be let into our folder.
        command.args(["-o", "APT::Sandbox::User=root"]);
        if let Some(lists) = &self.lists {
            command
                .arg("-o")
                .arg(option("Dir::State::Lists", &lists.join("lists")));
            command
                .arg("-o")
                .arg(option("Dir::Cache", &lists.join("cache")));
        }
        command
    }

    fn update(&self, shell: &Shell) -> Result<()> {
        for folder in self.lists.iter().flat_map(|base| {
            [
                base.join("lists/partial"),
                base.join("cache/archives/partial"),
            ]
        }) {
            fs::create_dir_all(&folder).map_err(cannot(format!("make {}", folder.display())))?;
        }
        eprintln!("{}", dim("$ apt-get update (private package lists)"));
        let mut update = self.command("apt-get");
        // By default a server that cannot be reached is a warning, and the failure comes later and unexplained.
        update.args([
            "update",
            "-o",
            "APT::Update::Error-Mode=any",
            "-o",
            "Acquire::Retries=2",
        ]);
        shell.output(update).map(drop)
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(path);
    text
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(cannot(format!("remove {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Whether a package is named like one that holds shared libraries.
pub(crate) fn is_library(package: &str) -> bool {
    // Debian's `zlib1g` is the exception to its own rule.
    package.starts_with("lib") || package == "zlib1g"
}

/// The tree's folders of shared libraries as a value of `LD_LIBRARY_PATH`.
pub(crate) fn library_path(tree: &Path) -> OsString {
    let mut path = OsString::new();
    for base in [tree.join("usr/lib"), tree.join("lib")] {
        for folder in fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
        {
            // Debian keeps libraries in a folder named after the machine, as in `x86_64-linux-gnu`.
            if folder.to_string_lossy().contains("-linux-") && folder.is_dir() {
                if !path.is_empty() {
                    path.push(":");
                }
                path.push(folder);
            }
        }
    }
    path
}

/// What `apt-cache depends --recurse` prints.
struct Graph<'a>(BTreeMap<&'a str, Vec<Need<'a>>>);

/// Packages of which one is enough, the preferred one first.
struct Need<'a>(Vec<&'a str>);

impl<'a> Graph<'a> {
    fn parse(text: &'a str) -> Self {
        let mut packages = BTreeMap::new();
        let mut name = "";
        let mut open = false; // the last line ended with an "or"
        for line in text.lines() {
            let needs: &mut Vec<Need<'_>> = packages.entry(name).or_default();
            let text = line.trim_start();
            let indent = line.len() - text.len();
            match text.trim_start_matches('|').split_once(": ") {
                Some(("Depends" | "PreDepends", on)) => {
                    match needs.last_mut() {
                        Some(need) if open => need.0.push(on),
                        _ => needs.push(Need(vec![on])),
                    }
                    open = text.starts_with('|');
                }
                // Who provides the package of the line above.
                _ if indent == 4 => {
                    if let Some(need) = needs.last_mut() {
                        need.0.push(text);
                    }
                }
                _ if indent == 0 => {
                    name = line;
                    open = false;
                }
                _ => {}
            }
        }
        Self(packages)
    }

    fn closure(
        &self,
        package: &'a str,
        installed: &BTreeSet<&str>,
        needed: fn(&str) -> bool,
    ) -> BTreeSet<&'a str> {
        let mut wanted = BTreeSet::new();
        let mut todo = vec![package];
        while let Some(package) = todo.pop() {
            for Need(choices) in self.0.get(package).into_iter().flatten() {
                let Some(choice) = choices.iter().find(|choice| needed(choice)) else {
                    continue;
                };
                let there =
                    is_library(choice) && choices.iter().any(|choice| installed.contains(choice));
                if !there && wanted.insert(*choice) {
                    todo.push(choice);
                }
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDS: &str = "\
postgresql
  Depends: postgresql-15
postgresql-15
 |Depends: liba1
  Depends: liba2
 |Depends: libb1
 |Depends: libb2
  Depends: libb3
  PreDepends: libc6
  Depends: <libvirtual>
    libreal
    libother
  Depends: perl
  Depends: libd1
perl
  Depends: libperl
libd1
  Depends: libe1
";

    fn check(installed: &[&str], expected: &[&str]) {
        let needed: fn(&str) -> bool = |name| is_library(name) || name == "postgresql-15";
        let wanted = Graph::parse(DEPENDS).closure(
            "postgresql",
            &installed.iter().copied().collect(),
            needed,
        );
        assert_eq!(wanted.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_first_of_several_is_taken_and_what_is_not_needed_is_not_followed() {
        check(
            &["libc6"],
            &[
                "liba1",
                "libb1",
                "libd1",
                "libe1",
                "libreal",
                "postgresql-15",
            ],
        );
    }

    #[test]
    fn an_installed_library_counts_for_all_that_could_stand_in_its_place() {
        check(
            &[
                "libc6",
                "liba2",
                "libb3",
                "libother",
                "libd1",
                "postgresql-15",
            ],
            &["postgresql-15"],
        );
    }
}
