//! Runs the fuzz targets of the package `oplog-fuzz`, with libFuzzer if it can be built.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result, cannot};
use crate::report::{Done, Report};
use crate::shell::{Shell, tail};

/// How long a target is searched if nothing else is said.
pub(crate) const SECONDS: u64 = 60;

const PACKAGE: &str = "oplog-fuzz";
/// Names the target for libFuzzer's program, whose command line is libFuzzer's.
const TARGET_VARIABLE: &str = "OPLOG_FUZZ_TARGET";
/// What compiles coverage counters into our code, and the program for libFuzzer. All of it is in the stable compiler.
const COVERAGE: &[&str] = &[
    "--cfg=libfuzzer",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Searches targets, all of them if none is named.
pub(crate) fn fuzz(shell: &Shell, targets: &[String], seconds: u64) -> Result<()> {
    let mut report = Report::new();
    let result = (|| {
        let fuzzer = report.step("build", || Fuzzer::build(shell))?;
        let targets = fuzzer.choose(shell, targets)?;
        fuzzer.search(shell, &targets, seconds, &mut report)
    })();
    report.print();
    result
}

/// The programs that feed the targets.
pub(crate) struct Fuzzer {
    /// Lists targets, mutates seeds and runs single files.
    plain: PathBuf,
    /// With libFuzzer, unless there is no C++ compiler.
    guided: Option<PathBuf>,
}

impl Fuzzer {
    pub(crate) fn build(shell: &Shell) -> Result<Self> {
        let folder = shell.target.join("fuzz");
        let build = || {
            let mut build = shell.cargo(&["build", "--profile", "fuzz", "--package", PACKAGE]);
            build.arg("--target-dir").arg(&folder);
            build
        };
        shell.run(build())?;
        let plain = folder.join("fuzz").join(PACKAGE);

        let compiler = env::var_os("CXX").unwrap_or_else(|| "c++".into());
        let mut asked = Command::new(&compiler);
        asked.arg("--version");
        if let Err(Error::Failed(why)) = shell.output(asked) {
            eprintln!(
                "warning: {why}\nlibFuzzer needs a C++ compiler: install one (Debian: `apt install g++`) or name it in \
                 CXX. Until then the committed seeds are mutated without coverage guidance, which finds less."
            );
            return Ok(Self {
                plain,
                guided: None,
            });
        }
        let host = host(shell)?;
        let mut guided = build();
        // With a target named, the flags are for our code and not for build scripts.
        guided.args(["--target", &host]);
        guided.env_remove("CARGO_ENCODED_RUSTFLAGS");
        guided.env("RUSTFLAGS", COVERAGE.join(" "));
        shell.run(guided)?;
        Ok(Self {
            plain,
            guided: Some(folder.join(host).join("fuzz").join(PACKAGE)),
        })
    }

    /// The targets of these names, all if there is none.
    pub(crate) fn choose(&self, shell: &Shell, wanted: &[String]) -> Result<Vec<String>> {
        let mut list = Command::new(&self.plain);
        list.arg("list");
        let known: Vec<String> = shell.output(list)?.lines().map(str::to_owned).collect();
        if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
            return Err(Error::new(format!(
                "there is no fuzz target `{unknown}`; there are: {}",
                known.join(", ")
            )));
        }
        Ok(if wanted.is_empty() {
            known
        } else {
            wanted.to_vec()
        })
    }

    /// Searches one target after the other, also when one has a finding.
    pub(crate) fn search(
        &self,
        shell: &Shell,
        targets: &[String],
        seconds: u64,
        report: &mut Report,
    ) -> Result<()> {
        let mut findings = Vec::new();
        for target in targets {
            let result = report.try_step(&format!("fuzz {target}"), || match &self.guided {
                Some(program) => guided(shell, program, target, seconds),
                None => mutated(shell, &self.plain, target, seconds),
            });
            match result {
                Ok(()) => {}
                Err(Error::Failed(finding)) => {
                    eprintln!("{finding}");
                    findings.push(finding);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
            }
        }
        if findings.is_empty() {
            Ok(())
        } else {
            Err(Error::new(findings.join("\n")))
        }
    }
}

fn guided(shell: &Shell, program: &Path, target: &str, seconds: u64) -> Result<Done> {
    let artifacts = folder(shell, "artifacts", target)?;
    let corpus = folder(shell, "corpus", target)?;
    let mut command = Command::new(program);
    command.env(TARGET_VARIABLE, target);
    command.arg(format!("-max_total_time={seconds}"));
    // Ours, which end a run long before libFuzzer's own limits do.
    command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // New inputs go to the first folder, which is not committed.
    command.args([corpus, shell.root.join("fuzz/seeds").join(target)]);
    let log = logged(shell, command, target, &artifacts)?;

    let statistic = |name: &str| {
        let line = log.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or("?")
            .to_owned()
    };
    let last = log.lines().rfind(|line| line.contains(" cov: "));
    let covered = last
        .and_then(|line| line.split(" cov: ").nth(1)?.split_whitespace().next())
        .unwrap_or("?");
    Ok(Done::Counted(format!(
        "{} inputs, {covered} edges",
        statistic("stat::number_of_executed_units:")
    )))
}

fn mutated(shell: &Shell, program: &Path, target: &str, seconds: u64) -> Result<Done> {
    let artifacts = folder(shell, "artifacts", target)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Another one each time, so that a run does not repeat the one before.
    let seed = now.map_or(0, |since| since.as_secs());
    let mut command = Command::new(program);
    command.args(["mutate", target, &seconds.to_string(), &seed.to_string()]);
    command.arg(&artifacts);
    let log = logged(shell, command, target, &artifacts)?;
    let inputs = log.lines().find_map(|line| line.strip_prefix("inputs "));
    Ok(Done::Counted(format!(
        "{} inputs, without coverage guidance",
        inputs.unwrap_or("?")
    )))
}

/// Runs a search and gives what it printed. If it fails, tells where the input is.
fn logged(shell: &Shell, mut command: Command, target: &str, artifacts: &Path) -> Result<String> {
    let path = shell.target.join("fuzz").join(format!("{target}.log"));
    let cannot_log = || format!("write {}", path.display());
    let log = File::create(&path).map_err(cannot(cannot_log()))?;
    let both = log.try_clone().map_err(cannot(cannot_log()))?;
    command.stdout(log).stderr(both);
    let before = kept(artifacts);
    match shell.run(command) {
        Ok(()) => fs::read_to_string(&path).map_err(cannot(format!("read {}", path.display()))),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(Error::Failed(_)) => {
            let new: Vec<PathBuf> = kept(artifacts)
                .into_iter()
                .filter(|file| !before.contains(file))
                .collect();
            let Some(input) = new.first() else {
                return Err(Error::new(format!(
                    "the search of `{target}` failed, see {}{}",
                    path.display(),
                    tail(&path)
                )));
            };
            Err(Error::new(format!(
                "finding in `{target}`: {}\n  input: {}\n  again: cargo run -p {PACKAGE} -- run {target} {}\n  log:   {}",
                panicked(&path),
                input.display(),
                input.strip_prefix(&shell.root).unwrap_or(input).display(),
                path.display(),
            )))
        }
    }
}

/// What a log says about the panic.
fn panicked(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: libFuzzer"));
    let (place, what) = (lines.next(), lines.next());
    [place, what]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The inputs of findings. libFuzzer also keeps those that were merely slow, without calling them one.
fn kept(artifacts: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(artifacts).into_iter().flatten().flatten();
    let findings = entries.filter(|entry| {
        let name = entry.file_name();
        !name.to_string_lossy().starts_with("slow-unit-")
    });
    findings.map(|entry| entry.path()).collect()
}

fn folder(shell: &Shell, what: &str, target: &str) -> Result<PathBuf> {
    let folder = shell.root.join("fuzz").join(what).join(target);
    fs::create_dir_all(&folder).map_err(cannot(format!("make {}", folder.display())))?;
    Ok(folder)
}

/// The platform that the compiler runs on.
fn host(shell: &Shell) -> Result<String> {
    let text = shell.output(shell.cargo(&["-vV"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| Error::new("`cargo -vV` names no host"))
}
