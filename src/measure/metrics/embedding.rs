//! Vectors: how alike two are, and whether likeness ranks pairs as people do.

use super::{MetricError, Rows, at, check_finite, check_pairs, mean};

/// The cosine of the angle between the two vectors of each sample, from −1 to 1. A vector of zeros has no direction: 0
/// beside another (as in scikit-learn), and 1 beside a second vector of zeros, with which it agrees.
///
/// # Errors
/// When the two differ in shape, there are no samples, or a number is NaN or infinite.
pub fn cosines(a: &Rows, b: &Rows) -> Result<Vec<f64>, MetricError> {
    a.check_like(b)?;
    a.check_finite("vectors")?;
    b.check_finite("vectors")?;
    Ok(a.iter().zip(b.iter()).map(|(a, b)| cosine(a, b)).collect())
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    // Scaled by their greatest numbers, so that no square overflows or underflows.
    let greatest = |x: &[f64]| x.iter().fold(0.0, |greatest: f64, number| greatest.max(number.abs()));
    let (scale_a, scale_b) = (greatest(a), greatest(b));
    if scale_a == 0.0 || scale_b == 0.0 {
        return f64::from(scale_a == scale_b);
    }
    let product =
        |x: &[f64], x0: f64, y: &[f64], y0: f64| x.iter().zip(y).map(|(x, y)| (x / x0) * (y / y0)).sum::<f64>();
    let lengths = product(a, scale_a, a, scale_a).sqrt() * product(b, scale_b, b, scale_b).sqrt();
    (product(a, scale_a, b, scale_b) / lengths).clamp(-1.0, 1.0)
}

/// Pearson's correlation of two lists of numbers, from −1 to 1.
///
/// # Errors
/// When either is constant, they are not equally long or empty, or a number is NaN or infinite.
pub fn pearson(a: &[f64], b: &[f64]) -> Result<f64, MetricError> {
    check_pairs("numbers", a.len(), b.len())?;
    for numbers in [a, b] {
        check_finite("numbers", numbers)?;
        if numbers.iter().all(|&number| number == numbers[0]) {
            return Err(MetricError::Constant { what: "the numbers" });
        }
    }
    let centred = |x: &[f64]| {
        let centre = mean(x);
        x.iter().map(|number| number - centre).collect::<Vec<_>>()
    };
    Ok(cosine(&centred(a), &centred(b)))
}

/// Spearman's rank correlation: Pearson's of the ranks, equal numbers sharing the mean of theirs.
///
/// # Errors
/// As [`pearson`].
pub fn spearman(a: &[f64], b: &[f64]) -> Result<f64, MetricError> {
    check_pairs("numbers", a.len(), b.len())?;
    check_finite("numbers", a)?;
    check_finite("numbers", b)?;
    pearson(&ranks(a), &ranks(b))
}

/// [`spearman`] of the samples at these places, for the bootstrap; none where either list is constant there.
///
/// # Errors
/// As [`spearman`] but for that, and when a place is none of the samples'.
pub fn spearman_of(a: &[f64], b: &[f64], places: &[usize]) -> Result<Option<f64>, MetricError> {
    check_pairs("numbers", a.len(), b.len())?;
    match spearman(&at(a, places)?, &at(b, places)?) {
        Err(MetricError::Constant { .. }) => Ok(None),
        value => value.map(Some),
    }
}

/// Ranks from 1, equal numbers sharing the mean of theirs.
fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut n_before = 0;
    for equal in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
        let rank = n_before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&idx| ranks[idx] = rank);
        n_before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: [f64; 10] = [1.0, 2.0, 2.0, 3.0, 5.0, 4.0, 7.0, 7.0, 7.0, 10.0];
    const B: [f64; 10] = [2.0, 1.0, 3.0, 3.0, 4.0, 6.0, 5.0, 8.0, 8.0, 7.0];

    fn rows(numbers: &[f64], n_columns: usize) -> Rows {
        Rows::new(numbers.to_vec(), n_columns).expect("whole rows")
    }

    /// `cosine_similarity` of scikit-learn 1.9.1; `spearmanr` and `pearsonr` of SciPy 1.17.1.
    #[test]
    fn figures_are_those_of_scikit_learn_and_scipy() {
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-15, "{got} {expected}");
        let a = rows(&[1.0, 2.0, 3.0, 0.5, -1.0, 2.0], 3);
        let b = rows(&[2.0, 1.0, 0.5, -1.0, 2.0, 0.25], 3);
        let got = cosines(&a, &b).expect("finite");
        close(got[0], 0.6415330278717848);
        close(got[1], -0.38794291597509756);
        close(spearman(&A, &B).expect("not constant"), 0.8638143493027595);
        close(pearson(&A, &B).expect("not constant"), 0.8353271002655372);
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(spearman_of(&A, &B, &all).expect("places"), spearman(&A, &B).ok());
    }

    #[test]
    fn zeros_and_far_numbers_have_a_cosine() {
        let a = rows(&[0.0, 0.0, 0.0, 0.0, 1e200, 0.0, 1e-200, 1e-200], 2);
        let b = rows(&[0.0, 0.0, 1.0, 0.0, 3e200, 0.0, 1.0, 1.0], 2);
        let got = cosines(&a, &b).expect("finite");
        assert_eq!(got[..3], [1.0, 0.0, 1.0]);
        assert!((got[3] - 1.0).abs() < 1e-15);
    }

    #[test]
    fn what_has_no_correlation_is_refused() {
        let message = "the numbers are all equal: there is nothing that the predictions could follow";
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]).expect_err(message).to_string(), message);
        assert_eq!(spearman_of(&A, &B, &[3, 3]), Ok(None));
        assert_eq!(spearman(&[], &[]), Err(MetricError::Empty));
        assert!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]).is_err());
        assert!(pearson(&[1.0], &[1.0, 2.0]).is_err());
        assert!(cosines(&rows(&[f64::NAN], 1), &rows(&[1.0], 1)).is_err());
    }

    proptest! {
        #[test]
        fn ranks_follow_order_alone(pairs in prop::collection::vec((-9i32..9, -9i32..9), 2..40)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().map(|(a, b)| (f64::from(a), f64::from(b))).unzip();
            prop_assert_eq!(ranks(&a).iter().sum::<f64>(), (a.len() * (a.len() + 1)) as f64 / 2.0);
            if let Ok(correlation) = spearman(&a, &b) {
                let cubed: Vec<f64> = a.iter().map(|x| x.powi(3)).collect();
                prop_assert_eq!(spearman(&cubed, &b), Ok(correlation));
                prop_assert!((spearman(&a, &a).expect("not constant") - 1.0).abs() < 1e-12);
            }
        }
    }
}
