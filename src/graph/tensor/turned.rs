//! Matrices with their axes swapped.

/// The matrices `[n_rows, n_columns]` of a stack, each with its axes swapped: the elements of its first column, then of the next.
pub(crate) fn turned<T: Copy>(stack: &[T], n_rows: usize, n_columns: usize) -> Vec<T> {
    let mut turned = Vec::with_capacity(stack.len());
    for matrix in stack.chunks_exact((n_rows * n_columns).max(1)) {
        for column in 0..n_columns {
            turned.extend(matrix[column..].iter().step_by(n_columns));
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_matrix_of_a_stack_is_turned() {
        assert_eq!(turned(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
        assert_eq!(turned(&[1, 2, 3, 4, 5, 6, 7, 8], 2, 2), [1, 3, 2, 4, 5, 7, 6, 8]);
        assert!(turned::<u8>(&[], 0, 3).is_empty());
    }
}
