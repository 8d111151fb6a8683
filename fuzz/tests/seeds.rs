//! Every test run feeds the seeds and some mutations of them to every target, and inputs that are
//! made to take time and memory.
#![allow(missing_docs, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use oplog_fuzz::mutate::{Random, mutate};
use oplog_fuzz::{TARGETS, Target, seeds, targets};
use rustix::time::{ClockId, clock_gettime};

/// Mutations for each target. `cargo xtask fuzz` tries millions.
const MUTATIONS: usize = 3_000;

fn feed(target: &Target, what: &str, bytes: &[u8]) {
    let run = AssertUnwindSafe(|| (target.run)(bytes));
    if catch_unwind(run).is_err() {
        // Reproducible without a file: inputs of the tests depend on nothing but the seeds.
        let shown: String = bytes.iter().take(512).map(|b| format!("{b:02x}")).collect();
        panic!("{}, {what}: {} bytes, {shown}", target.name, bytes.len());
    }
}

macro_rules! targets {
    ($($name:ident,)*) => {
        const TESTED: &[&str] = &[$(stringify!($name),)*];

        $(mod $name {
            #[test]
            fn seeds() {
                super::feed_seeds(stringify!($name));
            }

            #[test]
            fn hostile_inputs_take_linear_time() {
                super::feed_hostile(stringify!($name));
            }
        })*
    };
}

targets! {
    queue,
    message,
    options,
    row,
    value,
    envelope,
    frame,
    metadata,
    chain,
    wrapped_key,
    key_file,
    aggregate,
    ids,
}

fn feed_seeds(name: &str) {
    let target = targets::find(name).expect("a target of this name");
    let seeds = seeds::committed(name).expect("seeds of the target");
    for (seed, bytes) in &seeds {
        feed(target, seed, bytes);
    }
    let seeds: Vec<_> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random::new(1);
    for number in 0..MUTATIONS {
        let bytes = mutate(&seeds, &mut random);
        feed(target, &format!("mutation {number}"), &bytes);
    }
}

/// Sixteen times the input may take sixteen times the work, and some more for sorting, for caches
/// and for a busy machine; quadratic work would be 256 times.
fn feed_hostile(name: &str) {
    const SMALL: usize = 16 * 1024;
    const FACTOR: u32 = 16;
    let target = targets::find(name).expect("a target of this name");
    let small = (target.hostile)(SMALL);
    let large = (target.hostile)(SMALL * FACTOR as usize);
    for (shape, (small, large)) in small.iter().zip(&large).enumerate() {
        let time = |bytes: &[u8]| {
            let start = work();
            feed(target, &format!("hostile shape {shape}"), bytes);
            work() - start
        };
        let (short, long) = (time(small), time(large));
        let max = short * FACTOR * 4 + Duration::from_millis(100);
        assert!(
            long <= max,
            "{name}, hostile shape {shape}: {} bytes take {short:?}, {} take {long:?}",
            small.len(),
            large.len()
        );
    }
}

/// How long this thread was at work, without the time that others took the processor.
fn work() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

#[test]
fn every_target_is_tested_and_has_seeds() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
    let folders: BTreeSet<_> = fs::read_dir(seeds::folder())
        .expect("the folder of seeds")
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .collect();
    let expected = names.iter().map(|name| Ok((*name).to_owned())).collect();
    assert_eq!(folders, expected);
}

#[test]
fn seeds_that_can_be_made_are_committed() {
    for (target, name, bytes) in seeds::all() {
        let path = seeds::folder().join(target).join(&name);
        let committed = fs::read(&path).unwrap_or_default();
        assert!(
            path.is_file() && committed == bytes,
            "seed {target}/{name} differs: after a change of the format, `cargo run -p oplog-fuzz -- seeds`"
        );
    }
}

/// The two implementations of `FORMAT.md` agree.
#[test]
fn what_was_forged_opens() {
    use oplog_core::{Envelope, EnvelopeLimits, KeyWrapper};
    use oplog_fuzz::forge;

    for (name, bytes) in seeds::envelopes() {
        let envelope = Envelope::parse(bytes, &EnvelopeLimits::default());
        let opened = envelope.expect(name).open(&forge::data_key());
        assert!(opened.is_ok(), "{name}");
    }
    let key = forge::kek().unwrap(&forge::context(), &forge::wrap(&forge::bound()));
    assert_eq!(*key.expect("it is genuine").expose_secret(), forge::SECRET);
}
