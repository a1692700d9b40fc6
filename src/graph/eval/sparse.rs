//! Sparse tensors made whole.

use super::args::allocation;
use super::numbers::int_list;
use super::packed::pick;
use super::{EvalError, invalid};
use crate::graph::attribute::SparseTensor;
use crate::graph::tensor::{DType, Tensor};

/// The tensor with zeros (empty strings) where the sparse one keeps nothing.
///
/// # Errors
/// When its parts do not fit together, or the whole is too large.
pub fn densify(sparse: &SparseTensor) -> Result<Tensor, EvalError> {
    let n_elements = allocation(&sparse.shape)?;
    let positions = positions(sparse)?;
    if positions.len() != sparse.values.len() {
        return Err(invalid(format!(
            "{} values of a sparse tensor, {} positions",
            sparse.values.len(),
            positions.len()
        )));
    }
    let mut kept = vec![None; n_elements];
    for (idx, position) in positions.into_iter().enumerate() {
        *kept
            .get_mut(position)
            .ok_or_else(|| invalid(format!("no element {position} in shape {:?}", sparse.shape)))? = Some(idx);
    }
    let dtype = sparse.values.dtype();
    let zero = if dtype == DType::String {
        Tensor::from_strings(&[], vec![bytes::Bytes::new()])?
    } else {
        Tensor::zeros(dtype, &[])?
    };
    pick(&[&zero, &sparse.values], &sparse.shape, |idx| kept[idx].map_or((0, 0), |value| (1, value)))
}

fn positions(sparse: &SparseTensor) -> Result<Vec<usize>, EvalError> {
    let indices: Result<Vec<usize>, _> = int_list(&sparse.indices)?
        .into_iter()
        .map(|idx| usize::try_from(idx).map_err(|_| invalid(format!("negative index {idx} in a sparse tensor"))))
        .collect();
    let (indices, shape) = (indices?, &sparse.shape);
    if sparse.indices.shape().len() == 1 {
        return Ok(indices);
    }
    if sparse.indices.shape() != [sparse.values.len(), shape.len()] || shape.is_empty() {
        return Err(invalid(format!("indices {:?} of a sparse tensor of shape {shape:?}", sparse.indices.shape())));
    }
    let position = |coordinates: &[usize]| {
        coordinates.iter().zip(shape).try_fold(0usize, |position, (&coordinate, &dim)| {
            if coordinate >= dim {
                return Err(invalid(format!("no element {coordinates:?} in shape {shape:?}")));
            }
            Ok(position * dim + coordinate)
        })
    };
    indices.chunks(shape.len()).map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, tensor};

    fn check(indices: &Tensor) -> Result<Vec<f32>, EvalError> {
        let values = tensor(&[2], [5f32, 7.0]);
        let sparse = SparseTensor { values, indices: indices.clone(), shape: vec![2, 2] };
        densify(&sparse).map(|tensor| elements(&tensor))
    }

    #[test]
    fn kept_elements_go_to_their_places() {
        assert_eq!(check(&tensor(&[2], [3i64, 1])), Ok(vec![0.0, 7.0, 0.0, 5.0]));
        assert_eq!(check(&tensor(&[2, 2], [0i64, 0, 1, 0])), Ok(vec![5.0, 0.0, 7.0, 0.0]));
    }

    #[test]
    fn a_shape_that_is_too_large_is_refused_before_its_places_are_counted() {
        let shape = vec![usize::MAX, usize::MAX];
        let last = i64::MAX;
        let sparse =
            SparseTensor { values: tensor(&[1], [5f32]), indices: tensor(&[1, 2], [last, last]), shape: shape.clone() };
        assert_eq!(densify(&sparse), Err(EvalError::TooLarge(shape)));
    }

    #[test]
    fn places_outside_are_refused() {
        for indices in [tensor(&[2], [4i64, 1]), tensor(&[2], [-1i64, 1]), tensor(&[2, 2], [0i64, 2, 0, 0])] {
            assert!(check(&indices).is_err());
        }
        assert!(check(&tensor(&[1], [1i64])).is_err());
        assert!(check(&tensor(&[1, 2], [1i64, 1])).is_err());
    }
}
