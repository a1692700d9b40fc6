//! Attention: a softmax over products of queries and keys that weighs values, however its parts are spelt.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

use super::flow::Flow;
use super::linear::{is_layer, linear, product};
use super::sizes;
use crate::graph::op::MICROSOFT;
use crate::graph::{Name, Node, Op};

/// One attention, of any number of heads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// What is multiplied with the keys: the queries of all heads, as they enter the product.
    pub queries: Name,
    /// The keys likewise; where the product is a `MatMul` they are transposed.
    pub keys: Name,
    /// What the weights are multiplied with.
    pub values: Name,
    /// The node that multiplies queries and keys. It, `softmax` and `context` are one node where that is the operator
    /// `Attention`.
    pub scores: usize,
    /// The node that makes weights of the scores.
    pub softmax: usize,
    /// The node that multiplies weights and values.
    pub context: usize,
    /// The result, the heads side by side: what the output projection reads.
    pub output: Name,
    /// The number of heads of the queries.
    pub n_heads: Option<usize>,
    /// The number of heads of keys and values; fewer than `n_heads` where several heads share theirs.
    pub n_kv_heads: Option<usize>,
    /// The features that one head compares.
    pub head_size: Option<usize>,
    /// The product of the factors that queries, keys and scores are multiplied by; 1 without any, none where one is not
    /// known before the network runs.
    pub scale: Option<f64>,
    /// What is added to the scores, or chooses among them: masks and biases of positions, those next to the product first.
    pub masks: Vec<Name>,
    /// The linear map that makes the queries; the same node as the others' where one map makes all.
    pub query_projection: Option<usize>,
    /// The linear map that makes the keys.
    pub key_projection: Option<usize>,
    /// The linear map that makes the values.
    pub value_projection: Option<usize>,
    /// The linear map that reads the result.
    pub output_projection: Option<usize>,
    /// The nodes from the projections to the output projection and its bias, in order.
    pub nodes: Vec<usize>,
}

/// The longest way between softmax and either product.
const LONGEST_WAY: usize = 16;

/// The attentions of a graph, in order.
pub(super) fn attentions(flow: &Flow<'_>) -> Vec<Attention> {
    let live = (0..flow.graph.nodes.len()).filter(|&node_idx| flow.is_live(node_idx));
    live.filter_map(|node_idx| {
        let core = match flow.node(node_idx)?.op {
            Op::Softmax(_) => decomposed(flow, node_idx),
            Op::Attention(_) => operator(flow, node_idx),
            _ => None,
        };
        core.map(|core| attention(flow, core))
    })
    .collect()
}

/// What makes it an attention: the two products and what lies between them.
struct Core<'a> {
    queries: &'a Name,
    keys: &'a Name,
    values: &'a Name,
    scores: usize,
    softmax: usize,
    context: usize,
    result: &'a Name,
    scale: Option<f64>,
    masks: Vec<&'a Name>,
    nodes: BTreeSet<usize>,
}

fn decomposed<'a>(flow: &Flow<'a>, softmax: usize) -> Option<Core<'a>> {
    let node = flow.node(softmax)?;
    let Op::Softmax(attributes) = &node.op else { return None };
    let rank = flow.types.tensor(node.output(0)?).and_then(|tensor| tensor.rank());
    let last = rank.and_then(|rank| i64::try_from(rank).ok()).map(|rank| rank - 1);
    if attributes.axis != -1 && Some(attributes.axis) != last {
        return None;
    }
    let mut way = Way { scale: Some(1.0), masks: Vec::new(), nodes: BTreeSet::from([softmax]) };
    let scores = scores_behind(flow, node.input(0)?, &mut way, LONGEST_WAY)?;
    let (context, values) = context_after(flow, node.output(0)?, &mut way.nodes)?;
    let [left, right] = product(flow, scores)?;
    let (queries, keys) = if sizes::keys_come_first(flow, scores) { (right, left) } else { (left, right) };
    let result = flow.node(context)?.output(0)?;
    let factors = [way.scale, own_scale(flow, queries), own_scale(flow, keys), product_scale(flow.node(scores)?)];
    let scale = factors.into_iter().product();
    way.nodes.extend([scores, context]);
    Some(Core { queries, keys, values, scores, softmax, context, result, scale, masks: way.masks, nodes: way.nodes })
}

fn operator<'a>(flow: &Flow<'a>, node_idx: usize) -> Option<Core<'a>> {
    let node = flow.node(node_idx)?;
    let Op::Attention(attributes) = &node.op else { return None };
    let head_size = sizes::of_operator(flow, node).head_size;
    let usual = || head_size.map(|size| 1.0 / (size as f64).sqrt());
    Some(Core {
        queries: node.input(0)?,
        keys: node.input(1)?,
        values: node.input(2)?,
        scores: node_idx,
        softmax: node_idx,
        context: node_idx,
        result: node.output(0)?,
        scale: attributes.scale.map(f64::from).or_else(usual),
        masks: node.input(3).into_iter().collect(),
        nodes: BTreeSet::from([node_idx]),
    })
}

/// What is met on the way from the softmax back to the scores.
struct Way<'a> {
    scale: Option<f64>,
    masks: Vec<&'a Name>,
    nodes: BTreeSet<usize>,
}

/// The product of queries and keys that a softmax's input comes from.
fn scores_behind<'a>(flow: &Flow<'a>, name: &'a Name, way: &mut Way<'a>, n_steps: usize) -> Option<usize> {
    let node_idx = flow.uses.producer_idx(name).filter(|_| n_steps > 0)?;
    if product(flow, node_idx).is_some() {
        return Some(node_idx);
    }
    let node = flow.node(node_idx)?;
    let mut back = |name: &'a Name, way: &mut Way<'a>| scores_behind(flow, name, way, n_steps - 1);
    let found = match &node.op {
        Op::Add | Op::Sub => {
            let [left, right] = [node.input(0)?, node.input(1)?];
            let both = [(left, right), (right, left)].into_iter().filter(|(scores, _)| flow.is_activation(scores));
            with_mask(both, way, &mut back)
        }
        Op::Where => {
            let [condition, left, right] = [node.input(0)?, node.input(1)?, node.input(2)?];
            let both = [left, right].into_iter().filter(|scores| flow.is_activation(scores));
            with_mask(both.map(|scores| (scores, condition)), way, &mut back)
        }
        Op::Mul | Op::Div => {
            let (scores, factor) = scaled(flow, node)?;
            let found = back(scores, way)?;
            if sizes::is_scalar(flow, factor) {
                way.scale = times(way.scale, factor_of(flow, node, factor));
            } else {
                way.masks.push(factor);
            }
            Some(found)
        }
        Op::Max | Op::Min | Op::Clip | Op::Tanh | Op::Expand => back(flow.sole_data_input(node)?, way),
        op if moves(op) => back(flow.sole_data_input(node)?, way),
        _ => None,
    };
    way.nodes.extend(found.map(|_| node_idx));
    found
}

/// The first of several (scores, mask) that leads back to a product.
fn with_mask<'a>(
    choices: impl Iterator<Item = (&'a Name, &'a Name)>,
    way: &mut Way<'a>,
    back: &mut impl FnMut(&'a Name, &mut Way<'a>) -> Option<usize>,
) -> Option<usize> {
    for (scores, mask) in choices {
        let mut tried = Way { scale: way.scale, masks: Vec::new(), nodes: BTreeSet::new() };
        if let Some(found) = back(scores, &mut tried) {
            way.scale = tried.scale;
            way.nodes.extend(tried.nodes);
            way.masks.extend(tried.masks);
            way.masks.push(mask);
            return Some(found);
        }
    }
    None
}

/// The product of weights and values that a softmax's output goes into, and its values.
fn context_after<'a>(flow: &Flow<'a>, weights: &'a Name, nodes: &mut BTreeSet<usize>) -> Option<(usize, &'a Name)> {
    let mut reached = BTreeSet::from([weights]);
    let mut open = flow.data_readers(weights);
    let mut passed = BTreeSet::new();
    while let Some(node_idx) = open.pop() {
        let node = flow.node(node_idx)?;
        if let Some([left, right]) = product(flow, node_idx) {
            let values = if reached.contains(left) { right } else { left };
            nodes.extend(passed);
            return Some((node_idx, values));
        }
        let scaled_by_constant = matches!(node.op, Op::Mul | Op::Div | Op::Add) && flow.data_inputs(node).len() == 1;
        let passes = moves(&node.op) || matches!(node.op, Op::IsNaN | Op::Where) || scaled_by_constant;
        if passes && passed.len() < LONGEST_WAY && passed.insert(node_idx) {
            reached.extend(node.outputs.iter().flatten());
            open.extend(node.outputs.iter().flatten().flat_map(|name| flow.data_readers(name)));
        }
    }
    None
}

/// Whether an operator only moves, copies or recodes elements.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Squeeze
            | Op::Unsqueeze
            | Op::Flatten(_)
            | Op::Cast(_)
            | Op::CastLike(_)
            | Op::Identity
            | Op::Dropout(_)
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
    )
}

/// What a `Mul` or `Div` scales, and by what.
fn scaled<'a>(flow: &Flow<'a>, node: &'a Node) -> Option<(&'a Name, &'a Name)> {
    let [left, right] = [node.input(0)?, node.input(1)?];
    match (&node.op, flow.is_activation(left), flow.is_activation(right)) {
        (Op::Mul | Op::Div, true, false) => Some((left, right)),
        (Op::Mul, false, true) => Some((right, left)),
        _ => None,
    }
}

/// The number that a `Mul` or `Div` multiplies by.
fn factor_of(flow: &Flow<'_>, node: &Node, factor: &str) -> Option<f64> {
    let number = sizes::scalar(flow, factor)?;
    Some(if matches!(node.op, Op::Div) { 1.0 / number } else { number })
}

fn times(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? * other?)
}

/// What queries or keys were multiplied by before they came into the product.
fn own_scale(flow: &Flow<'_>, name: &Name) -> Option<f64> {
    let mut scale = Some(1.0);
    let mut name = name;
    while let Some(node) = flow.uses.producer(name) {
        match scaled(flow, node) {
            Some((data, factor)) if sizes::is_scalar(flow, factor) => {
                scale = times(scale, factor_of(flow, node, factor));
                name = data;
            }
            None if moves(&node.op) => match flow.sole_data_input(node) {
                Some(input) => name = input,
                None => break,
            },
            Some(_) | None => break,
        }
    }
    scale
}

fn product_scale(node: &Node) -> Option<f64> {
    match &node.op {
        Op::Gemm(gemm) => Some(f64::from(gemm.alpha)),
        Op::QGemm(gemm) => Some(f64::from(gemm.alpha)),
        _ => Some(1.0),
    }
}

fn attention(flow: &Flow<'_>, core: Core<'_>) -> Attention {
    let mut nodes = core.nodes;
    let projections = [core.queries, core.keys, core.values].map(|name| projection_of(flow, name, &mut nodes));
    let [query_projection, key_projection, value_projection] = projections;
    let (output, output_projection) = merged(flow, core.result, &mut nodes);
    let sizes = match flow.node(core.scores) {
        Some(node) if matches!(node.op, Op::Attention(_)) => sizes::of_operator(flow, node),
        Some(_) | None => {
            let n_merged = output_projection.and_then(|node_idx| linear(flow, node_idx)?.n_in);
            let n_merged = n_merged.or_else(|| sizes::last_dim(flow, output));
            sizes::of_products(flow, core.scores, core.queries, core.keys, n_merged)
        }
    };
    let n_kv_heads = sizes::n_kv_heads(flow, projections, &sizes).or(sizes.n_kv_heads);
    Attention {
        queries: core.queries.clone(),
        keys: core.keys.clone(),
        values: core.values.clone(),
        scores: core.scores,
        softmax: core.softmax,
        context: core.context,
        output: output.clone(),
        n_heads: sizes.n_heads,
        n_kv_heads,
        head_size: sizes.head_size,
        scale: core.scale,
        masks: core.masks.into_iter().cloned().collect(),
        query_projection,
        key_projection,
        value_projection,
        output_projection,
        nodes: nodes.into_iter().collect(),
    }
}

/// The one linear map that queries, keys or values come from; adds the nodes on the way to `nodes`.
fn projection_of(flow: &Flow<'_>, name: &Name, nodes: &mut BTreeSet<usize>) -> Option<usize> {
    let mut open: Vec<usize> = flow.uses.producer_idx(name).into_iter().collect();
    let (mut seen, mut projections) = (BTreeSet::new(), BTreeSet::new());
    while let Some(node_idx) = open.pop() {
        let Some(node) = flow.node(node_idx).filter(|_| !seen.contains(&node_idx)) else { continue };
        if is_layer(flow, node) {
            projections.insert(node_idx);
        } else if carries(flow, node) {
            seen.insert(node_idx);
            let gathers = matches!(node.op, Op::Gather(_));
            let inputs = flow.data_inputs(node).into_iter().filter(|name| !gathers || node.input(0) == Some(name));
            open.extend(inputs.filter_map(|name| flow.uses.producer_idx(name)));
        }
    }
    let projection = projections.first().copied().filter(|_| projections.len() == 1)?;
    linear(flow, projection)?;
    nodes.insert(projection);
    for node_idx in seen {
        let inputs = flow.node(node_idx).map(|node| flow.data_inputs(node)).unwrap_or_default();
        let from_it = |name: &&Name| flow.uses.producer_idx(name).is_some_and(|producer| nodes.contains(&producer));
        if inputs.iter().any(from_it) {
            nodes.insert(node_idx);
        }
    }
    Some(projection)
}

/// Whether a node can stand between a projection and a product: layout, splitting, rotary positions, normalisation of
/// heads, sharing of heads.
fn carries(flow: &Flow<'_>, node: &Node) -> bool {
    let shapes = matches!(
        node.op,
        Op::Split(_) | Op::Slice | Op::Gather(_) | Op::Concat(_) | Op::Expand | Op::Tile | Op::Pad(_)
    );
    let computes = matches!(
        node.op,
        Op::Mul
            | Op::Div
            | Op::Sub
            | Op::Neg
            | Op::Pow
            | Op::Sqrt
            | Op::Reciprocal
            | Op::ReduceMean(_)
            | Op::ReduceL2(_)
            | Op::ReduceSum(_)
            | Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::LpNormalization(_)
            | Op::BatchNormalization(_)
    );
    // the sum of two activations is a residual sum unless both are rotated parts
    let is_product = |name: &&Name| flow.uses.producer(name).is_some_and(|node| matches!(node.op, Op::Mul));
    let adds = matches!(node.op, Op::Add) && {
        let inputs = flow.data_inputs(node);
        inputs.len() == 1 || inputs.iter().all(is_product)
    };
    let rotates = matches!(&node.op, Op::Opaque(op) if op.domain == MICROSOFT && op.op_type == "RotaryEmbedding");
    moves(&node.op) || shapes || computes || adds || rotates
}

/// The result with its heads side by side, and the linear map that reads it.
fn merged<'a>(flow: &Flow<'a>, result: &'a Name, nodes: &mut BTreeSet<usize>) -> (&'a Name, Option<usize>) {
    let mut name = result;
    loop {
        let reader = flow.sole_data_reader(name).and_then(|node_idx| Some((node_idx, flow.node(node_idx)?)));
        let Some((node_idx, node)) = reader else { return (name, None) };
        if linear(flow, node_idx).is_some() {
            nodes.insert(node_idx);
            let bias = node.output(0).and_then(|output| flow.sole_data_reader(output));
            let is_bias = |bias: &usize| {
                flow.node(*bias).is_some_and(|node| matches!(node.op, Op::Add) && flow.data_inputs(node).len() == 1)
            };
            nodes.extend(bias.filter(is_bias));
            return (name, Some(node_idx));
        }
        match node.output(0).filter(|_| moves(&node.op)) {
            Some(output) => {
                nodes.insert(node_idx);
                name = output;
            }
            None => return (name, None),
        }
    }
}
