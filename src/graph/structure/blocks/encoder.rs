//! Layers of transformers: attention and feed-forward part, each in a residual block, with their normalisation.

use std::collections::BTreeSet;

use serde::Serialize;

use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::flow::Flow;
use super::residual::{ResidualBlock, Skip};
use super::span::{Span, blocked, same_shape};
use crate::graph::{Name, Node, Op};

/// One layer of an encoder or decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncoderLayer {
    /// From what the layer reads to what the next one reads: with the norm behind the sums, both are normalised.
    pub span: Span,
    /// The layer's attentions among those of the graph; the second of a decoder's layer looks at the encoder.
    pub attentions: Vec<usize>,
    /// The layer's feed-forward part among those of the graph.
    pub feed_forward: usize,
    /// Where it normalises.
    pub norm: Norm,
    /// The nodes on the ways from entry to exit, in order.
    pub nodes: Vec<usize>,
    /// Those of them, and of what only they read, that go when the layer does.
    pub private: Vec<usize>,
    /// Why the layer cannot be taken out; none where it can.
    pub blocked: Option<String>,
}

/// Where a layer normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Before attention and feed-forward part.
    Pre,
    /// After each residual sum.
    Post,
    /// Not at all.
    Absent,
}

/// The most residual blocks of one layer.
const MOST_BLOCKS: usize = 4;

/// The layers of a graph, in order.
pub(super) fn encoder_layers(
    flow: &Flow<'_>,
    blocks: &[ResidualBlock],
    attentions: &[Attention],
    feed_forwards: &[FeedForward],
) -> Vec<EncoderLayer> {
    let parts = Parts { blocks, attentions, feed_forwards };
    let mut taken = BTreeSet::new();
    let mut layers = Vec::new();
    for (attention_idx, attention) in attentions.iter().enumerate() {
        if taken.contains(&attention_idx) {
            continue;
        }
        let Some(layer) = parts.home(attention.context).and_then(|block| layer(flow, &parts, block)) else { continue };
        taken.extend(layer.attentions.iter().copied());
        layers.push(layer);
    }
    layers
}

struct Parts<'a> {
    blocks: &'a [ResidualBlock],
    attentions: &'a [Attention],
    feed_forwards: &'a [FeedForward],
}

impl Parts<'_> {
    /// The innermost block around a node.
    fn home(&self, node_idx: usize) -> Option<&ResidualBlock> {
        let around = self.blocks.iter().filter(|block| block.nodes.binary_search(&node_idx).is_ok());
        around.filter(|block| block.skip == Skip::Identity).min_by_key(|block| block.nodes.len())
    }

    fn attentions_in(&self, block: &ResidualBlock) -> Vec<usize> {
        let inside = |attention: &Attention| self.home(attention.context) == Some(block);
        (0..self.attentions.len()).filter(|&idx| inside(&self.attentions[idx])).collect()
    }

    fn feed_forward_in(&self, block: &ResidualBlock) -> Option<usize> {
        self.feed_forwards.iter().position(|part| self.home(part.contract) == Some(block))
    }

    /// The block that reads this value.
    fn from(&self, entry: &Name) -> Option<&ResidualBlock> {
        self.blocks.iter().find(|block| block.span.entry == *entry && block.skip == Skip::Identity)
    }
}

/// The layer that begins with a block: the blocks that follow one another up to one with a feed-forward part.
fn layer(flow: &Flow<'_>, parts: &Parts<'_>, first: &ResidualBlock) -> Option<EncoderLayer> {
    let mut attentions = Vec::new();
    let mut last = first;
    let mut is_post = is_normalised(flow, &first.span.exit);
    for _ in 0..MOST_BLOCKS {
        attentions.extend(parts.attentions_in(last));
        if let Some(feed_forward) = parts.feed_forward_in(last) {
            let exit = &last.span.exit;
            let behind = if is_post && !is_normalised(flow, exit) { normalised(flow, exit) } else { None };
            let span = Span { entry: first.span.entry.clone(), exit: behind.unwrap_or(exit).clone() };
            return whole(flow, span, attentions, feed_forward, is_post);
        }
        let next = parts.from(&last.span.exit);
        let next_after_norm = || parts.from(normalised(flow, &last.span.exit)?);
        is_post |= next.is_none();
        last = next.or_else(next_after_norm)?;
    }
    None
}

fn whole(
    flow: &Flow<'_>,
    span: Span,
    attentions: Vec<usize>,
    feed_forward: usize,
    is_post: bool,
) -> Option<EncoderLayer> {
    let region = flow.region(&span.entry, &span.exit)?;
    let mut inside = region.between.iter().filter_map(|node_idx| flow.node(*node_idx));
    let norm = match (is_post, inside.any(norm_core)) {
        (true, _) => Norm::Post,
        (false, true) => Norm::Pre,
        (false, false) => Norm::Absent,
    };
    let blocked = blocked(flow, &span, &region);
    let (nodes, private) = (region.between, region.private);
    Some(EncoderLayer { span, attentions, feed_forward, norm, nodes, private, blocked })
}

/// Whether a value is the normalised sum that a `SkipLayerNormalization` gives.
fn is_normalised(flow: &Flow<'_>, name: &Name) -> bool {
    let fused = |node: &Node| matches!(node.op, Op::SkipLayerNormalization(_)) && node.output(0) == Some(name);
    flow.uses.producer(name).is_some_and(fused)
}

/// The value normalised, where that is all that it is used for: through one operator, or through its arithmetic.
fn normalised<'a>(flow: &Flow<'a>, name: &'a Name) -> Option<&'a Name> {
    let mut open: BTreeSet<&Name> = BTreeSet::from([name]);
    let mut readers: BTreeSet<usize> = flow.data_readers(name).into_iter().collect();
    let (mut averages, mut divides) = (false, false);
    let mut found = None;
    while let Some(node_idx) = readers.pop_first() {
        let node = flow.node(node_idx)?;
        let Some(output) = node.output(0).filter(|_| belongs_to_norm(&node.op)) else { break };
        if matches!(node.op, Op::LayerNormalization(_) | Op::RMSNormalization(_)) {
            return (open.len() == 1 && readers.is_empty() && open.contains(name)).then_some(output);
        }
        if flow.data_inputs(node).iter().any(|input| !open.contains(input)) {
            break;
        }
        averages |= matches!(node.op, Op::ReduceMean(_));
        divides |= matches!(node.op, Op::Div | Op::Reciprocal);
        open.insert(output);
        readers.extend(flow.data_readers(output));
        if averages
            && divides
            && same_shape(flow, output, name)
            && readers.iter().all(|node_idx| reads_only(flow, *node_idx, output, &open))
        {
            found = Some(output);
        }
    }
    found
}

/// Whether of these values a node reads this one only.
fn reads_only(flow: &Flow<'_>, node_idx: usize, name: &Name, values: &BTreeSet<&Name>) -> bool {
    let inputs = flow.node(node_idx).map(|node| flow.data_inputs(node)).unwrap_or_default();
    inputs.iter().all(|input| *input == name || !values.contains(input))
}

fn norm_core(node: &Node) -> bool {
    matches!(
        node.op,
        Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::SkipLayerNormalization(_)
            | Op::ReduceMean(_)
            | Op::BatchNormalization(_)
            | Op::GroupNormalization(_)
            | Op::InstanceNormalization(_)
    )
}

fn belongs_to_norm(op: &Op) -> bool {
    matches!(
        op,
        Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::ReduceMean(_)
            | Op::Sub
            | Op::Pow
            | Op::Mul
            | Op::Add
            | Op::Sqrt
            | Op::Div
            | Op::Reciprocal
            | Op::Cast(_)
    )
}

#[cfg(test)]
mod tests {
    use crate::graph::op::{Concat, Reshape, Shape, SkipLayerNormalization};
    use crate::graph::structure::blocks::networks::{Net, Style, WIDTH, encoder, lines};
    use crate::graph::tensor::DType;
    use crate::graph::{Dim, Graph, Name, Node, Op, TensorType};

    fn check(graph: &Graph, expected: &str) {
        assert_eq!(lines(graph, "encoder layer"), expected);
    }

    #[test]
    fn norms_before_and_behind() {
        let parts = "attention 2 heads x 4, scale 0.5000, mask mul; feed-forward 12 (Relu)";
        check(&encoder(Style::PreNorm, &[0]), &format!("pre-norm  add -> add_10  {parts}  32 nodes  removable"));
        let post = encoder(Style::PostNorm, &[0, 1]);
        check(
            &post,
            &format!(
                "post-norm  layernormalization -> layernormalization_3  {parts}  31 nodes  removable\n\
                 post-norm  layernormalization_3 -> layernormalization_5  {parts}  31 nodes  removable"
            ),
        );
        let decomposed = encoder(Style::Decomposed, &[0]);
        check(&decomposed, &format!("post-norm  add_2 -> add_15  {parts}  48 nodes  removable"));
    }

    fn skip_norm(net: &mut Net, branch: &Name, skip: &Name, outputs: [Option<&str>; 4]) {
        let (scale, bias) = (net.weights(&[WIDTH]), net.weights(&[WIDTH]));
        let op = Op::SkipLayerNormalization(SkipLayerNormalization::default());
        let inputs = [branch, skip, &scale, &bias].map(|name| Some(name.clone())).to_vec();
        net.builder.push(Node::new(op, inputs, outputs.map(|name| name.map(Name::from)).to_vec()));
    }

    #[test]
    fn sums_and_norms_in_one_operator() {
        let mut net = Net::new();
        let x = net.steps();
        let x = net.norm(&x);
        let branch = net.attention(&x, None);
        skip_norm(&mut net, &branch, &x, [Some("first"), None, None, None]);
        let branch = net.feed_forward(&"first".into());
        skip_norm(&mut net, &branch, &"first".into(), [Some("second"), None, None, None]);
        let output = net.linear(&"second".into(), WIDTH, 2);
        check(
            &net.finish(&output),
            "post-norm  layernormalization -> second  attention 2 heads x 4, scale 0.5000; feed-forward 12 (Relu)  \
             28 nodes  removable",
        );
    }

    #[test]
    fn a_decoder_looks_at_itself_and_at_the_encoder() {
        let mut net = Net::new();
        let x = net.steps();
        let memory = net.builder.input("memory", TensorType::new(DType::F32, [1usize, 3, WIDTH]));
        let norm = net.norm(&x);
        let branch = net.attention(&norm, None);
        let stream = net.op(Op::Add, &[&x, &branch]);
        let norm = net.norm(&stream);
        let queries = net.linear(&norm, WIDTH, WIDTH);
        let [keys, values] = [(); 2].map(|()| net.linear(&memory, WIDTH, WIDTH));
        let [queries, keys, values] = [queries, keys, values].map(|part| net.heads(&part));
        let keys = net.transpose(&keys, &[0, 1, 3, 2]);
        let scores = net.op(Op::MatMul, &[&queries, &keys]);
        let weights = net.softmax(&scores);
        let context = net.op(Op::MatMul, &[&weights, &values]);
        let merged = net.merge(&context);
        let branch = net.linear(&merged, WIDTH, WIDTH);
        let stream = net.op(Op::Add, &[&stream, &branch]);
        let norm = net.norm(&stream);
        let branch = net.feed_forward(&norm);
        let stream = net.op(Op::Add, &[&stream, &branch]);
        check(
            &net.finish(&stream),
            "pre-norm  x -> add_13  attention 2 heads x 4, scale 0.5000; attention 2 heads x 4, scale 1.0000; \
             feed-forward 12 (Relu)  52 nodes  removable",
        );
    }

    #[test]
    fn attention_beside_the_feed_forward_part() {
        let mut net = Net::new();
        let x = net.steps();
        let norm = net.norm(&x);
        let (one, other) = (net.attention(&norm, None), net.feed_forward(&norm));
        let sum = net.op(Op::Add, &[&one, &other]);
        let sum = net.op(Op::Add, &[&sum, &x]);
        check(
            &net.finish(&sum),
            "pre-norm  x -> add_8  attention 2 heads x 4, scale 0.5000; feed-forward 12 (Relu)  29 nodes  removable",
        );
    }

    /// Two layers whose shapes are computed while the network runs, as dynamic exports have them; where they are shared,
    /// the second layer asks the first one's queries.
    fn dynamic(shared: bool) -> Graph {
        let mut net = Net::new();
        let shape = [Dim::from("batch"), Dim::from("steps"), Dim::from(WIDTH)];
        let x = net.builder.input("x", TensorType::new(DType::F32, shape));
        let mut stream = net.norm(&x);
        let mut sizes = None;
        for _ in 0..2 {
            let [queries, keys, values] = [(); 3].map(|()| net.linear(&stream, WIDTH, WIDTH));
            let asked = sizes
                .clone()
                .filter(|_| shared)
                .unwrap_or_else(|| net.op(Op::Shape(Shape { start: 0, end: Some(2) }), &[&queries]));
            sizes = Some(asked.clone());
            let (heads, merged) = (net.ints(&[2, 4]), net.ints(&[8]));
            let [split, whole] = [heads, merged].map(|rest| net.op(Op::Concat(Concat { axis: 0 }), &[&asked, &rest]));
            let [queries, keys, values] = [queries, keys, values].map(|part| {
                let part = net.op(Op::Reshape(Reshape::default()), &[&part, &split]);
                net.transpose(&part, &[0, 2, 1, 3])
            });
            let keys = net.transpose(&keys, &[0, 1, 3, 2]);
            let scores = net.op(Op::MatMul, &[&queries, &keys]);
            let weights = net.softmax(&scores);
            let context = net.op(Op::MatMul, &[&weights, &values]);
            let context = net.transpose(&context, &[0, 2, 1, 3]);
            let merged = net.op(Op::Reshape(Reshape::default()), &[&context, &whole]);
            let branch = net.linear(&merged, WIDTH, WIDTH);
            let sum = net.op(Op::Add, &[&branch, &stream]);
            let middle = net.norm(&sum);
            let branch = net.feed_forward(&middle);
            let sum = net.op(Op::Add, &[&branch, &middle]);
            stream = net.norm(&sum);
        }
        net.finish(&stream)
    }

    #[test]
    fn shape_arithmetic_belongs_to_a_layer_unless_another_asks_it() {
        let parts = "attention 2 heads x 4, scale 1.0000; feed-forward 12 (Relu)";
        let [first, second] =
            ["layernormalization -> layernormalization_3", "layernormalization_3 -> layernormalization_5"];
        check(
            &dynamic(false),
            &format!(
                "post-norm  {first}  {parts}  32 nodes  removable\npost-norm  {second}  {parts}  32 nodes  removable"
            ),
        );
        check(
            &dynamic(true),
            &format!(
                "post-norm  {first}  {parts}  29 nodes  stays: `add` inside it is asked for its shape by Shape `shape`\n\
                 post-norm  {second}  {parts}  31 nodes  removable"
            ),
        );
    }

    #[test]
    fn attention_alone_is_no_layer() {
        let mut net = Net::new();
        let x = net.steps();
        let branch = net.attention(&x, None);
        let sum = net.op(Op::Add, &[&x, &branch]);
        check(&net.finish(&sum), "");
    }
}
