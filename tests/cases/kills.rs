//! Writers that are killed: other processes, by SIGKILL.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use oplog_diesel::Error;
use oplog_diesel::core::{Aggregate, Receipt};
use oplog_diesel::prelude::*;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{self, Db};
use crate::fixture::{Fixture, is_soak};

/// The ways of a victim to take tickets, with the number of entries of one of its transactions.
const MODES: [(&str, usize); 6] = [
    ("late", 2),
    ("optimistic", 2),
    ("lock first", 3),
    ("mixed", 3),
    ("nested", 3),
    ("alone", 1),
];

/// What the victims of one log were told before they died.
pub struct Graveyard {
    f: Fixture,
    told: BTreeMap<String, Told>,
}

/// What one victim was told.
struct Told {
    mode: &'static str,
    /// The numbers of its transactions, with their receipts.
    receipts: BTreeMap<usize, Vec<Receipt>>,
}

impl Graveyard {
    pub fn new(db: Db) -> Self {
        let mut f = Fixture::on(db);
        f.account("Alice");
        f.counter(1);
        Graveyard {
            f,
            told: BTreeMap::new(),
        }
    }

    fn victim(&mut self, mode: &'static str, death: &str) -> Victim {
        let name = format!("victim {}", self.told.len());
        let told = Told {
            mode,
            receipts: BTreeMap::new(),
        };
        self.told.insert(name.clone(), told);
        let child = Command::new(env!("CARGO_BIN_EXE_victim"))
            .args([db::NAME, &self.f.db.url()])
            .arg(self.f.db.folder().join("oplog.key"))
            .args([&name, mode, death])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Victim { name, child }
    }

    /// Waits for the end of a victim. `true` if it was killed, `false` if it ended by itself.
    fn bury(&mut self, mut victim: Victim) -> bool {
        use std::os::unix::process::ExitStatusExt as _;

        let out = BufReader::new(victim.child.stdout.take().unwrap());
        for line in out.lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            let number = words.next().unwrap().parse().unwrap();
            let words: Vec<&str> = words.collect();
            // A line may break off where its writer was killed, but is written at once.
            let receipts = words.chunks(3).map(|words| Receipt {
                aggregate: Aggregate::new(words[0]),
                sequence: words[1].parse().unwrap(),
                entry_hash: words[2].parse().unwrap(),
            });
            let told = self.told.get_mut(&victim.name).unwrap();
            told.receipts.insert(number, receipts.collect());
        }
        let status = victim.child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{status}");
        !status.success()
    }

    /// What the victims were told is true, and at most the last commit of each was not told.
    fn check(&mut self) {
        db::wait_alone(&mut self.f.conn);
        let mut logged: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for entry in self.f.entries() {
            let value = |key| {
                let found = entry.metadata.iter().find(|(name, _)| name == key);
                found.and_then(|(_, value)| value.clone())
            };
            if let (Some(writer), Some(number)) = (value("writer"), value("number")) {
                let number = number.parse().unwrap();
                logged.entry(writer).or_default().insert(number);
            }
        }
        let mut by_mode: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, told) in &self.told {
            let logged = logged.remove(name).unwrap_or_default();
            let (_, entries) = MODES.iter().find(|(mode, _)| *mode == told.mode).unwrap();
            for (number, receipts) in &told.receipts {
                assert!(logged.contains(number), "{number} of {name} is not there");
                assert_eq!(receipts.len(), *entries);
                assert!(self.f.oplog.resolve(&mut self.f.conn, receipts).unwrap());
            }
            let untold = logged.iter().filter(|n| !told.receipts.contains_key(n));
            let untold: Vec<_> = untold.collect();
            assert!(untold.len() <= 1, "{name} was not told of {untold:?}");
            // Without a gap, and so the untold one is the last.
            assert!(
                logged.iter().copied().eq(1..=logged.len()),
                "{name}: {logged:?}"
            );
            *by_mode.entry(told.mode).or_default() += logged.len();
        }
        // No update is lost, whoever waited for the ticket of whom.
        let of =
            |modes: &[&str]| -> usize { modes.iter().filter_map(|mode| by_mode.get(mode)).sum() };
        let on_account = of(&["late", "optimistic", "mixed", "nested"]);
        let now = self.f.snapshot();
        assert_eq!(now.accounts[0].balance, 10 + on_account as i64);
        assert_eq!(now.postings.len(), on_account);
        assert_eq!(now.settings.len(), by_mode.values().sum::<usize>());
        let counters: Vec<i64> = counters::table
            .order(counters::id)
            .select(counters::n)
            .load(&mut self.f.conn)
            .unwrap();
        assert_eq!(counters[0] as usize, of(&["lock first", "mixed", "nested"]));
        assert_eq!(counters.len(), 1 + of(&["lock first"]));
        self.f.check();
        // Whoever comes next is not in the way of what the dead left behind.
        let alice = now.accounts[0].clone();
        self.f
            .oplog
            .on(alice.aggregate())
            .and("counter:1")
            .transaction(&mut self.f.conn, |tx| {
                let counter: Counter =
                    tx.read_one(counters::table.find(1).select(Counter::as_select()))?;
                let changed = tx.logged_update(&counter, counters::n.eq(-1))?;
                tx.logged_update(&changed, counters::n.eq(counter.n))?;
                let now: Account =
                    tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
                tx.logged_update(&now, accounts::owner.eq("survivor"))?;
                let row = (accounts::id.eq(99), accounts::owner.eq("short"));
                let short: Account = tx.logged_insert(row)?;
                tx.logged_delete(&short)
            })
            .map_err(|error: Error| error)
            .unwrap();
    }
}

struct Victim {
    name: String,
    child: Child,
}

/// Kills at each statement of a transaction, whatever their number is.
pub fn at_each_statement(mut yard: Graveyard) {
    for (mode, _) in MODES {
        let mut at = 1;
        loop {
            let victim = yard.victim(mode, &format!("statement={at}"));
            if !yard.bury(victim) {
                break;
            }
            at += 1;
        }
        let least = if mode == "alone" { 1 } else { 8 };
        assert!(at > least, "{at}");
        let victim = yard.victim(mode, "untold");
        assert!(yard.bury(victim));
    }
    yard.check();
}

pub fn during_the_commit(mut yard: Graveyard) {
    let rounds = if is_soak() { 20 } else { 1 };
    for round in 0..rounds {
        let mut modes = MODES.iter().cycle().skip(round);
        for micros in [0, 10, 30, 60, 100, 150, 200, 300, 500, 800, 1200, 2000] {
            let (mode, _) = modes.next().unwrap();
            let victim = yard.victim(mode, &format!("commit={micros}"));
            yard.bury(victim);
        }
        yard.check();
    }
}

pub fn at_any_moment(mut yard: Graveyard) {
    let time = Duration::from_secs(if is_soak() { 60 } else { 3 });
    let started = Instant::now();
    let mut living: Vec<Victim> = MODES
        .iter()
        .map(|(mode, _)| yard.victim(mode, "other"))
        .collect();
    let mut moment = 1_u64;
    while started.elapsed() < time {
        // Numbers without an order are random enough.
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_micros((moment >> 33) % 100_000));
        let index = (moment >> 40) as usize % living.len();
        let next = yard.victim(MODES[index].0, "other");
        let mut victim = std::mem::replace(&mut living[index], next);
        victim.child.kill().unwrap();
        assert!(yard.bury(victim));
    }
    for mut victim in living {
        victim.child.kill().unwrap();
        yard.bury(victim);
    }
    yard.check();
    let transactions = yard
        .told
        .values()
        .map(|told| told.receipts.len())
        .sum::<usize>();
    assert!(transactions > 0);
}

#[test]
fn a_writer_is_killed_at_each_statement() {
    at_each_statement(Graveyard::new(Db::new()));
}

#[test]
fn a_writer_is_killed_during_its_commit() {
    during_the_commit(Graveyard::new(Db::new()));
}

#[test]
fn several_writers_are_killed_at_any_moment() {
    at_any_moment(Graveyard::new(Db::new()));
}
