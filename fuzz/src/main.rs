//! One program for all targets. Built with libFuzzer by `cargo xtask fuzz`, otherwise it runs
//! single files, and mutations of the seeds where there is no C++ compiler.
#![forbid(unsafe_code)]
#![cfg_attr(libfuzzer, no_main)]

/// libFuzzer has its own command line, so the target comes in a variable.
#[cfg(libfuzzer)]
mod guided {
    use std::sync::OnceLock;

    fn target() -> fn(&[u8]) {
        static RUN: OnceLock<fn(&[u8])> = OnceLock::new();
        *RUN.get_or_init(|| {
            let name = std::env::var("OPLOG_FUZZ_TARGET").unwrap_or_default();
            let target = oplog_fuzz::targets::find(&name);
            target.expect("OPLOG_FUZZ_TARGET names a target").run
        })
    }

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target()(bytes));
}

#[cfg(not(libfuzzer))]
fn main() -> std::process::ExitCode {
    unguided::main()
}

#[cfg(not(libfuzzer))]
mod unguided {
    use std::error::Error;
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::process::ExitCode;
    use std::time::{Duration, Instant};

    use oplog_fuzz::mutate::{Random, mutate};
    use oplog_fuzz::{TARGETS, Target, seeds, targets};

    const HELP: &str = "\
Usage: oplog-fuzz list                             the names of the targets
       oplog-fuzz run TARGET FILE...               feeds files to a target
       oplog-fuzz mutate TARGET SECONDS SEED KEEP  feeds mutations of the seeds to it for a while;
                                                   an input that it panics at is put into the
                                                   folder KEEP
       oplog-fuzz seeds                            writes the seeds that can be made
";

    type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let result = match &words[..] {
            ["list"] => {
                TARGETS
                    .iter()
                    .for_each(|target| println!("{}", target.name));
                Ok(())
            }
            ["seeds"] => write_seeds(),
            ["run", target, files @ ..] if !files.is_empty() => run(target, files),
            ["mutate", target, seconds, seed, keep] => search(target, seconds, seed, keep),
            _ => {
                eprint!("{HELP}");
                return ExitCode::from(2);
            }
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn find(name: &str) -> Result<&'static Target> {
        targets::find(name).ok_or_else(|| format!("there is no target `{name}`").into())
    }

    fn write_seeds() -> Result {
        let count = seeds::write()?;
        eprintln!("{count} seeds in {}", seeds::folder().display());
        Ok(())
    }

    /// A finding panics and so ends the program.
    fn run(target: &str, files: &[&str]) -> Result {
        let target = find(target)?;
        for file in files {
            let bytes = fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))?;
            eprintln!("{file}: {} bytes", bytes.len());
            (target.run)(&bytes);
        }
        eprintln!("no finding");
        Ok(())
    }

    fn search(target: &str, seconds: &str, seed: &str, keep: &str) -> Result {
        let target = find(target)?;
        let end = Instant::now() + Duration::from_secs(seconds.parse()?);
        let seeds: Vec<_> = seeds::committed(target.name)?
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        let mut random = Random::new(seed.parse()?);
        let mut inputs = 0u64;
        while Instant::now() < end {
            let bytes = mutate(&seeds, &mut random);
            inputs += 1;
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
                fs::create_dir_all(keep)?;
                let file = Path::new(keep).join(format!("crash-{seed}-{inputs}"));
                fs::write(&file, &bytes)?;
                return Err(format!("a finding, its input is {}", file.display()).into());
            }
        }
        println!("inputs {inputs}");
        Ok(())
    }
}
