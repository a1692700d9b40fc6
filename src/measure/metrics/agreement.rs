//! A student beside its teacher: where they say the same, how far their probabilities are apart, and which samples
//! flipped.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calibration::log_probabilities;
use super::classification::predicted;
use super::{MetricError, Rows, check_length};

/// Whether the two predict the same class for each sample. Its mean is the agreement.
///
/// # Errors
/// When the two differ in shape, there are no samples, or a score is NaN.
pub fn agrees(student: &Rows, teacher: &Rows) -> Result<Vec<bool>, MetricError> {
    teacher.check_like(student)?;
    Ok(predicted(student)?.iter().zip(predicted(teacher)?).map(|(&student, teacher)| student == teacher).collect())
}

/// The Kullback–Leibler divergence of the student from the teacher for each sample, Σ p_teacher · log (p_teacher /
/// p_student) in nats, at temperature 1, from logits: 0 where the probabilities are equal, infinite where the student
/// rules out what the teacher does not.
///
/// # Errors
/// When the two differ in shape, there are no samples, a logit is NaN or +∞, or all of a row are −∞.
pub fn divergences(student: &Rows, teacher: &Rows) -> Result<Vec<f64>, MetricError> {
    teacher.check_like(student)?;
    let (student, teacher) = (log_probabilities(student)?, log_probabilities(teacher)?);
    let term = |(student, teacher): (&f64, &f64)| {
        // What the teacher rules out counts for nothing, whatever the student says of it.
        if *teacher == f64::NEG_INFINITY { 0.0 } else { teacher.exp() * (teacher - student) }
    };
    let divergence = |(student, teacher): (&[f64], &[f64])| student.iter().zip(teacher).map(term).sum::<f64>().max(0.0);
    Ok(student.iter().zip(teacher.iter()).map(divergence).collect())
}

/// The samples on which exactly one of the two is right, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flips {
    /// Right with the teacher, wrong with the student.
    pub lost: Vec<usize>,
    /// Wrong with the teacher, right with the student.
    pub gained: Vec<usize>,
}

/// The samples that flipped; `ids` names each.
///
/// # Errors
/// When the three are not equally many.
pub fn flips(student_right: &[bool], teacher_right: &[bool], ids: &[usize]) -> Result<Flips, MetricError> {
    check_length("samples of the student", teacher_right.len(), student_right.len())?;
    check_length("ids", teacher_right.len(), ids.len())?;
    let mut flips = Flips::default();
    for ((student, teacher), &id) in student_right.iter().zip(teacher_right).zip(ids) {
        match (student, teacher) {
            (false, true) => flips.lost.push(id),
            (true, false) => flips.gained.push(id),
            (true, true) | (false, false) => {}
        }
    }
    Ok(flips)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(numbers: &[f64]) -> Rows {
        Rows::new(numbers.to_vec(), 3).expect("whole rows")
    }

    /// `scipy.stats.entropy(softmax(teacher), softmax(student))` of SciPy 1.17.1.
    #[test]
    fn divergences_are_scipy_s() {
        let teacher = rows(&[2.0, 0.5, -1.0, 0.1, 0.2, 0.3, -3.0, 4.0, 0.0, 1.0, 1.5, 1.2, 0.0, -1.0, 2.5]);
        let student = rows(&[1.5, 0.5, -1.0, 0.3, 0.2, 0.1, -3.0, 2.0, 0.5, 1.0, 1.4, 1.6, 0.2, -1.0, 2.5]);
        let expected = [
            0.02302625249016384,
            0.013311159151039656,
            0.14114727162838447,
            0.024928013371664975,
            0.0014474469369159925,
        ];
        let got = divergences(&student, &teacher).expect("finite");
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-15), "{got:?}");
        assert_eq!(agrees(&student, &teacher), Ok(vec![true, false, true, false, true]));
    }

    #[test]
    fn what_is_ruled_out_has_a_divergence() {
        let none = f64::NEG_INFINITY;
        let check = |student: [f64; 3], teacher: [f64; 3], expected: f64| {
            let got = divergences(&rows(&student), &rows(&teacher)).expect("logits");
            assert!(got == [expected] || (got[0] - expected).abs() < 1e-12, "{got:?} {expected}");
        };
        check([0.0, 0.0, none], [0.0, 0.0, none], 0.0);
        check([0.0, 0.0, 0.0], [0.0, 0.0, none], 1.5f64.ln());
        check([0.0, 0.0, none], [0.0, 0.0, 0.0], f64::INFINITY);
        check([1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0], 1000.0);
        assert!(divergences(&rows(&[f64::NAN, 0.0, 0.0]), &rows(&[0.0; 3])).is_err());
        assert_eq!(divergences(&rows(&[]), &rows(&[])), Err(MetricError::Empty));
        assert!(agrees(&rows(&[0.0; 3]), &rows(&[0.0; 6])).is_err());
    }

    #[test]
    fn flipped_samples_are_named() {
        let (t, f) = (true, false);
        let got = flips(&[t, f, t, f], &[t, t, f, f], &[10, 11, 12, 13]).expect("four each");
        assert_eq!(got, Flips { lost: vec![11], gained: vec![12] });
        assert!(flips(&[t], &[t], &[]).is_err());
        assert!(flips(&[t], &[], &[]).is_err());
    }

    proptest! {
        #[test]
        fn a_divergence_is_not_negative_and_shifts_do_not_matter(
            pairs in prop::collection::vec((-20.0..20.0f64, -20.0..20.0f64), 3),
            shift in -50.0..50.0f64,
        ) {
            let (student, teacher): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let one = divergences(&rows(&student), &rows(&teacher)).expect("finite")[0];
            let shifted: Vec<f64> = student.iter().map(|logit| logit + shift).collect();
            let other = divergences(&rows(&shifted), &rows(&teacher)).expect("finite")[0];
            prop_assert!(one >= 0.0 && (one - other).abs() < 1e-10);
            prop_assert_eq!(divergences(&rows(&teacher), &rows(&teacher)), Ok(vec![0.0]));
        }
    }
}
