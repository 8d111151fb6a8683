use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oplog_core::Aggregate;

/// Queues of this process for the tickets that its transactions are about to redeem, so that they do not
/// all wait in the database for the same one.
///
/// Who comes through a gate knows the head that the one before has left, and redeems the ticket in one
/// statement on it. Nothing rests on a gate: other processes have gates of their own, and the database
/// decides. So nobody waits here for longer than [`PATIENCE`]; what waits in circles through a gate,
/// which no database would notice, comes free.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    // Only those that somebody is in or waits for.
    gates: Mutex<HashMap<Aggregate, Arc<Gate>>>,
}

#[derive(Debug, Default)]
struct Gate {
    is_taken: Mutex<bool>,
    freed: Condvar,
}

/// Longer than a transaction takes to be closed, and not so long that anybody is hurt by it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The right to be in a gate. Dropped when the transaction has ended.
#[derive(Debug)]
pub(crate) struct Pass<'g> {
    gates: &'g Gates,
    aggregate: Aggregate,
    gate: Arc<Gate>,
    // Who lost patience is beside the gate, and not in it.
    is_inside: bool,
}

impl Gates {
    /// Waits for the gate of an aggregate.
    pub fn enter(&self, aggregate: &Aggregate) -> Pass<'_> {
        let gate = Arc::clone(lock(&self.gates).entry(aggregate.clone()).or_default());
        let taken = lock(&gate.is_taken);
        let (mut is_taken, wait) = gate
            .freed
            .wait_timeout_while(taken, PATIENCE, |is_taken| *is_taken)
            .unwrap_or_else(PoisonError::into_inner);
        let is_inside = !wait.timed_out();
        *is_taken = true;
        drop(is_taken);
        Pass {
            gates: self,
            aggregate: aggregate.clone(),
            gate,
            is_inside,
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_inside {
            *lock(&self.gate.is_taken) = false;
            self.gate.freed.notify_one();
        }
        let mut gates = lock(&self.gates.gates);
        // The map's and ours: nobody else is here, and nobody comes while the map is locked.
        if Arc::strong_count(&self.gate) <= 2 {
            gates.remove(&self.aggregate);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::{Gates, PATIENCE, lock};
    use oplog_core::Aggregate;

    #[test]
    fn one_is_inside_at_a_time_and_nothing_stays() {
        let gates = Gates::default();
        let hot = Aggregate::new("hot");
        let (inside, passed) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for writer in 0..8 {
                let (gates, hot, inside, passed) = (&gates, &hot, &inside, &passed);
                scope.spawn(move || {
                    let cold = Aggregate::new(format!("cold:{writer}"));
                    for _ in 0..500 {
                        let _cold = gates.enter(&cold);
                        let pass = gates.enter(hot);
                        if pass.is_inside {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            thread::yield_now();
                            assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        }
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 4000);
        assert!(lock(&gates.gates).is_empty());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let gates = Gates::default();
        let hot = Aggregate::new("hot");
        let first = gates.enter(&hot);
        let begun = Instant::now();
        let second = gates.enter(&hot);
        assert!(begun.elapsed() >= PATIENCE);
        assert!(first.is_inside && !second.is_inside);
        // Who went past the gate does not open it for others.
        drop(second);
        assert!(!gates.enter(&hot).is_inside);
        drop(first);
        assert!(gates.enter(&hot).is_inside);
        assert!(lock(&gates.gates).is_empty());
    }
}
