//! Reading and adding whole rows by their numbers.

#![allow(unsafe_code)]

use super::super::parallel::{PIECE, Parts, WORTH_SPREADING, for_pieces, for_ranges};

/// `y`, `[outer, rows, inner]`, has these rows of `x`, `[outer, n, inner]`.
///
/// # Panics
/// When a row is not below `n`, or lengths are not those of the shapes, as every function here.
pub fn gather([outer, n, inner]: [usize; 3], x: &[f32], rows: &[usize], y: &mut [f32]) {
    assert_eq!(x.len(), outer * n * inner, "x has its shape");
    assert_eq!(y.len(), outer * rows.len() * inner, "y has its shape");
    assert!(rows.iter().all(|&row| row < n), "rows are within x");
    let parts = Parts::new(y);
    for_ranges(outer * rows.len(), inner, |range| {
        for idx in range {
            let source = (idx / rows.len()) * n + rows[idx % rows.len()];
            // SAFETY: each row belongs to one piece.
            let y = unsafe { parts.part(idx * inner..(idx + 1) * inner) };
            y.copy_from_slice(&x[source * inner..][..inner]);
        }
    });
}

/// The transpose of [`gather`]: each row of `dy` is added to the row of `dx` that it was read from, in their order; what
/// was not read is 0.
pub fn gather_gradient([outer, n, inner]: [usize; 3], dy: &[f32], rows: &[usize], dx: &mut [f32]) {
    assert_eq!(dx.len(), outer * n * inner, "dx has its shape");
    assert_eq!(dy.len(), outer * rows.len() * inner, "dy has its shape");
    assert!(rows.iter().all(|&row| row < n), "rows are within dx");
    // Each piece owns rows of `dx` and looks through all of `rows` for them.
    let n_blocks = if outer >= 16 { 1 } else { (n * inner).div_ceil(PIECE).clamp(1, 16) };
    let rows_per_block = n.div_ceil(n_blocks);
    let parts = Parts::new(dx);
    for_pieces(outer * n_blocks, 1, parts.len() + dy.len() > WORTH_SPREADING, |pieces| {
        for piece in pieces {
            let (slab, block) = (piece / n_blocks, piece % n_blocks);
            let own = (block * rows_per_block).min(n)..((block + 1) * rows_per_block).min(n);
            // SAFETY: each piece has rows of its own.
            let dx = unsafe { parts.part((slab * n + own.start) * inner..(slab * n + own.end) * inner) };
            dx.fill(0.0);
            for (idx, row) in rows.iter().enumerate().filter(|(_, row)| own.contains(row)) {
                let dy = &dy[(slab * rows.len() + idx) * inner..][..inner];
                dx[(row - own.start) * inner..].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
            }
        }
    });
}
