//! How the elements of a weight stand beside each other, and which of them are out together.

use std::ops::Range;

use super::options::Pattern;
use crate::compress::observe::product::{Matrices, kernels, stack};
use crate::graph::axes::Weight;
use crate::graph::{Node, Op};

/// The matrices of a weight with their columns in the order of [`Pattern`], cut into units: elements that are out together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) matrices: Matrices,
    /// Places of a convolution's kernel; one of any other product.
    n_taps: usize,
    pub(super) pattern: Pattern,
}

impl Layout {
    /// The layout of a product's weight of this shape; why not, where it has none.
    pub(super) fn of(node: &Node, weight: &Weight, shape: &[usize], pattern: Pattern) -> Result<Layout, String> {
        let (matrices, n_taps) = match (&node.op, weight.input_axis) {
            (Op::Conv(conv), Some(_)) if shape.len() >= 2 => {
                (kernels(shape, conv.group)?, shape[2..].iter().product::<usize>())
            }
            (Op::MatMul | Op::Gemm(_) | Op::LSTM(_) | Op::GRU(_) | Op::RNN(_), Some(input_axis)) => {
                (stack(shape, weight.output_axis, input_axis)?, 1)
            }
            (Op::Gather(_), None) => (stack(shape, 0, 1)?, 1),
            (op, _) => {
                let name = op.name();
                return Err(format!("{name} reads it; weights of Conv, MatMul, Gemm, LSTM, GRU and RNN go sparse"));
            }
        };
        let layout = Layout { matrices, n_taps, pattern };
        match pattern {
            _ if layout.n_weights() == 0 => Err("it is empty".to_string()),
            Pattern::NM { m, .. } if !layout.n_channels().is_multiple_of(m) => {
                let n_channels = layout.n_channels();
                Err(format!("an output has {n_channels} input channels, which {pattern} does not divide"))
            }
            Pattern::Free | Pattern::NM { .. } | Pattern::Block { .. } => Ok(layout),
        }
    }

    pub(super) fn n_weights(&self) -> usize {
        self.matrices.n_groups * self.matrices.n_rows * self.matrices.n_columns
    }

    /// Columns that stand beside each other at one tap.
    fn n_channels(&self) -> usize {
        self.matrices.n_columns / self.n_taps.max(1)
    }

    /// The column that comes at this place of the order.
    pub(super) fn column(&self, place: usize) -> usize {
        place % self.n_channels() * self.n_taps + place / self.n_channels()
    }

    /// Rows and columns of a unit.
    pub(super) fn unit(&self) -> (usize, usize) {
        match self.pattern {
            Pattern::Free | Pattern::NM { .. } => (1, 1),
            Pattern::Block { rows, columns } => (rows, columns),
        }
    }

    /// Rows of units in a matrix.
    pub(super) fn n_strips(&self) -> usize {
        self.matrices.n_rows.div_ceil(self.unit().0)
    }

    /// The places of the order that a unit takes of a row, one after the other; none reaches over to the next tap.
    pub(super) fn spans(&self) -> Vec<Range<usize>> {
        let (n_channels, width) = (self.n_channels(), self.unit().1);
        let of_tap = |tap: usize| {
            let starts = (0..n_channels).step_by(width);
            starts.map(move |start| tap * n_channels + start..tap * n_channels + (start + width).min(n_channels))
        };
        (0..self.n_taps).flat_map(of_tap).collect()
    }

    /// Units of a strip.
    pub(super) fn n_spans(&self) -> usize {
        self.n_taps * self.n_channels().div_ceil(self.unit().1)
    }

    /// Units of the weight; those of a strip stand beside each other.
    pub(super) fn n_units(&self) -> usize {
        self.matrices.n_groups * self.n_strips() * self.n_spans()
    }

    /// Calls with each element's place in the constant and its unit.
    pub(super) fn for_each(&self, mut each: impl FnMut(usize, usize)) {
        let (height, width) = self.unit();
        let (n_strips, n_spans, n_channels) = (self.n_strips(), self.n_spans(), self.n_channels());
        let per_tap = n_channels.div_ceil(width);
        for group in 0..self.matrices.n_groups {
            for row in 0..self.matrices.n_rows {
                let before = (group * n_strips + row / height) * n_spans;
                for tap in 0..self.n_taps {
                    for channel in 0..n_channels {
                        let column = channel * self.n_taps + tap;
                        each(self.matrices.position(group, row, column), before + tap * per_tap + channel / width);
                    }
                }
            }
        }
    }
}
