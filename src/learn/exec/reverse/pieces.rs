//! Gradients of slices put together again.
//!
//! Where a value is taken apart, as a sequence is into its steps, each part's gradient as one of the whole would make the
//! work grow with the square of the number of parts: neighbours are joined instead.

use super::Piece;
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::Id;

/// Gradients of a value of this shape whose sum has every piece in its place.
pub(super) fn joined(emitter: &mut Emitter, shape: &[usize], pieces: Vec<Piece>) -> Vec<Id> {
    let mut gradients = Vec::new();
    let mut by_axis: Vec<Vec<Piece>> = vec![Vec::new(); shape.len()];
    for piece in pieces {
        let own = emitter.shape(piece.gradient);
        if own.contains(&0) {
            continue;
        }
        let cut: Vec<usize> = (0..shape.len()).filter(|&axis| own[axis] != shape[axis]).collect();
        match cut.as_slice() {
            [] => gradients.push(piece.gradient),
            &[axis] => by_axis[axis].push(piece),
            _ => gradients.push(alone(emitter, shape, piece)),
        }
    }
    for (axis, mut pieces) in by_axis.into_iter().enumerate() {
        pieces.sort_by_key(|piece| piece.starts[axis]);
        while !pieces.is_empty() {
            // those that do not overlap, first come first; the others are the next round's
            let (mut row, mut rest) = (Vec::new(), Vec::new());
            let mut end = 0;
            for piece in pieces {
                if piece.starts[axis] >= end {
                    end = piece.starts[axis] + emitter.shape(piece.gradient)[axis];
                    row.push(piece);
                } else {
                    rest.push(piece);
                }
            }
            gradients.push(in_a_row(emitter, shape, axis, row));
            pieces = rest;
        }
    }
    gradients
}

fn alone(emitter: &mut Emitter, shape: &[usize], piece: Piece) -> Id {
    let steps = vec![1; shape.len()];
    emitter.slice_gradient(piece.gradient, piece.starts, steps, shape.to_vec())
}

/// Pieces in the order in which they lie along an axis, with zeros where there is none.
fn in_a_row(emitter: &mut Emitter, shape: &[usize], axis: usize, mut row: Vec<Piece>) -> Id {
    if row.len() == 1 {
        return alone(emitter, shape, row.swap_remove(0));
    }
    let zeros = |emitter: &mut Emitter, length: usize| {
        let mut gap = shape.to_vec();
        gap[axis] = length;
        let zero = emitter.scalar(0.0);
        emitter.expand(zero, &gap)
    };
    let mut parts = Vec::with_capacity(row.len());
    let mut end = 0;
    for piece in row {
        let start = piece.starts[axis];
        if start > end {
            parts.push(zeros(emitter, start - end));
        }
        end = start + emitter.shape(piece.gradient)[axis];
        parts.push(piece.gradient);
    }
    if end < shape[axis] {
        parts.push(zeros(emitter, shape[axis] - end));
    }
    emitter.concat(axis, &parts)
}
