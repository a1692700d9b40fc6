//! What each float initializer of a graph is for: found by the operator that reads it, not by its name.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::graph::axes::{self, Axes};
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};
use crate::learn::exec::Quantization;

/// What an initializer is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// A matrix or kernel of a convolution, a product or a recurrent operator.
    Weight(Weight),
    /// A table whose rows are picked or sliced, `[n_ids, size]`; where it is a product's weight as well, it is that.
    Embedding,
    /// What a normalisation or a product with a vector multiplies by.
    Scale,
    /// What is added to channels or features.
    Bias,
    /// The slope of a PRelu.
    Slope,
    /// The scale that a QuantizeLinear and the DequantizeLinear after it share, through which gradients pass.
    StepSize,
    /// The running mean or variance of a batch normalisation.
    Statistic,
    /// A number that belongs to the computation: a bound, a factor, a measured mean that the input is normalised by.
    Constant,
}

impl Role {
    /// Whether training changes it.
    pub fn is_learned(&self) -> bool {
        match self {
            Role::Weight(_) | Role::Embedding | Role::Scale | Role::Bias | Role::Slope => true,
            Role::StepSize => true,
            Role::Statistic | Role::Constant => false,
        }
    }

    /// Whether weight decay pulls at it: at weights, not at biases and normalisations, nor at the
    /// scales of quantized numbers.
    pub fn decays(&self) -> bool {
        match self {
            Role::Weight(_) | Role::Embedding => true,
            Role::Scale | Role::Bias | Role::Slope | Role::StepSize | Role::Statistic | Role::Constant => false,
        }
    }

    /// Of the roles that an initializer has for several readers, the one of the least rank counts.
    fn rank(&self) -> usize {
        match self {
            Role::Weight(_) => 0,
            Role::Embedding => 1,
            Role::Scale => 2,
            Role::Bias => 3,
            Role::Slope => 4,
            Role::StepSize => 5,
            Role::Statistic => 6,
            Role::Constant => 7,
        }
    }
}

/// How a weight is made of matrices, in the layout in which its operator reads it.
///
/// It holds `n_blocks` matrices one behind the other: groups of channels, directions and gates, the matrices of a
/// batched product. Each is `[outer, n_rows, inner]`; the rows are the outputs, the columns `outer · inner`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// The number of matrices.
    pub n_blocks: usize,
    /// The part of the columns that varies more slowly than the rows.
    pub outer: usize,
    /// The number of outputs of a matrix.
    pub n_rows: usize,
    /// The part of the columns that varies more quickly than the rows.
    pub inner: usize,
    /// How many products an output sums.
    pub fan_in: f64,
    /// In how many sums an input is.
    pub fan_out: f64,
    /// The nodes between initializer and operator, the initializer's reader first: casts, transpositions, reshapes.
    pub views: Vec<usize>,
}

/// The role of every initializer of `f64`, `f32`, `f16` or `bf16`, in the order of the graph. `types` are those of the
/// graph. Initializers of bodies are not looked at, and what only bodies read is [`Role::Constant`].
pub fn roles(graph: &Graph, types: &Types) -> IndexMap<Name, Role> {
    let uses = Uses::of(graph);
    let is_wide = |tensor: &Tensor| matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16);
    let floats = graph.initializers.iter().filter(|(_, tensor)| is_wide(tensor));
    let mut roles: IndexMap<Name, Role> = floats.map(|(name, _)| (name.clone(), Role::Constant)).collect();
    let mut after_weights: HashSet<&Name> = HashSet::new();
    for node in &graph.nodes {
        let facts = axes::axes(node, types);
        let mut is_after = node.reads().any(|name| after_weights.contains(name));
        for position in 0..node.inputs.len() {
            let Some((source, views)) = source(graph, &uses, node, position) else { continue };
            let Some(known) = roles.get_mut(source) else { continue };
            let shape = node.input(position).and_then(|name| types.known_shape(name));
            let own_shape = graph.initializers.get(source).filter(|_| is_after).map(Tensor::shape);
            let role = match position == 1 && is_step_size(graph, &uses, types, node) {
                true => Role::StepSize,
                false => role(node, position, &facts, shape.as_deref(), views, own_shape),
            };
            is_after |= matches!(role, Role::Weight(_) | Role::Embedding);
            if role.rank() < known.rank() {
                *known = role;
            }
        }
        if is_after {
            after_weights.extend(node.outputs.iter().flatten());
        }
    }
    roles
}

/// The longest way from an initializer to the operator that it is a weight of.
const LONGEST_WAY: usize = 8;

/// The initializer behind an input, through nodes that only cast, bound or move its elements, and those nodes.
fn source<'a>(graph: &'a Graph, uses: &Uses<'a>, node: &'a Node, position: usize) -> Option<(&'a Name, Vec<usize>)> {
    let mut name = node.input(position)?;
    let mut views = Vec::new();
    while let Some(node_idx) = uses.producer_idx(name) {
        let producer = graph.nodes.get(node_idx)?;
        let is_view = matches!(
            producer.op,
            Op::Identity
                | Op::Cast(_)
                | Op::QuantizeLinear(_)
                | Op::DequantizeLinear(_)
                | Op::Min
                | Op::Max
                | Op::Transpose(_)
                | Op::Reshape(_)
                | Op::Flatten(_)
                | Op::Squeeze
                | Op::Unsqueeze
        );
        if !is_view || views.len() == LONGEST_WAY {
            return None;
        }
        views.push(node_idx);
        name = producer.input(0)?;
    }
    views.reverse();
    graph.initializers.contains_key(name).then_some((name, views))
}

/// Whether the node's second input is the scale by which the node before it quantized: both read the same initializers, and exec
/// makes one step of the two.
fn is_step_size(graph: &Graph, uses: &Uses<'_>, types: &Types, node: &Node) -> bool {
    let Op::DequantizeLinear(after) = &node.op else { return false };
    let quantize = node.input(0).and_then(|integers| uses.producer(integers));
    let Some((quantize, Op::QuantizeLinear(before))) = quantize.map(|quantize| (quantize, &quantize.op)) else {
        return false;
    };
    let tensor_type = quantize.input(0).and_then(|x| types.tensor(x));
    let rank = tensor_type.and_then(|tensor_type| Some(tensor_type.shape.as_ref()?.len()));
    let integers = quantize.output(0).and_then(|integers| types.tensor(integers));
    let scale = node.input(1).and_then(|scale| graph.initializers.get(scale));
    let (Some(rank), Some(integers), Some(scale)) = (rank, integers, scale) else { return false };
    let is_per_tensor = scale.shape().is_empty() || scale.shape() == [1];
    (1..3).all(|position| quantize.input(position) == node.input(position))
        && node.input(2).is_none_or(|zero_point| graph.initializers.contains_key(zero_point))
        && Quantization::of(before, after, integers.dtype, rank, is_per_tensor).is_some()
}

/// `shape` is that of the input, `learned` that of the initializer where another input of the node depends on a weight.
fn role(
    node: &Node,
    position: usize,
    facts: &Axes,
    shape: Option<&[usize]>,
    views: Vec<usize>,
    learned: Option<&[usize]>,
) -> Role {
    let weight = facts.weights.iter().find(|weight| weight.position == position);
    if let (Some(found), Some(shape)) = (weight, shape) {
        let Some(input_axis) = found.input_axis else { return Role::Embedding };
        if let Some(weight) = matrices(node, shape, found.output_axis, input_axis) {
            return Role::Weight(Weight { views, ..weight });
        }
    }
    let is_matrix = shape.is_some_and(|shape| shape.len() == 2);
    match (&node.op, position) {
        (Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_), 2) => Role::Bias,
        (Op::LSTM(_) | Op::GRU(_) | Op::RNN(_), 3 | 7) => Role::Bias,
        (Op::BiasGelu | Op::FastGelu, 1) => Role::Bias,
        (Op::BatchNormalization(_), 3 | 4) => Role::Statistic,
        (Op::SkipLayerNormalization(_), 2) => Role::Scale,
        (Op::SkipLayerNormalization(_), 3 | 4) => Role::Bias,
        (op, 1) if is_norm(op) => Role::Scale,
        (op, 2) if is_norm(op) => Role::Bias,
        (Op::PRelu, 1) => Role::Slope,
        // Known indices, or rows that lie together, do not make a table less of one.
        (Op::Gather(attributes), 0) if attributes.axis == 0 && is_matrix => Role::Embedding,
        (Op::Slice, 0) if is_matrix => Role::Embedding,
        (Op::Add | Op::Sub | Op::Sum, _) if learned.is_some_and(|shape| !shape.is_empty()) => Role::Bias,
        (Op::Mul | Op::Div, _) if learned.is_some_and(|shape| shape.iter().any(|&size| size > 1)) => Role::Scale,
        _ => Role::Constant,
    }
}

/// Whether it takes what it normalises, a scale and a bias.
pub(super) fn is_norm(op: &Op) -> bool {
    matches!(
        op,
        Op::BatchNormalization(_)
            | Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::GroupNormalization(_)
            | Op::InstanceNormalization(_)
    )
}

fn matrices(node: &Node, shape: &[usize], output_axis: usize, input_axis: usize) -> Option<Weight> {
    let product = |sizes: &[usize]| sizes.iter().product::<usize>();
    let (n_outputs, n_inputs) = (*shape.get(output_axis)?, *shape.get(input_axis)?);
    let weight = |n_blocks, outer, n_rows, inner, fan_in: f64, fan_out: f64| {
        Some(Weight { n_blocks, outer, n_rows, inner, fan_in, fan_out, views: Vec::new() })
    };
    match &node.op {
        Op::Conv(attributes) => {
            let n_groups = whole_part(n_outputs, attributes.group)?;
            let (n_rows, window) = (n_outputs / n_groups, product(shape.get(2..)?));
            let inner = product(shape.get(1..)?);
            weight(n_groups, 1, n_rows, inner, inner as f64, (n_rows * window) as f64)
        }
        Op::ConvTranspose(attributes) => {
            let n_groups = whole_part(n_inputs, attributes.group)?;
            let (outer, window) = (n_inputs / n_groups, product(shape.get(2..)?));
            let stride: f64 = attributes.strides.iter().map(|&stride| stride.max(1) as f64).product();
            let fan_in = (outer * window) as f64 / stride;
            weight(n_groups, outer, n_outputs, window, fan_in, (n_outputs * window) as f64 / stride)
        }
        Op::LSTM(_) | Op::GRU(_) | Op::RNN(_) => {
            let n_gates = match node.op {
                Op::LSTM(_) => 4,
                Op::GRU(_) => 3,
                _ => 1,
            };
            let n_rows = n_outputs / n_gates;
            weight(shape.first()? * n_gates, 1, n_rows, n_inputs, n_inputs as f64, n_rows as f64)
        }
        _ => {
            let first = output_axis.min(input_axis);
            let is_last_pair = first + 2 == shape.len() && output_axis.abs_diff(input_axis) == 1;
            let (fan_in, fan_out) = (n_inputs as f64, n_outputs as f64);
            let (n_blocks, rest) = if is_last_pair { shape.split_at(first) } else { (&shape[..0], shape) };
            let axis = output_axis - n_blocks.len();
            weight(product(n_blocks), product(&rest[..axis]), n_outputs, product(&rest[axis + 1..]), fan_in, fan_out)
        }
    }
}

/// The number of groups, where it divides the size.
fn whole_part(size: usize, n_groups: i64) -> Option<usize> {
    usize::try_from(n_groups).ok().filter(|&n_groups| n_groups > 0 && size.is_multiple_of(n_groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::{
        Conv, ConvTranspose, DequantizeLinear, GRU, Gather, Gemm, LayerNormalization, QuantizeLinear, Reshape,
        Transpose,
    };
    use crate::graph::shape::{Bindings, infer};
    use crate::graph::{GraphBuilder, TensorType};

    fn text(role: &Role) -> String {
        match role {
            Role::Weight(Weight { n_blocks, outer, n_rows, inner, fan_in, fan_out, views }) => {
                format!("{n_blocks} × {outer}·{n_rows}·{inner}, in {fan_in}, out {fan_out}, {} views", views.len())
            }
            other => format!("{other:?}"),
        }
    }

    /// A graph of one input, built by the function, and the roles that it should have.
    #[track_caller]
    fn check(input: TensorType, build: impl Fn(&mut GraphBuilder, Name) -> Name, expected: &[(&str, &str)]) {
        let mut builder = GraphBuilder::new("roles");
        let x = builder.input("x", input);
        let y = build(&mut builder, x);
        builder.output(&y);
        let graph = builder.finish().expect("a graph");
        let types = infer(&graph, &Bindings::default()).expect("shapes fit");
        let found = roles(&graph, &types);
        let found: Vec<(&str, String)> = found.iter().map(|(name, role)| (name.as_str(), text(role))).collect();
        let expected: Vec<(&str, String)> = expected.iter().map(|(name, role)| (*name, role.to_string())).collect();
        assert_eq!(found, expected);
    }

    fn zeros(builder: &mut GraphBuilder, name: &str, shape: &[usize]) -> Name {
        builder.initializer(name, Tensor::zeros(DType::F32, shape).expect("small"))
    }

    fn f32s(shape: &[usize]) -> TensorType {
        TensorType::new(DType::F32, shape.iter().copied())
    }

    #[test]
    fn convolutions_have_a_matrix_a_group() {
        check(
            f32s(&[1, 4, 8, 8]),
            |builder, x| {
                let mean = zeros(builder, "mean", &[4, 1, 1]);
                let x = builder.node(Op::Sub, &[&x, &mean]);
                let (w, b) = (zeros(builder, "conv.w", &[6, 2, 3, 5]), zeros(builder, "conv.b", &[6]));
                let x = builder.node(Op::Conv(Conv { group: 2, ..Conv::default() }), &[&x, &w, &b]);
                let w = zeros(builder, "transposed.w", &[6, 5, 2, 2]);
                let strides = vec![2, 2];
                let x =
                    builder.node(Op::ConvTranspose(ConvTranspose { strides, ..ConvTranspose::default() }), &[&x, &w]);
                let (shift, slope) = (zeros(builder, "shift", &[5, 1, 1]), zeros(builder, "slope", &[5, 1, 1]));
                let x = builder.node(Op::Add, &[&x, &shift]);
                let half = zeros(builder, "half", &[]);
                let x = builder.node(Op::Mul, &[&x, &half]);
                builder.node(Op::PRelu, &[&x, &slope])
            },
            &[
                ("mean", "Constant"),
                ("conv.w", "2 × 1·3·30, in 30, out 45, 0 views"),
                ("conv.b", "Bias"),
                ("transposed.w", "1 × 6·5·4, in 6, out 5, 0 views"),
                ("shift", "Bias"),
                ("slope", "Slope"),
                ("half", "Constant"),
            ],
        );
    }

    /// The value through a pair of nodes with a scale of this name and shape.
    fn quantized(builder: &mut GraphBuilder, x: &Name, scale: &str, shape: &[usize]) -> Name {
        let scale = zeros(builder, scale, shape);
        let zero = Tensor::zeros(DType::I8, shape).expect("small");
        let zero = builder.initializer("zero", zero);
        let integers = builder.node(Op::QuantizeLinear(QuantizeLinear::default()), &[x, &scale, &zero]);
        builder.node(Op::DequantizeLinear(DequantizeLinear::default()), &[&integers, &scale, &zero])
    }

    #[test]
    fn weights_are_found_behind_quantization_and_its_scales_too() {
        check(
            f32s(&[2, 5]),
            |builder, x| {
                let x = quantized(builder, &x, "x.scale", &[]);
                let w = zeros(builder, "w", &[5, 4]);
                let w = quantized(builder, &w, "w.scale", &[4]);
                let x = builder.node(Op::MatMul, &[&x, &w]);
                let b = zeros(builder, "b", &[4]);
                let b = quantized(builder, &b, "b.scale", &[1]);
                let x = builder.node(Op::Add, &[&x, &b]);
                // another scale on the way back: no gradient passes, and neither can learn
                let (one, other) = (zeros(builder, "one", &[]), zeros(builder, "other", &[]));
                let integers = builder.node(Op::QuantizeLinear(QuantizeLinear::default()), &[&x, &one]);
                let x = builder.node(Op::DequantizeLinear(DequantizeLinear::default()), &[&integers, &other]);
                let narrow = QuantizeLinear { output_dtype: Some(DType::F8E4M3FN), ..Default::default() };
                let scale = zeros(builder, "narrow", &[]);
                let narrow = builder.node(Op::QuantizeLinear(narrow), &[&x, &scale]);
                builder.node(Op::DequantizeLinear(DequantizeLinear::default()), &[&narrow, &scale])
            },
            &[
                ("x.scale", "StepSize"),
                ("w", "1 × 5·4·1, in 5, out 4, 2 views"),
                ("w.scale", "StepSize"),
                ("b", "Bias"),
                ("b.scale", "StepSize"),
                ("one", "Constant"),
                ("other", "Constant"),
                ("narrow", "Constant"),
            ],
        );
    }

    #[test]
    fn products_are_found_behind_views_and_tables_by_their_readers() {
        check(
            TensorType::new(DType::I64, [2usize, 3]),
            |builder, ids| {
                let table = zeros(builder, "table", &[7, 4]);
                let tied = zeros(builder, "tied", &[7, 4]);
                let x = builder.node(Op::Gather(Gather { axis: 0 }), &[&table, &ids]);
                let other = builder.node(Op::Gather(Gather { axis: 0 }), &[&tied, &ids]);
                let x = builder.node(Op::Add, &[&x, &other]);
                let places = zeros(builder, "places", &[9, 4]);
                let first = builder.initializer("first", Tensor::vector(vec![0i64, 1, 2]));
                let other = builder.node(Op::Gather(Gather { axis: 0 }), &[&places, &first]);
                let x = builder.node(Op::Add, &[&x, &other]);
                let (scale, bias) = (zeros(builder, "norm.scale", &[4]), zeros(builder, "norm.bias", &[4]));
                let norm = Op::LayerNormalization(LayerNormalization::default());
                let x = builder.node(norm, &[&x, &scale, &bias]);
                let w = zeros(builder, "flat", &[2, 2, 5]);
                let shape = builder.initializer("shape", Tensor::vector(vec![4i64, 5]));
                let w = builder.node(Op::Reshape(Reshape::default()), &[&w, &shape]);
                let x = builder.node(Op::MatMul, &[&x, &w]);
                let five = zeros(builder, "five", &[2, 5, 4]);
                let x = builder.node(Op::MatMul, &[&x, &five]);
                let tied = builder.node(Op::Transpose(Transpose { perm: vec![1, 0] }), &[&tied]);
                builder.node(Op::MatMul, &[&x, &tied])
            },
            &[
                ("table", "Embedding"),
                ("tied", "1 × 4·7·1, in 4, out 7, 1 views"),
                ("places", "Embedding"),
                ("norm.scale", "Scale"),
                ("norm.bias", "Bias"),
                ("flat", "1 × 4·5·1, in 4, out 5, 1 views"),
                ("five", "2 × 5·4·1, in 5, out 4, 0 views"),
            ],
        );
    }

    #[test]
    fn recurrent_weights_have_a_matrix_a_gate_and_direction() {
        check(
            f32s(&[5, 2, 4]),
            |builder, x| {
                let w = zeros(builder, "w", &[1, 9, 4]);
                let r = zeros(builder, "r", &[1, 9, 3]);
                let b = zeros(builder, "b", &[1, 18]);
                let y = builder.node(Op::GRU(GRU { hidden_size: Some(3), ..GRU::default() }), &[&x, &w, &r, &b]);
                let shape = builder.initializer("shape", Tensor::vector(vec![10i64, 3]));
                let y = builder.node(Op::Reshape(Reshape::default()), &[&y, &shape]);
                let (w, b) = (zeros(builder, "gemm.w", &[2, 3]), zeros(builder, "gemm.b", &[2]));
                builder.node(Op::Gemm(Gemm { trans_b: true, ..Gemm::default() }), &[&y, &w, &b])
            },
            &[
                ("w", "3 × 1·3·4, in 4, out 3, 0 views"),
                ("r", "3 × 1·3·3, in 3, out 3, 0 views"),
                ("b", "Bias"),
                ("gemm.w", "1 × 1·2·3, in 3, out 2, 0 views"),
                ("gemm.b", "Bias"),
            ],
        );
    }
}
