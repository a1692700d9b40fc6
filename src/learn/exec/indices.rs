//! Indices as ONNX has them: integers, of which negative ones count from the end.

use crate::graph::tensor::Tensor;

/// Every index as a position along an axis of this size.
///
/// # Errors
/// The first index that is outside the axis.
pub(super) fn positive(indices: &Tensor, size: usize) -> Result<Vec<usize>, i64> {
    let signed_size = i64::try_from(size).unwrap_or(i64::MAX);
    let position = |index: i64| {
        let from_start = if index < 0 { index.checked_add(signed_size) } else { Some(index) };
        from_start.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < size).ok_or(index)
    };
    match (indices.as_slice::<i64>(), indices.as_slice::<i32>()) {
        (Ok(wide), _) => wide.iter().map(|&index| position(index)).collect(),
        (Err(_), Ok(narrow)) => narrow.iter().map(|&index| position(index.into())).collect(),
        (Err(_), Err(_)) => unreachable!("indices are of i64 or i32, which lowering has checked"),
    }
}
