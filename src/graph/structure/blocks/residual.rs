//! Residual blocks: a sum of a value and of something computed from it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::flow::{Flow, Region};
use super::linear::is_layer;
use super::span::{Span, blocked, same_shape};
use crate::graph::{Name, Node, Op};

/// A part of a network whose output is the sum of its input, as it is or projected, and of what layers make of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResidualBlock {
    /// From the value that the block reads to the sum. Where the sum is inside a `SkipLayerNormalization` that does not
    /// hand it out, the exit is the normalised sum.
    pub span: Span,
    /// How the input reaches the sum beside the layers.
    pub skip: Skip,
    /// The nodes on the ways from entry to exit, in order.
    pub nodes: Vec<usize>,
    /// Those of them, and of what only they read (weights' casts, shape arithmetic), that go when the block does.
    pub private: Vec<usize>,
    /// Why the block cannot be taken out; none where it can.
    pub blocked: Option<String>,
}

/// How a block's input reaches the sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// As it is.
    Identity,
    /// Through a short chain of convolution, product with a matrix, normalisation or pooling.
    Projection {
        /// the chain, in order
        nodes: Vec<usize>,
    },
}

/// The most values that a block's sum adds up: a network's branches, not its ensembles.
const MOST_TERMS: usize = 64;

/// The most nodes of a projection.
const LONGEST_PROJECTION: usize = 8;

/// The blocks of a graph, in the order of their exits: one inside another comes first.
pub(super) fn residual_blocks(flow: &Flow<'_>) -> Vec<ResidualBlock> {
    let live = (0..flow.graph.nodes.len()).filter(|&node_idx| flow.is_live(node_idx));
    live.filter_map(|node_idx| block(flow, node_idx)).collect()
}

fn block(flow: &Flow<'_>, node_idx: usize) -> Option<ResidualBlock> {
    let node = flow.node(node_idx)?;
    let exit = sum(node)?;
    if continues(flow, node, exit) {
        return None;
    }
    let mut sums = BTreeSet::new();
    let mut terms = Vec::new();
    collect_terms(flow, node_idx, exit, &mut sums, &mut terms);
    if terms.len() > MOST_TERMS {
        return None;
    }
    identity(flow, exit, &terms).or_else(|| projection(flow, exit, &sums, &terms))
}

/// The output of a node that adds, which is the sum.
fn sum(node: &Node) -> Option<&Name> {
    match node.op {
        Op::Add | Op::Sum => node.output(0),
        Op::SkipLayerNormalization(_) => node.output(3).or(node.output(0)),
        _ => None,
    }
}

/// What a node adds up.
fn addends(node: &Node) -> impl Iterator<Item = &Name> {
    let bias = node.input(4).filter(|_| matches!(node.op, Op::SkipLayerNormalization(_)));
    let n_first = if matches!(node.op, Op::Sum) { node.inputs.len() } else { 2 };
    node.inputs.iter().take(n_first).flatten().chain(bias)
}

/// Whether the sum only goes on into a sum with a constant: a bias that stands behind the block's sum belongs to it.
fn continues(flow: &Flow<'_>, node: &Node, exit: &Name) -> bool {
    let Some(reader) = flow.sole_data_reader(exit).and_then(|node_idx| flow.node(node_idx)) else { return false };
    let bias = matches!(reader.op, Op::Add) && flow.data_inputs(reader).len() == 1;
    bias && matches!(node.op, Op::Add | Op::Sum) && reader.output(0).is_some_and(|sum| same_shape(flow, exit, sum))
}

/// The activations that a tree of sums adds up; where they are too many, some of them.
fn collect_terms<'a>(
    flow: &Flow<'a>,
    node_idx: usize,
    exit: &Name,
    sums: &mut BTreeSet<usize>,
    terms: &mut Vec<&'a Name>,
) {
    let mut open = vec![node_idx];
    while let Some(node_idx) = open.pop().filter(|_| terms.len() <= MOST_TERMS) {
        let Some(node) = flow.node(node_idx).filter(|_| sums.insert(node_idx)) else { continue };
        for name in addends(node).filter(|name| flow.is_activation(name)).take(MOST_TERMS + 1) {
            let inner = flow.uses.producer_idx(name).filter(|&inner| {
                let adds = flow.node(inner).is_some_and(|inner| matches!(inner.op, Op::Add | Op::Sum));
                adds && flow.sole_data_reader(name) == Some(node_idx) && same_shape(flow, name, exit)
            });
            match inner {
                Some(inner) => open.push(inner),
                None => terms.push(name),
            }
        }
    }
}

/// A block of which one term is the input itself. Terms that do not come from it are side inputs: a condition, a bias.
fn identity(flow: &Flow<'_>, exit: &Name, terms: &[&Name]) -> Option<ResidualBlock> {
    let mut entries: Vec<&Name> = terms.iter().map(|term| flow.resolve(term)).collect();
    entries.sort_by_key(|entry| flow.uses.producer_idx(entry));
    entries.dedup();
    entries.into_iter().filter(|entry| same_shape(flow, entry, exit)).find_map(|entry| {
        let region = flow.region(entry, exit)?;
        let inside = |term: &&Name| flow.resolve(term) != entry && lies_in(flow, &region, term);
        let learns =
            region.between.iter().any(|node_idx| flow.node(*node_idx).is_some_and(|node| is_layer(flow, node)));
        (learns && terms.iter().any(inside)).then(|| residual(flow, entry, exit, Skip::Identity, region))
    })
}

/// A block of which one term is the input projected.
fn projection(flow: &Flow<'_>, exit: &Name, sums: &BTreeSet<usize>, terms: &[&Name]) -> Option<ResidualBlock> {
    let mut found: Option<(Name, Vec<usize>, Region)> = None;
    for skip in terms {
        let others: Vec<&Name> = terms.iter().copied().filter(|term| term != skip).collect();
        let Some((entry, chain, region)) = projected(flow, skip, exit, &others) else { continue };
        let main = region.between.iter().filter(|node_idx| !chain.contains(node_idx) && !sums.contains(node_idx));
        let learns = main.clone().any(|node_idx| flow.node(*node_idx).is_some_and(|node| is_layer(flow, node)));
        let is_shorter = found.as_ref().is_none_or(|(_, shortest, _)| chain.len() < shortest.len());
        if learns
            && main.count() > chain.len()
            && is_shorter
            && region.escape.as_ref().is_none_or(|escape| !escape.as_data)
        {
            found = Some((entry.clone(), chain, region));
        }
    }
    let (entry, mut nodes, region) = found?;
    nodes.sort_unstable();
    Some(residual(flow, &entry, exit, Skip::Projection { nodes }, region))
}

/// The nearest value behind a term, through nothing but a projection, that the other terms come from.
fn projected<'a>(
    flow: &Flow<'a>,
    term: &'a Name,
    exit: &Name,
    others: &[&Name],
) -> Option<(&'a Name, Vec<usize>, Region)> {
    let mut chain = Vec::new();
    let mut name = term;
    while chain.len() < LONGEST_PROJECTION && !others.is_empty() {
        let node_idx = flow.uses.producer_idx(name)?;
        let node = flow.node(node_idx).filter(|node| projects(node))?;
        chain.push(node_idx);
        name = flow.sole_data_input(node)?;
        if let Some(region) = encloses(flow, name, exit, others) {
            return Some((name, chain, region));
        }
    }
    None
}

/// The region from entry to exit where all these terms lie in it.
fn encloses(flow: &Flow<'_>, entry: &Name, exit: &Name, terms: &[&Name]) -> Option<Region> {
    let region = flow.region(entry, exit)?;
    terms.iter().all(|term| lies_in(flow, &region, term)).then_some(region)
}

fn lies_in(flow: &Flow<'_>, region: &Region, name: &Name) -> bool {
    flow.uses.producer_idx(name).is_some_and(|node_idx| region.between.binary_search(&node_idx).is_ok())
}

fn residual(flow: &Flow<'_>, entry: &Name, exit: &Name, skip: Skip, region: Region) -> ResidualBlock {
    let span = Span { entry: entry.clone(), exit: exit.clone() };
    let blocked = blocked(flow, &span, &region);
    ResidualBlock { span, skip, nodes: region.between, private: region.private, blocked }
}

/// What a projection is made of: what brings an input to the size of the sum and changes nothing else.
fn projects(node: &Node) -> bool {
    matches!(
        node.op,
        Op::Conv(_)
            | Op::QLinearConv(_)
            | Op::MatMul
            | Op::Gemm(_)
            | Op::MatMulNBits(_)
            | Op::Add
            | Op::BatchNormalization(_)
            | Op::GroupNormalization(_)
            | Op::InstanceNormalization(_)
            | Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::AveragePool(_)
            | Op::MaxPool(_)
            | Op::Resize(_)
            | Op::Pad(_)
            | Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Identity
            | Op::Dropout(_)
            | Op::Cast(_)
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
    )
}

#[cfg(test)]
mod tests {
    use crate::graph::op::{BatchNormalization, Concat, MaxPool, Resize, SkipLayerNormalization};
    use crate::graph::structure::blocks::networks::{HIDDEN, Net, WIDTH, lines};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Name, Node, Op, TensorType};

    fn check(build: impl FnOnce(&mut Net) -> Name, expected: &str) {
        let mut net = Net::new();
        let output = build(&mut net);
        assert_eq!(lines(&net.finish(&output), "residual block"), expected);
    }

    fn batch_norm(net: &mut Net, x: &Name, n_channels: usize) -> Name {
        let [scale, bias, mean] = [(); 3].map(|()| net.weights(&[n_channels]));
        let variance = net.builder.initializer("variance", Tensor::vector(vec![1f32; n_channels]));
        net.op(Op::BatchNormalization(BatchNormalization::default()), &[x, &scale, &bias, &mean, &variance])
    }

    fn basic(net: &mut Net, x: &Name, [n_in, n_out]: [usize; 2], stride: i64) -> Name {
        let inner = net.conv(x, [n_in, n_out], 3, stride, 1);
        let inner = batch_norm(net, &inner, n_out);
        let inner = net.op(Op::Relu, &[&inner]);
        let inner = net.conv(&inner, [n_out, n_out], 3, 1, 1);
        batch_norm(net, &inner, n_out)
    }

    #[test]
    fn resnet_blocks_skip_as_they_are_or_projected() {
        check(
            |net| {
                let x = net.image();
                let branch = basic(net, &x, [4, 4], 1);
                let sum = net.op(Op::Add, &[&branch, &x]);
                let relu = net.op(Op::Relu, &[&sum]);
                let branch = basic(net, &relu, [4, 8], 2);
                let skip = net.conv(&relu, [4, 8], 1, 2, 1);
                let skip = batch_norm(net, &skip, 8);
                let sum = net.op(Op::Add, &[&branch, &skip]);
                net.op(Op::Relu, &[&sum])
            },
            "x -> add  identity  6 nodes  removable\n\
             relu_2 -> add_2  projection (Conv, BatchNormalization)  8 nodes  \
             stays: it reads f32[1, 4, 6, 6] and gives f32[1, 8, 3, 3]",
        );
    }

    #[test]
    fn inverted_residuals_and_sums_of_many_terms() {
        check(
            |net| {
                let x = net.image();
                let wide = net.conv(&x, [4, 8], 1, 1, 1);
                let deep = net.conv(&wide, [8, 8], 3, 1, 8);
                let narrow = net.conv(&deep, [8, 4], 1, 1, 1);
                let y = net.op(Op::Add, &[&x, &narrow]);
                let [one, other] = [3, 1].map(|size| net.conv(&y, [4, 4], size, 1, 1));
                net.op(Op::Sum, &[&one, &y, &other])
            },
            "x -> add  identity  4 nodes  removable\nadd -> sum  identity  3 nodes  removable",
        );
    }

    #[test]
    fn a_bias_behind_the_sum_belongs_to_the_block() {
        check(
            |net| {
                let x = net.steps();
                let (w, b) = (net.weights(&[WIDTH, WIDTH]), net.weights(&[WIDTH]));
                let product = net.op(Op::MatMul, &[&x, &w]);
                let sum = net.op(Op::Add, &[&x, &product]);
                net.op(Op::Add, &[&sum, &b])
            },
            "x -> add_2  identity  3 nodes  removable",
        );
    }

    #[test]
    fn a_block_inside_another_comes_first() {
        check(
            |net| {
                let x = net.steps();
                let first = net.linear(&x, WIDTH, WIDTH);
                let branch = net.linear(&first, WIDTH, WIDTH);
                let inner = net.op(Op::Add, &[&first, &branch]);
                let relu = net.op(Op::Relu, &[&inner]);
                net.op(Op::Add, &[&relu, &x])
            },
            "add -> add_3  identity  3 nodes  removable\nx -> add_4  identity  7 nodes  removable",
        );
    }

    #[test]
    fn parallel_branches_are_one_block_and_the_first_a_block_of_its_own() {
        check(
            |net| {
                let x = net.steps();
                let norm = net.norm(&x);
                let [one, other] = [(); 2].map(|()| net.feed_forward(&norm));
                let sum = net.op(Op::Add, &[&x, &one]);
                net.op(Op::Add, &[&sum, &other])
            },
            "x -> add_5  identity  7 nodes  stays: `layernormalization` inside it is read by MatMul `matmul_3`\n\
             x -> add_6  identity  13 nodes  removable",
        );
    }

    #[test]
    fn side_inputs_and_shape_arithmetic_belong_to_a_block() {
        check(
            |net| {
                let x = net.steps();
                let condition = net.builder.input("condition", TensorType::new(DType::F32, [1usize, 1, WIDTH]));
                let hidden = net.linear(&x, WIDTH, WIDTH);
                let shape = net.op(Op::Shape(crate::graph::op::Shape::default()), &[&condition]);
                let wide = net.op(Op::Expand, &[&condition, &shape]);
                let conditioned = net.op(Op::Mul, &[&hidden, &wide]);
                let out = net.linear(&conditioned, WIDTH, WIDTH);
                net.op(Op::Add, &[&x, &out])
            },
            "x -> add_3  identity  8 nodes  removable",
        );
    }

    #[test]
    fn what_is_no_block() {
        // DenseNet and U-Net join by Concat, GELU's cubic has no layer, a sum of two inputs has no common origin
        check(
            |net| {
                let x = net.image();
                let new = net.conv(&x, [4, 4], 3, 1, 1);
                let dense = net.op(Op::Concat(Concat { axis: 1 }), &[&x, &new]);
                let three = net.scalar(3.0);
                let cubed = net.op(Op::Pow, &[&dense, &three]);
                net.op(Op::Add, &[&dense, &cubed])
            },
            "",
        );
        check(
            |net| {
                let x = net.image();
                let pool = MaxPool {
                    auto_pad: crate::graph::op::AutoPad::NotSet,
                    ceil_mode: false,
                    dilations: vec![],
                    kernel_shape: vec![2, 2],
                    pads: vec![],
                    storage_order: 0,
                    strides: vec![2, 2],
                };
                let low = net.op(Op::MaxPool(pool), &[&x]);
                let low = net.conv(&low, [4, 4], 3, 1, 1);
                let scales = net.builder.initializer("scales", Tensor::vector(vec![1f32, 1.0, 2.0, 2.0]));
                let node = vec![Some(low), None, Some(scales)];
                net.builder.push(Node::new(Op::Resize(Resize::default()), node, vec![Some("high".into())]));
                let joined = net.op(Op::Concat(Concat { axis: 1 }), &[&x, &"high".into()]);
                net.conv(&joined, [8, 4], 3, 1, 1)
            },
            "",
        );
        check(
            |net| {
                let x = net.steps();
                let other = net.builder.input("other", TensorType::new(DType::F32, [1usize, 3, WIDTH]));
                let [left, right] = [&x, &other].map(|input| net.linear(input, WIDTH, WIDTH));
                net.op(Op::Add, &[&left, &right])
            },
            "",
        );
    }

    #[test]
    fn what_stands_against_taking_a_block_out() {
        let handed_out = |net: &mut Net| {
            let x = net.steps();
            let hidden = net.linear(&x, WIDTH, HIDDEN);
            net.builder.output(&hidden);
            let branch = net.linear(&hidden, HIDDEN, WIDTH);
            net.op(Op::Add, &[&x, &branch])
        };
        check(
            handed_out,
            "x -> add_3  identity  5 nodes  \
             stays: `add` inside it is an output of the graph",
        );
        let normalised_and_not = |net: &mut Net| {
            let x = net.steps();
            let branch = net.linear(&x, WIDTH, WIDTH);
            let (scale, bias) = (net.weights(&[WIDTH]), net.weights(&[WIDTH]));
            let op = Op::SkipLayerNormalization(SkipLayerNormalization::default());
            let inputs = [&branch, &x, &scale, &bias].map(|name| Some(name.clone())).to_vec();
            let outputs = vec![Some(Name::from("normal")), None, None, Some(Name::from("sum"))];
            net.builder.push(Node::new(op, inputs, outputs));
            let last = net.linear(&"normal".into(), WIDTH, WIDTH);
            net.op(Op::Mul, &[&last, &"sum".into()])
        };
        check(
            normalised_and_not,
            "x -> sum  identity  3 nodes  stays: `normal` inside it is read by MatMul `matmul_2`",
        );
    }
}
