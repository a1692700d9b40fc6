//! Feed-forward parts: a linear map to hidden units, an activation function, and a linear map back into a residual sum.

use std::collections::BTreeSet;

use serde::Serialize;

use super::flow::Flow;
use super::linear::{Linear, is_layer, linear};
use super::residual::{ResidualBlock, Skip};
use crate::graph::{Name, Node, Op};

/// Two linear maps with an activation function between them, as in the layers of transformers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedForward {
    /// What the first map reads.
    pub entry: Name,
    /// What the second map gives, its bias added.
    pub exit: Name,
    /// The map to the hidden units; where the hidden units are gated by a map of its own, the first of the two.
    pub expand: usize,
    /// The other map of a gated form (SwiGLU), where it is a node of its own.
    pub gate: Option<usize>,
    /// Whether the hidden units are a product of two halves, made by one map or by two.
    pub gated: bool,
    /// The nodes of the activation function, in order, biases and gates included.
    pub activation: Vec<usize>,
    /// The map back.
    pub contract: usize,
    /// The number of hidden units: what the second map reads.
    pub size: Option<usize>,
    /// All nodes, in order.
    pub nodes: Vec<usize>,
}

/// The most nodes between the two maps.
const MOST_BETWEEN: usize = 24;

/// The feed-forward parts of a graph, in order: those that end in the sum of a residual block.
pub(super) fn feed_forwards(flow: &Flow<'_>, blocks: &[ResidualBlock]) -> Vec<FeedForward> {
    let mut inside: Vec<usize> = blocks.iter().flat_map(|block| block.nodes.iter().copied()).collect();
    inside.sort_unstable();
    inside.dedup();
    inside.into_iter().filter_map(|node_idx| feed_forward(flow, blocks, node_idx)).collect()
}

fn feed_forward(flow: &Flow<'_>, blocks: &[ResidualBlock], contract_idx: usize) -> Option<FeedForward> {
    let contract = linear(flow, contract_idx)?;
    let (expands, activation) = hidden(flow, &contract)?;
    let first = expands.first()?;
    let together = expands.len() <= 2 && expands.iter().all(|other| other.input == first.input);
    let widths_agree = match (first.n_in, contract.n_out) {
        (Some(n_in), Some(n_out)) => n_in == n_out,
        (Some(_), None) | (None, Some(_)) | (None, None) => true,
    };
    let bends = activation.iter().any(|node_idx| flow.node(*node_idx).is_some_and(|node| is_nonlinear(&node.op)));
    if !together || !widths_agree || !bends {
        return None;
    }
    let (exit, bias) = with_bias(flow, contract.output);
    let ends_one = |block: &&ResidualBlock| {
        let holds = |node_idx: &usize| block.nodes.binary_search(node_idx).is_ok();
        let all = holds(&contract_idx) && expands.iter().all(|expand| holds(&expand.node_idx));
        all && block.skip == Skip::Identity && ends_in_sum(flow, exit, block)
    };
    blocks.iter().find(ends_one)?;
    let splits =
        |node_idx: &usize| flow.node(*node_idx).is_some_and(|node| matches!(node.op, Op::Split(_) | Op::Slice));
    let gated = expands.len() == 2 || activation.iter().any(splits);
    let ends = expands.iter().map(|expand| expand.node_idx).chain([contract_idx]).chain(bias);
    let nodes: BTreeSet<usize> = activation.iter().copied().chain(ends).collect();
    Some(FeedForward {
        entry: first.input.clone(),
        exit: exit.clone(),
        expand: first.node_idx,
        gate: expands.get(1).map(|gate| gate.node_idx),
        gated,
        activation,
        contract: contract_idx,
        size: contract.n_in,
        nodes: nodes.into_iter().collect(),
    })
}

/// The linear maps that a map's input comes from through nothing but elementwise functions, and those functions' nodes; none
/// where it comes from anything else.
fn hidden<'a>(flow: &Flow<'a>, contract: &Linear<'a>) -> Option<(Vec<Linear<'a>>, Vec<usize>)> {
    let mut open = vec![contract.input];
    let (mut between, mut layers) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = open.pop() {
        let node_idx = flow.uses.producer_idx(name)?;
        let node = flow.node(node_idx)?;
        if is_layer(flow, node) {
            layers.insert(node_idx);
        } else if !is_elementwise(&node.op) || between.len() >= MOST_BETWEEN {
            return None;
        } else if between.insert(node_idx) {
            open.extend(flow.data_inputs(node));
        }
    }
    let layers = layers.into_iter().map(|node_idx| linear(flow, node_idx)).collect::<Option<Vec<_>>>()?;
    Some((layers, between.into_iter().collect()))
}

/// A map's output with its bias, and the node that adds it.
fn with_bias<'a>(flow: &Flow<'a>, output: &'a Name) -> (&'a Name, Option<usize>) {
    let reader = flow.sole_data_reader(output).and_then(|node_idx| Some((node_idx, flow.node(node_idx)?)));
    match reader {
        Some((node_idx, node)) if matches!(node.op, Op::Add) && flow.data_inputs(node).len() == 1 => {
            (node.output(0).unwrap_or(output), Some(node_idx))
        }
        Some(_) | None => (output, None),
    }
}

/// Whether a value goes into a block's sum, through nothing but what scales, drops or moves elements.
fn ends_in_sum(flow: &Flow<'_>, exit: &Name, block: &ResidualBlock) -> bool {
    let mut name = exit;
    while let Some(node) = flow.sole_data_reader(name).and_then(|node_idx| flow.node(node_idx)) {
        let moves = matches!(
            node.op,
            Op::Identity
                | Op::Dropout(_)
                | Op::Cast(_)
                | Op::Reshape(_)
                | Op::Transpose(_)
                | Op::QuantizeLinear(_)
                | Op::DequantizeLinear(_)
                | Op::LayerNormalization(_)
                | Op::RMSNormalization(_)
                | Op::SkipLayerNormalization(_)
                | Op::Add
                | Op::Sum
        );
        let scales = matches!(node.op, Op::Mul) && flow.data_inputs(node).len() == 1;
        if node.outputs.iter().flatten().any(|output| *output == block.span.exit) {
            return true;
        }
        match node.output(0) {
            Some(output) if moves || scales => name = output,
            Some(_) | None => return false,
        }
    }
    false
}

fn is_elementwise(op: &Op) -> bool {
    let arithmetic = matches!(
        op,
        Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Div
            | Op::Pow
            | Op::Min
            | Op::Max
            | Op::Clip
            | Op::Neg
            | Op::Reciprocal
            | Op::Abs
            | Op::Where
    );
    let moves = matches!(
        op,
        Op::Cast(_)
            | Op::Identity
            | Op::Dropout(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Split(_)
            | Op::Slice
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
    );
    arithmetic || moves || is_nonlinear(op)
}

fn is_nonlinear(op: &Op) -> bool {
    matches!(
        op,
        Op::BiasGelu
            | Op::Celu(_)
            | Op::Clip
            | Op::Elu(_)
            | Op::Erf
            | Op::Exp
            | Op::FastGelu
            | Op::Gelu(_)
            | Op::HardSigmoid(_)
            | Op::HardSwish
            | Op::LeakyRelu(_)
            | Op::Mish
            | Op::PRelu
            | Op::Relu
            | Op::Selu(_)
            | Op::Sigmoid
            | Op::Softplus
            | Op::Softsign
            | Op::Sqrt
            | Op::Swish(_)
            | Op::Tanh
            | Op::ThresholdedRelu(_)
    )
}

/// What a person calls the activation function made of these nodes.
pub(super) fn activation_name(nodes: &[&Node]) -> String {
    let has = |name: &str| nodes.iter().any(|node| node.op.name() == name);
    let own: Vec<&str> = nodes.iter().filter(|node| is_nonlinear(&node.op)).map(|node| node.op.name()).collect();
    match own.as_slice() {
        ["Erf"] => "Gelu".to_string(),
        ["Tanh"] if has("Mul") && has("Add") => "Gelu (tanh)".to_string(),
        ["BiasGelu"] => "Gelu".to_string(),
        ["FastGelu"] => "Gelu (tanh)".to_string(),
        ["Sigmoid"] if has("Mul") => "Swish".to_string(),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::op::{Gemm, Split};
    use crate::graph::structure::blocks::networks::{HIDDEN, Net, WIDTH, lines};
    use crate::graph::{Name, Op};

    /// A feed-forward part of the branch in a residual sum.
    fn check(build: impl FnOnce(&mut Net, &Name) -> Name, expected: &str) {
        let mut net = Net::new();
        let x = net.steps();
        let norm = net.norm(&x);
        let branch = build(&mut net, &norm);
        let sum = net.op(Op::Add, &[&branch, &x]);
        assert_eq!(lines(&net.finish(&sum), "feed-forward"), expected);
    }

    #[test]
    fn one_activation_function() {
        check(|net, x| net.feed_forward(x), "layernormalization -> add_2  12 (Relu)  5 nodes");
    }

    #[test]
    fn the_arithmetic_of_gelu() {
        check(
            |net, x| {
                let hidden = net.linear(x, WIDTH, HIDDEN);
                let (root, one, half) = (net.scalar(2f32.sqrt()), net.scalar(1.0), net.scalar(0.5));
                let inner = net.op(Op::Div, &[&hidden, &root]);
                let inner = net.op(Op::Erf, &[&inner]);
                let inner = net.op(Op::Add, &[&inner, &one]);
                let inner = net.op(Op::Mul, &[&hidden, &inner]);
                let inner = net.op(Op::Mul, &[&inner, &half]);
                net.linear(&inner, HIDDEN, WIDTH)
            },
            "layernormalization -> add_3  12 (Gelu)  9 nodes",
        );
    }

    #[test]
    fn gates_of_two_maps_and_of_one_split() {
        check(
            |net, x| {
                let [gate, hidden] = [(); 2].map(|()| net.linear(x, WIDTH, HIDDEN));
                let open = net.op(Op::Sigmoid, &[&gate]);
                let gate = net.op(Op::Mul, &[&gate, &open]);
                let hidden = net.op(Op::Mul, &[&gate, &hidden]);
                net.linear(&hidden, HIDDEN, WIDTH)
            },
            "layernormalization -> add_3  12 (Swish, gated)  9 nodes",
        );
        check(
            |net, x| {
                let both = net.linear(x, WIDTH, 2 * HIDDEN);
                let split = Op::Split(Split { axis: -1, num_outputs: Some(2) });
                let halves = net.builder.node_with_outputs(split, &[&both], 2);
                let gate = net.op(Op::HardSwish, &[&halves[0]]);
                let hidden = net.op(Op::Mul, &[&gate, &halves[1]]);
                net.linear(&hidden, HIDDEN, WIDTH)
            },
            "layernormalization -> add_2  12 (HardSwish, gated)  7 nodes",
        );
    }

    #[test]
    fn gemm_on_rows_and_convolutions_of_one_element() {
        check(
            |net, x| {
                let rows = net.reshape(x, &[3, 8]);
                let (first, second) = (net.weights(&[HIDDEN, WIDTH]), net.weights(&[HIDDEN, WIDTH]));
                let hidden = net.op(Op::Gemm(Gemm { trans_b: true, ..Gemm::default() }), &[&rows, &first]);
                let hidden = net.op(Op::Relu, &[&hidden]);
                let rows = net.op(Op::Gemm(Gemm::default()), &[&hidden, &second]);
                net.reshape(&rows, &[1, 3, 8])
            },
            "reshape -> gemm_2  12 (Relu)  3 nodes",
        );
        check(
            |net, x| {
                let image = net.reshape(x, &[1, 8, 3, 1]);
                let hidden = net.conv(&image, [WIDTH, HIDDEN], 1, 1, 1);
                let hidden = net.op(Op::Relu, &[&hidden]);
                let image = net.conv(&hidden, [HIDDEN, WIDTH], 1, 1, 1);
                net.reshape(&image, &[1, 3, 8])
            },
            "reshape -> conv_2  12 (Relu)  3 nodes",
        );
    }

    #[test]
    fn what_is_none() {
        // no activation function, another width, and a squeeze-and-excitation that ends in a product
        check(
            |net, x| {
                let hidden = net.linear(x, WIDTH, HIDDEN);
                net.linear(&hidden, HIDDEN, WIDTH)
            },
            "",
        );
        check(
            |net, x| {
                let hidden = net.linear(x, WIDTH, HIDDEN);
                let active = net.op(Op::Relu, &[&hidden]);
                let one = net.linear(&active, HIDDEN, 1);
                net.op(Op::Mul, &[&one, x])
            },
            "",
        );
        check(
            |net, x| {
                let branch = net.feed_forward(x);
                let gate = net.op(Op::Sigmoid, &[&branch]);
                net.op(Op::Mul, &[&gate, x])
            },
            "",
        );
    }
}
