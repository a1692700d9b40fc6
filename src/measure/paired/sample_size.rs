//! How many samples a test for non-inferiority needs, before it is made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StatisticsError, check_between_0_and_1, check_margin, proportions};
use crate::measure::normal;

/// A test to be made. The units of `difference` and `margin` are those of the scores: 0.01 is one point of accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Student − teacher that is expected to be true.
    pub difference: f64,
    /// How much worse the student may be; 0 or more. With 0 the question is whether it is better.
    pub margin: f64,
    /// Of the two-sided interval that decides: 0.95 is a one-sided level of 2.5 %.
    pub confidence: f64,
    /// The probability that the test decides, if the difference is as expected.
    pub power: f64,
}

/// Samples needed where each is right or wrong, and a part `discordance` of them is got right by exactly one of the
/// two.
///
/// n = (z₁₋α √v₀ + z_power √v₁)² / (difference + margin)², where v₁ = discordance − difference² is the true variance of
/// a sample's difference and v₀ the one that the score test believes in at the margin (Nam 1997, "Establishing
/// equivalence of two treatments and sample size requirements in matched-pairs design"). With a margin of 0 it is
/// Connor's (1987) for McNemar's test. Where the difference is beyond the margin, the samples needed to show that.
///
/// None where the difference is just at the margin: no number of samples decides then.
///
/// # Errors
/// When a number is out of range; the discordance is at least the difference, whichever way that goes, and at most 1.
pub fn of_proportions(plan: &Plan, discordance: f64) -> Result<Option<usize>, StatisticsError> {
    let is_possible = discordance <= 1.0 && discordance >= plan.difference.abs();
    if !is_possible {
        let range = "at least the difference and at most 1";
        return Err(StatisticsError::Parameter { what: "the discordance", value: discordance, range });
    }
    let (gains, losses) = ((discordance + plan.difference) / 2.0, (discordance - plan.difference) / 2.0);
    let at_margin = proportions::variance_under(gains, losses, -plan.margin.min(1.0));
    solve(plan, at_margin, discordance - plan.difference * plan.difference)
}

/// Samples needed where the differences of single samples have this standard deviation: n = (z₁₋α + z_power)² ·
/// deviation² / (difference + margin)². None where the difference is just at the margin.
///
/// # Errors
/// When a number is out of range.
pub fn of_means(plan: &Plan, deviation: f64) -> Result<Option<usize>, StatisticsError> {
    let is_deviation = deviation >= 0.0 && deviation.is_finite();
    if !is_deviation {
        let range = "0 or more";
        return Err(StatisticsError::Parameter { what: "the standard deviation", value: deviation, range });
    }
    solve(plan, deviation * deviation, deviation * deviation)
}

/// Beyond this many samples none is named: the difference is at the margin for all that anybody can tell.
const MOST: f64 = 1e12;

fn solve(plan: &Plan, variance_at_margin: f64, variance: f64) -> Result<Option<usize>, StatisticsError> {
    check_between_0_and_1("the confidence", plan.confidence)?;
    check_between_0_and_1("the power", plan.power)?;
    check_margin(plan.margin)?;
    if !plan.difference.is_finite() {
        let range = "a finite number";
        return Err(StatisticsError::Parameter { what: "the difference", value: plan.difference, range });
    }
    let level = normal::two_sided(plan.confidence) * variance_at_margin.sqrt();
    let width = (level + normal::quantile(plan.power) * variance.sqrt()).max(0.0);
    let distance = plan.difference + plan.margin;
    let n = (width / distance).powi(2).ceil().max(1.0);
    // `0.01 − 0.01` need not be 0 in binary: what is left of it is no distance.
    let is_at_margin = distance.abs() <= 1e-12 * plan.margin.max(plan.difference.abs());
    Ok((!is_at_margin && n <= MOST).then_some(n as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(difference: f64, margin: f64, power: f64) -> Plan {
        Plan { difference, margin, confidence: 0.95, power }
    }

    /// `normal_sample_size_one_tail(distance, power, 0.025, √v₀, √v₁)` of statsmodels 0.15.0, v₀ by
    /// `scipy.optimize.minimize_scalar` on the trinomial likelihood.
    #[test]
    fn sizes_are_those_of_statsmodels() {
        let check = |difference, discordance, margin, power, expected: f64| {
            let got = of_proportions(&plan(difference, margin, power), discordance);
            assert_eq!(got, Ok(Some(expected.ceil() as usize)), "{difference} {discordance} {margin}");
        };
        check(0.0, 0.1, 0.02, 0.8, 2004.3902850781496);
        check(-0.005, 0.05, 0.01, 0.8, 15878.231525355772);
        check(0.01, 0.08, 0.0, 0.9, 8401.78349439767);
        check(-0.02, 0.06, 0.01, 0.8, 4605.5741464815055);
        assert_eq!(of_means(&plan(0.0, 0.05, 0.8), 0.7), Ok(Some(1539)));
    }

    #[test]
    fn no_size_decides_at_the_margin() {
        assert_eq!(of_proportions(&plan(-0.01, 0.01, 0.8), 0.05), Ok(None));
        assert_eq!(of_means(&plan(0.1 - 0.4, 0.3, 0.8), 1.0), Ok(None));
        assert_eq!(of_means(&plan(0.0, 0.0, 0.8), 1.0), Ok(None));
        assert_eq!(of_means(&plan(0.0, 0.1, 0.8), 0.0), Ok(Some(1)));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let check = |got: Result<Option<usize>, StatisticsError>, message: &str| {
            assert_eq!(got.expect_err(message).to_string(), message);
        };
        let message = "the discordance is 0.01: give at least the difference and at most 1";
        check(of_proportions(&plan(-0.02, 0.01, 0.8), 0.01), message);
        check(of_proportions(&plan(0.0, -0.01, 0.8), 0.05), "the margin is -0.01: give 0 or more");
        let message = "the power is 1: give a number between 0 and 1, neither included";
        check(of_means(&plan(0.0, 0.01, 1.0), 0.5), message);
        assert!(of_means(&plan(0.0, 0.01, 0.8), f64::NAN).is_err());
        assert!(of_means(&plan(f64::NAN, 0.01, 0.8), 1.0).is_err());
    }
}
