//! How good predictions are. Pure functions on numbers, summed in `f64`; nothing here runs a network.
//!
//! Where a metric is the mean of a number a sample, the function gives that number for each sample, so that student and
//! teacher can be compared pair by pair ([`paired`](super::paired)). The others, such as F1 or the area under a curve,
//! exist only for a set of samples: their functions ending in `_of` take the places of the samples, and go into
//! [`statistic_interval`](super::paired::bootstrap::statistic_interval).
//!
//! | task | metrics |
//! |---|---|
//! | classification | [`classification`], [`calibration`] |
//! | two classes, anomaly | [`binary`] |
//! | numbers, reconstruction | [`regression`] |
//! | embeddings | [`embedding`] |
//! | sequence tagging | [`tagging`] |
//! | spans, question answering | [`span`] |
//! | any classifier beside its teacher | [`agreement`] |
//!
//! NaN is refused with the sample that has it; infinities are taken where the formula has a value for them.

pub mod agreement;
pub mod binary;
pub mod calibration;
pub mod classification;
pub mod embedding;
pub mod regression;
mod rows;
pub mod span;
pub mod tagging;

pub use rows::{Rows, labels};

/// Why predictions have no score.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// There is nothing to score.
    #[error("no samples to score")]
    Empty,
    /// Two things that belong together are not equally many.
    #[error("{what}: expected {expected}, got {got}")]
    Length {
        /// what was counted
        what: &'static str,
        /// how many there should be
        expected: usize,
        /// how many there are
        got: usize,
    },
    /// A tensor does not hold rows of numbers.
    #[error("{what}: {problem}")]
    Tensor {
        /// which tensor
        what: &'static str,
        /// what is wrong with it
        problem: String,
    },
    /// A number is NaN, or infinite where that has no meaning.
    #[error("{what} of sample {sample} hold {value}, of which there is no score")]
    NotNumber {
        /// whose number it is
        what: &'static str,
        /// the sample's place
        sample: usize,
        /// the number
        value: f64,
    },
    /// A label is no class.
    #[error("label {label} of sample {sample} is outside of the {n_classes} classes")]
    Label {
        /// the label
        label: i64,
        /// the sample's place
        sample: usize,
        /// how many classes there are
        n_classes: usize,
    },
    /// The metric needs samples of both classes.
    #[error("all {n_samples} samples are {class}: give samples of both classes")]
    OneClass {
        /// how many samples there are
        n_samples: usize,
        /// `positive` or `negative`
        class: &'static str,
    },
    /// The metric compares with a spread that is 0.
    #[error("{what} are all equal: there is nothing that the predictions could follow")]
    Constant {
        /// which numbers
        what: &'static str,
    },
    /// A tag is neither `O` nor one of `B`, `I`, `E` and `S` with a kind after a hyphen.
    #[error("tag `{tag}` of sentence {sample} is none of O, B-KIND, I-KIND, E-KIND and S-KIND")]
    Tag {
        /// the tag
        tag: String,
        /// the sentence's place
        sample: usize,
    },
    /// A place given to a function ending in `_of` is none of the samples'.
    #[error("place {place} is outside of the {n_samples} samples")]
    Place {
        /// the place
        place: usize,
        /// how many samples there are
        n_samples: usize,
    },
    /// A parameter of the metric is out of its range.
    #[error("{what} is {value}: give {range}")]
    Parameter {
        /// what it is
        what: &'static str,
        /// what was given
        value: f64,
        /// what is allowed
        range: &'static str,
    },
}

fn check_length(what: &'static str, expected: usize, got: usize) -> Result<(), MetricError> {
    if expected == got { Ok(()) } else { Err(MetricError::Length { what, expected, got }) }
}

/// Equally many, and at least one.
fn check_pairs(what: &'static str, expected: usize, got: usize) -> Result<(), MetricError> {
    check_length(what, expected, got)?;
    if expected == 0 { Err(MetricError::Empty) } else { Ok(()) }
}

fn check_finite(what: &'static str, numbers: &[f64]) -> Result<(), MetricError> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(sample) => Err(MetricError::NotNumber { what, sample, value: numbers[sample] }),
        None => Ok(()),
    }
}

/// The values at these places.
fn at<T: Copy>(values: &[T], places: &[usize]) -> Result<Vec<T>, MetricError> {
    let value =
        |&place: &usize| values.get(place).copied().ok_or(MetricError::Place { place, n_samples: values.len() });
    places.iter().map(value).collect()
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}
