//! Shapes and positions: strides, coordinates, broadcasting.

use super::args::allocation;
use super::{EvalError, invalid};

/// How far apart, in elements, neighbours along each axis are in row-major order.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// The product of some dimensions, or the largest number where it would overflow: dimensions beside a 0 can be any.
pub(super) fn extent(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product: usize, &dim| product.saturating_mul(dim))
}

/// The coordinates of an element by its row-major number. No dimension may be 0.
pub(super) fn coordinates(mut number: usize, shape: &[usize]) -> Vec<usize> {
    let mut coordinates = vec![0; shape.len()];
    for (coordinate, &dim) in coordinates.iter_mut().zip(shape).rev() {
        *coordinate = number % dim;
        number /= dim;
    }
    coordinates
}

/// The shape to which these broadcast (NumPy's rule, both ways).
///
/// # Errors
/// When two differ in a dimension in which neither is 1, and when the result is too large.
pub(super) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, EvalError> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (merged, &dim) in result.iter_mut().rev().zip(shape.iter().rev()) {
            *merged = match (*merged, dim) {
                (have, 1) => have,
                (1, dim) => dim,
                (have, dim) if have == dim => have,
                _ => return Err(invalid(format!("shapes {shapes:?} do not broadcast"))),
            };
        }
    }
    allocation(&result)?;
    Ok(result)
}

/// For every element of the shape `to`, row-major, the number of the element of `from` that broadcasts to it.
///
/// # Errors
/// When `from` does not broadcast to `to`.
pub(super) fn broadcast_positions(from: &[usize], to: &[usize]) -> Result<Vec<usize>, EvalError> {
    if broadcast(&[from, to])? != to {
        return Err(invalid(format!("shape {from:?} does not broadcast to {to:?}")));
    }
    if to.contains(&0) {
        return Ok(Vec::new());
    }
    let n_new = to.len() - from.len();
    let mut positions = vec![0];
    for (axis, &dim) in to.iter().enumerate() {
        let own = if axis < n_new { 1 } else { from[axis - n_new] };
        positions = positions
            .iter()
            .flat_map(|&position| (0..dim).map(move |idx| position * own + if own == 1 { 0 } else { idx }))
            .collect();
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_both_ways() {
        assert_eq!(broadcast(&[&[3, 1, 5], &[4, 1]]), Ok(vec![3, 4, 5]));
        assert_eq!(broadcast(&[&[], &[0, 2]]), Ok(vec![0, 2]));
        assert_eq!(
            broadcast(&[&[2], &[3]]).expect_err("2 and 3 differ").to_string(),
            "shapes [[2], [3]] do not broadcast"
        );
        assert!(matches!(broadcast(&[&[1 << 20, 1], &[1, 1 << 20]]), Err(EvalError::TooLarge(_))));
    }

    #[test]
    fn positions_repeat_what_is_broadcast() {
        assert_eq!(broadcast_positions(&[2, 1], &[2, 3]), Ok(vec![0, 0, 0, 1, 1, 1]));
        assert_eq!(broadcast_positions(&[3], &[2, 3]), Ok(vec![0, 1, 2, 0, 1, 2]));
        assert_eq!(broadcast_positions(&[], &[2]), Ok(vec![0, 0]));
        assert_eq!(broadcast_positions(&[1], &[1 << 40, 0]), Ok(vec![]));
        assert!(broadcast_positions(&[2, 3], &[3]).is_err());
    }

    #[test]
    fn coordinates_and_strides_are_row_major() {
        assert_eq!(extent(&[usize::MAX, 2]), usize::MAX);
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(coordinates(17, &[2, 3, 4]), [1, 1, 1]);
    }
}
