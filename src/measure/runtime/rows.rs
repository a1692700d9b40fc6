//! Any number of samples through a network of any batch size.

use super::{Dim, RuntimeError, Session};
use crate::graph::tensor::{Tensor, TensorError};

/// Runs samples, the rows of each input. A network that is declared for one batch size gets batches of that size, the last one
/// filled up with its last sample; what it says of that is thrown away. Outputs have a row a sample.
///
/// # Errors
/// When the network cannot be run on them, or an input or, of a network of one batch size, an output has no rows.
pub fn run_rows(session: &mut dyn Session, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
    let size = batch_size(session);
    let n_rows = inputs.first().and_then(|(_, tensor)| tensor.shape().first().copied()).unwrap_or(0);
    let Some(size) = size.filter(|&size| size != n_rows && n_rows > 0) else { return session.run(inputs) };
    let mut outputs: Vec<(String, Vec<Tensor>)> = Vec::new();
    for start in (0..n_rows).step_by(size) {
        let end = (start + size).min(n_rows);
        let part = |(name, tensor): &(String, Tensor)| Ok((name.clone(), filled(tensor, start, end, size)?));
        let part: Vec<(String, Tensor)> = inputs.iter().map(part).collect::<Result<_, TensorError>>()?;
        for (place, (name, tensor)) in session.run(&part)?.into_iter().enumerate() {
            if place == outputs.len() {
                outputs.push((name, Vec::new()));
            }
            outputs[place].1.push(tensor.rows(0, end - start)?);
        }
    }
    let whole = |(name, parts): (String, Vec<Tensor>)| Ok((name, Tensor::concat_rows(&parts)?));
    outputs.into_iter().map(whole).collect()
}

/// The only batch size that a network is declared for; none where it takes any.
pub fn batch_size(session: &dyn Session) -> Option<usize> {
    match session.inputs().first()?.dims.as_deref()?.first()? {
        Dim::Known(size) => Some(*size).filter(|&size| size > 0),
        Dim::Symbol(_) | Dim::Unknown => None,
    }
}

/// These rows, and the last of them again until there are so many.
fn filled(tensor: &Tensor, start: usize, end: usize, size: usize) -> Result<Tensor, TensorError> {
    let mut parts = vec![tensor.rows(start, end)?];
    parts.extend(std::iter::repeat_n(tensor.rows(end - 1, end)?, size - (end - start)));
    Tensor::concat_rows(&parts)
}

#[cfg(test)]
mod tests {
    use super::super::ValueInfo;
    use super::*;
    use crate::graph::tensor::DType;

    /// Doubles batches of a size.
    struct Doubles(Vec<ValueInfo>, usize);

    impl Session for Doubles {
        fn inputs(&self) -> &[ValueInfo] {
            &self.0
        }

        fn outputs(&self) -> &[ValueInfo] {
            &self.0
        }

        fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
            let (name, tensor) = &inputs[0];
            assert_eq!(tensor.shape()[0], self.1);
            let doubled = tensor.as_slice::<f32>()?.iter().map(|x| 2.0 * x).collect();
            Ok(vec![(name.clone(), Tensor::new(tensor.shape(), doubled)?)])
        }
    }

    #[test]
    fn samples_come_in_batches_that_the_network_takes() {
        let check = |dim: Dim, expected: usize| {
            let x = ValueInfo { name: "x".to_owned(), dtype: Some(DType::F32), dims: Some(vec![dim, Dim::Known(1)]) };
            let mut session = Doubles(vec![x], expected);
            let given = Tensor::new(&[5, 1], vec![1f32, 2.0, 3.0, 4.0, 5.0]).expect("five");
            let given = run_rows(&mut session, &[("x".to_owned(), given)]).expect("it runs");
            assert_eq!(given[0].1.shape(), [5, 1]);
            assert_eq!(given[0].1.as_slice::<f32>().expect("f32"), [2.0, 4.0, 6.0, 8.0, 10.0]);
        };
        check(Dim::Known(1), 1);
        check(Dim::Known(2), 2);
        check(Dim::Known(5), 5);
        check(Dim::Known(8), 8);
        check(Dim::Unknown, 5);
    }
}
