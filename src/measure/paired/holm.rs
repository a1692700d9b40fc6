//! Several tests at once: Holm's correction.

use super::StatisticsError;

/// Holm's adjusted p-values, in the given order: each test whose adjusted value is at most α may be believed, and the
/// probability that any of them is wrong is at most α, whatever the tests have to do with each other.
///
/// The i-th smallest of m is multiplied by m − i + 1, made no smaller than the one before it and no greater than 1
/// (Holm 1979, "A simple sequentially rejective multiple test procedure").
///
/// # Errors
/// When one is not between 0 and 1.
pub fn adjusted(p_values: &[f64]) -> Result<Vec<f64>, StatisticsError> {
    if let Some(&value) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(StatisticsError::Parameter { what: "a p-value", value, range: "a number from 0 to 1" });
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut greatest = 0f64;
    for (n_before, &idx) in order.iter().enumerate() {
        let n_left = (p_values.len() - n_before) as f64;
        greatest = greatest.max(n_left * p_values[idx]).min(1.0);
        adjusted[idx] = greatest;
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `multipletests(p, method="holm")[1]` of statsmodels 0.15.0.
    #[test]
    fn p_values_are_those_of_statsmodels() {
        let check = |p_values: &[f64], expected: &[f64]| {
            let got = adjusted(p_values).expect("probabilities");
            let is_near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15);
            assert!(is_near && got.len() == expected.len(), "{got:?} {expected:?}");
        };
        check(&[], &[]);
        check(&[0.01, 0.04, 0.03, 0.005], &[0.03, 0.06, 0.06, 0.02]);
        check(&[0.5, 0.9, 0.4, 0.02, 0.02], &[1.0, 1.0, 1.0, 0.1, 0.1]);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let error = adjusted(&[0.5, 1.5]).expect_err("1.5 is none");
        assert_eq!(error.to_string(), "a p-value is 1.5: give a number from 0 to 1");
        assert!(adjusted(&[f64::NAN]).is_err());
    }

    proptest! {
        #[test]
        fn values_grow_and_keep_their_order(p_values in prop::collection::vec(0.0..=1.0f64, 0..12)) {
            let got = adjusted(&p_values).expect("probabilities");
            for (idx, &p) in p_values.iter().enumerate() {
                prop_assert!(got[idx] >= p && got[idx] <= 1.0);
                prop_assert!(p_values.iter().zip(&got).all(|(&other, &adjusted)| other < p || adjusted >= got[idx]));
            }
        }
    }
}
