//! Whether two classifiers differ at all: McNemar's test, exact.
//!
//! Among the samples that exactly one of the two got right, each is as likely to be that one where they are equally
//! good: the count is binomial with one half (McNemar 1947). A small p-value says that they differ; a great one does
//! not say that they are alike. For that ask [`super::verdict`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Counts;

/// Two-sided p-values of one table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct McNemar {
    /// The probability of a split at least as uneven as this one; never too small, so on average too great.
    pub p_exact: f64,
    /// The same with the splits that are exactly as uneven counted by half (Fagerland, Lydersen and Laake 2013, "The
    /// McNemar test for binary matched-pairs data"): nearer to its nominal level, at times a little beyond it.
    pub p_mid: f64,
}

/// The test of these counts. Both p-values are 1 where the two never disagree.
pub fn mcnemar(counts: &Counts) -> McNemar {
    let n = counts.n_discordant();
    let fewer = counts.n_student_only.min(counts.n_teacher_only);
    if n == 0 {
        return McNemar { p_exact: 1.0, p_mid: 1.0 };
    }
    let (own, tail) = half_binomial(n, fewer);
    if 2 * fewer == n {
        return McNemar { p_exact: 1.0, p_mid: 1.0 - own / 2.0 };
    }
    McNemar { p_exact: (2.0 * tail).min(1.0), p_mid: (2.0 * tail - own).min(1.0) }
}

/// For `k` of at most half of `n` tosses of a fair coin: the probability of exactly `k`, and of at most `k`.
fn half_binomial(n: usize, k: usize) -> (f64, f64) {
    let log_factorial = |x: usize| libm::lgamma(x as f64 + 1.0);
    let log_ways = log_factorial(n) - log_factorial(k) - log_factorial(n - k);
    let own = (log_ways - n as f64 * std::f64::consts::LN_2).exp();
    let mut tail = own;
    let mut term = own;
    for below in (1..=k).rev() {
        term *= below as f64 / (n - below + 1) as f64;
        tail += term;
        if term <= tail * 1e-17 {
            break;
        }
    }
    (own, tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn test_of(n_student_only: usize, n_teacher_only: usize) -> McNemar {
        mcnemar(&Counts { n_student_only, n_teacher_only, ..Counts::default() })
    }

    /// `mcnemar(table, exact=True).pvalue` of statsmodels 0.15.0; mid-p by `2·binom.cdf(k − 1, n, ½) + binom.pmf(k, n,
    /// ½)` of SciPy 1.17.1, `1 − binom.pmf(k, n, ½)/2` where the counts are equal.
    #[test]
    fn p_values_are_those_of_statsmodels() {
        let check = |student_only, teacher_only, p_exact: f64, p_mid: f64| {
            let got = test_of(student_only, teacher_only);
            let is_near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
            assert!(
                is_near(got.p_exact, p_exact) && is_near(got.p_mid, p_mid),
                "{student_only} {teacher_only}: {got:?}"
            );
        };
        check(0, 0, 1.0, 1.0);
        check(0, 5, 0.0625, 0.03125);
        check(1, 7, 0.0703125, 0.0390625);
        check(10, 25, 0.016673847800120715, 0.011330984183587137);
        check(6, 6, 1.0, 0.88720703125);
        check(3, 4, 1.0, 0.7265625);
        check(121, 59, 4.4344492637551645e-06, 3.2666467957745996e-06);
        check(520, 480, 0.2174482932041415, 0.2061073108329529);
        check(1000, 1300, 4.28740900211522e-10, 3.7822491507334795e-10);
        check(50_000, 50_600, 0.05895199586854574, 0.05853168032790064);
    }

    proptest! {
        #[test]
        fn sides_do_not_matter_and_mid_p_is_the_smaller(a in 0usize..3000, b in 0usize..3000) {
            let test = test_of(a, b);
            prop_assert_eq!(test, test_of(b, a));
            prop_assert!(test.p_mid > 0.0 || a.abs_diff(b) > 1000);
            prop_assert!(test.p_mid <= test.p_exact && test.p_exact <= 1.0);
        }
    }
}
