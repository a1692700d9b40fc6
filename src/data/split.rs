//! Which samples are trained on, and which are kept from it.

use std::fmt;

use rand::seq::SliceRandom as _;

use super::number::count;
use super::random::{self, Purpose};

/// A part of the data. No sample is in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// What is learned from.
    Train,
    /// What decides when to stop, and between options.
    Validation,
    /// What ranges are measured on.
    Calibration,
    /// What the result is judged by, once.
    Test,
}

impl Split {
    /// All four.
    pub const ALL: [Split; 4] = [Split::Train, Split::Validation, Split::Calibration, Split::Test];

    /// `train`, `validation`, `calibration`, `test`: the keys of a descriptor.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Calibration => "calibration",
            Split::Test => "test",
        }
    }

    pub(super) fn idx(self) -> usize {
        match self {
            Split::Train => 0,
            Split::Validation => 1,
            Split::Calibration => 2,
            Split::Test => 3,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the training files give to the other splits.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    /// The share for validation, from 0 to 1.
    pub validation: f64,
    /// The share for calibration, from 0 to 1.
    pub calibration: f64,
    /// The share for the test, from 0 to 1.
    pub test: f64,
    /// What the division depends on.
    pub seed: u64,
    /// Whether each class is divided by these shares, not only the whole.
    pub stratified: bool,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares { validation: 0.0, calibration: 0.0, test: 0.0, seed: 0, stratified: true }
    }
}

impl Shares {
    /// The share of a split; that of training is what the others leave.
    pub fn share(&self, split: Split) -> f64 {
        match split {
            Split::Train => 1.0 - self.validation - self.calibration - self.test,
            Split::Validation => self.validation,
            Split::Calibration => self.calibration,
            Split::Test => self.test,
        }
    }
}

/// Divides samples: each split gets its share of every stratum and of the whole, within one or two samples, chosen by the seed.
/// `stratum` is the class of a sample, or one number for all. Each split's samples are in ascending order.
pub(super) fn divide(samples: &[usize], stratum: impl Fn(usize) -> i64, shares: &Shares) -> [Vec<usize>; 4] {
    let mut strata: std::collections::BTreeMap<i64, Vec<usize>> = std::collections::BTreeMap::new();
    for &sample in samples {
        strata.entry(stratum(sample)).or_default().push(sample);
    }
    let mut splits: [Vec<usize>; 4] = Default::default();
    let mut n_given = 0;
    for (&class, members) in &mut strata {
        let mut random = random::stream(shares.seed, Purpose::Split, class.cast_unsigned(), 0);
        members.shuffle(&mut random);
        for &sample in members.iter() {
            n_given += 1;
            // To the split that is furthest behind its share: totals and classes stay in proportion together.
            let behind = |split: Split| shares.share(split) * count(n_given) - count(splits[split.idx()].len());
            let next = Split::ALL.into_iter().reduce(|a, b| if behind(b) > behind(a) { b } else { a });
            splits[next.unwrap_or(Split::Train).idx()].push(sample);
        }
    }
    splits.iter_mut().for_each(|split| split.sort_unstable());
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_disjoint_whole_stratified_and_the_seed_s() {
        let samples: Vec<usize> = (0..1000).filter(|sample: &usize| !sample.is_multiple_of(7)).collect();
        let class = |sample: usize| i64::from(sample.is_multiple_of(5));
        let shares = |seed| Shares { validation: 0.1, calibration: 0.05, test: 0.2, seed, stratified: true };
        let divided = divide(&samples, class, &shares(1));
        let mut all: Vec<usize> = divided.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, samples);
        for split in Split::ALL {
            let share = shares(1).share(split);
            let members = &divided[split.idx()];
            let expected = |n: usize| share * count(n);
            assert!((count(members.len()) - expected(samples.len())).abs() <= 1.0, "{split}: {}", members.len());
            let n_ones = |members: &[usize]| members.iter().filter(|&&sample| class(sample) == 1).count();
            let apart = count(n_ones(members)) - expected(n_ones(&samples));
            assert!(apart.abs() <= 2.0, "{split}: {apart}");
        }
        assert_eq!(divided, divide(&samples, class, &shares(1)));
        assert_ne!(divided, divide(&samples, class, &shares(2)));
    }

    #[test]
    fn without_shares_all_is_for_training() {
        let divided = divide(&[3, 4, 5], |_| 0, &Shares::default());
        assert_eq!(divided, [vec![3, 4, 5], vec![], vec![], vec![]]);
    }
}
