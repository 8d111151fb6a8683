//! Medians, ratios of pairs, and the order of blocks.

use std::time::Duration;

/// The median, `None` of nothing. Of an even number it is the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 {
        upper
    } else {
        (sorted[middle - 1] + upper) / 2.0
    })
}

pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1_000.0
}

/// What a variant took in relation to its baseline, over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Ratios {
    /// Of values that were measured in the same round, so that a machine that is slow for a while
    /// slows down both. `None` if there is no round or nothing to divide by.
    pub fn of_pairs(values: &[f64], baseline: &[f64]) -> Option<Self> {
        if baseline.contains(&0.0) {
            return None;
        }
        let ratios: Vec<f64> = values
            .iter()
            .zip(baseline)
            .map(|(value, base)| value / base)
            .collect();
        Some(Ratios {
            min: ratios.iter().copied().reduce(f64::min)?,
            median: median(&ratios)?,
            max: ratios.iter().copied().reduce(f64::max)?,
        })
    }
}

/// The order of `count` variants in a round: the same circle each time, entered one later in each
/// round, so that none always runs first or always after the same disturbance.
pub fn rotation(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (at + round) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_any_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_mean_counts_what_a_median_leaves_out() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, 1.0, 10.0]), Some(4.0));
    }

    #[test]
    fn ratios_are_those_of_pairs_not_of_medians() {
        // The second round was twice as slow for both; the ratio of the medians would be 2.5.
        let ratios = Ratios::of_pairs(&[20.0, 50.0, 30.0], &[10.0, 20.0, 10.0]);
        assert_eq!(
            ratios,
            Some(Ratios {
                min: 2.0,
                median: 2.5,
                max: 3.0
            })
        );
        assert_eq!(Ratios::of_pairs(&[], &[]), None);
        assert_eq!(Ratios::of_pairs(&[1.0], &[0.0]), None);
    }

    #[test]
    fn every_variant_runs_once_in_each_round_and_comes_first_in_turn() {
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| rotation(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(rotation(0, 5).count(), 0);
    }
}
