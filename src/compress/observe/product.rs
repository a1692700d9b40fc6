//! A constant operand of a product as matrices of output channels by what is summed over, and what it is multiplied with.

use crate::graph::axes::axes;
use crate::graph::op::Conv;
use crate::graph::shape::Types;
use crate::graph::tensor::Tensor;
use crate::graph::window::{Axis, conv_axes};
use crate::graph::{Graph, Name, Op};

/// The matrices of a constant, one a group of channels. Element `[row, column]` of group `g` lies at
/// `g · group_stride + row · row_stride + column · column_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compress) struct Matrices {
    pub(in crate::compress) n_groups: usize,
    /// Output channels of a group.
    pub(in crate::compress) n_rows: usize,
    /// What each of them sums over.
    pub(in crate::compress) n_columns: usize,
    group_stride: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Matrices {
    /// Where the constant has this element.
    pub(in crate::compress) fn position(&self, group: usize, row: usize, column: usize) -> usize {
        group * self.group_stride + row * self.row_stride + column * self.column_stride
    }
}

/// What a product multiplies a constant with: vectors out of a value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compress) struct Read {
    pub(in crate::compress) value: Name,
    pub(in crate::compress) geometry: Geometry,
}

/// How the vectors lie in the value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compress) enum Geometry {
    /// Along one axis, so many from the back; the only one of a vector.
    Along { from_back: usize },
    /// What a window sees at each of its places, group by group of the channels.
    Windows { n_groups: usize, axes: Vec<Axis> },
}

/// A product of a constant.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compress) struct Product {
    pub(in crate::compress) matrices: Matrices,
    pub(in crate::compress) read: Read,
}

/// The product in which the constant at this input of a node is a matrix; why not, where it is none.
pub(in crate::compress) fn product(
    graph: &Graph,
    types: &Types,
    node_idx: usize,
    position: usize,
) -> Result<Product, String> {
    let node = &graph.nodes[node_idx];
    let constant = node.input(position).and_then(|name| graph.constant(name)).ok_or("it multiplies no constant")?;
    let facts = axes(node, types);
    let weight = facts.weights.iter().find(|weight| weight.position == position);
    let value = |position: usize| node.input(position).cloned().ok_or("it multiplies nothing");
    match &node.op {
        Op::Conv(conv) if position == 1 => {
            let (matrices, axes) = windows(conv, constant)?;
            let geometry = Geometry::Windows { n_groups: matrices.n_groups, axes };
            Ok(Product { matrices, read: Read { value: value(0)?, geometry } })
        }
        Op::MatMul | Op::Gemm(_) => {
            let axes = weight.and_then(|weight| Some((weight.output_axis, weight.input_axis?)));
            let (output_axis, input_axis) = axes.ok_or("it makes no channels")?;
            let matrices = matrix(constant.shape(), output_axis, input_axis)?;
            let other = 1 - position.min(1);
            let from_back = match &node.op {
                Op::Gemm(gemm) if gemm.trans_a => 2,
                _ => 1 + other,
            };
            Ok(Product { matrices, read: Read { value: value(other)?, geometry: Geometry::Along { from_back } } })
        }
        _ => Err(format!("{} is no product of a matrix with what it reads", node.op.name())),
    }
}

pub(in crate::compress) fn matrix(shape: &[usize], output_axis: usize, input_axis: usize) -> Result<Matrices, String> {
    let [rows, columns] = *shape else { return Err("it holds several matrices".to_string()) };
    let stride = |axis: usize| if axis == 0 { columns } else { 1 };
    let size = |axis: usize| if axis == 0 { rows } else { columns };
    Ok(Matrices {
        n_groups: 1,
        n_rows: size(output_axis),
        n_columns: size(input_axis),
        group_stride: 0,
        row_stride: stride(output_axis),
        column_stride: stride(input_axis),
    })
}

/// The matrices of a constant whose last two axes they are, one for each place along the axes before.
pub(in crate::compress) fn stack(shape: &[usize], output_axis: usize, input_axis: usize) -> Result<Matrices, String> {
    let [outer @ .., rows, columns] = shape else { return Err("it is no matrix".to_string()) };
    let one = matrix(&[*rows, *columns], 0, 1)?;
    let one = match (output_axis.checked_sub(outer.len()), input_axis.checked_sub(outer.len())) {
        (Some(0), Some(1)) => one,
        (Some(1), Some(0)) => matrix(&[*rows, *columns], 1, 0)?,
        _ => return Err("it sums over another axis than one of its last two".to_string()),
    };
    Ok(Matrices { n_groups: outer.iter().product(), group_stride: rows * columns, ..one })
}

/// The matrices of a convolution's weight `[M, C / group, …]`: a row an output channel.
///
/// # Errors
/// When its groups do not divide its channels.
pub(in crate::compress) fn kernels(shape: &[usize], group: i64) -> Result<Matrices, String> {
    let n_outputs = *shape.first().ok_or("it has no channels")?;
    let n_groups = usize::try_from(group).ok().filter(|&n| n > 0 && n_outputs.is_multiple_of(n));
    let n_groups = n_groups.ok_or("its groups do not divide its channels")?;
    let (n_rows, n_columns) = (n_outputs / n_groups, shape[1..].iter().product());
    let group_stride = n_rows * n_columns;
    Ok(Matrices { n_groups, n_rows, n_columns, group_stride, row_stride: n_columns, column_stride: 1 })
}

fn windows(conv: &Conv, constant: &Tensor) -> Result<(Matrices, Vec<Axis>), String> {
    let [_, _, kernel @ ..] = constant.shape() else { return Err("it has no channels".to_string()) };
    let axes = conv_axes(conv, kernel).map_err(|error| error.to_string())?;
    Ok((kernels(constant.shape(), conv.group)?, axes))
}
