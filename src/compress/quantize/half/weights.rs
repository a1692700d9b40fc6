//! Weights that are stored narrow and widened by a `Cast` under their own name: nothing else of the graph changes.

use super::numbers::{loss, narrowed};
use super::{HalfOptions, Halved, Kept, QuantizeHalfError};
use crate::graph::op::{Cast, Op, RoundMode};
use crate::graph::patch::Patch;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};

/// Constants of fewer elements stay: a `Cast` takes more than they do.
pub(super) const FEWEST_ELEMENTS: usize = 16;

pub(super) fn narrow(graph: &Graph, options: &HalfOptions) -> Result<Halved, QuantizeHalfError> {
    let uses = Uses::of(graph);
    let mut parts = graph.to_parts();
    let mut taken = Patch::new(graph);
    let (mut kept, mut casts, mut n_narrowed) = (Vec::new(), Vec::new(), 0);
    for (name, tensor) in &graph.initializers {
        if !is_weight(graph, &uses, name, tensor) {
            continue;
        }
        if let Some(reason) = reason(graph, &uses, name, tensor, options) {
            kept.push(Kept { node: format!("constant `{name}`"), reason });
            continue;
        }
        let stored = taken.fresh(&format!("{name}_{}", options.dtype.dtype()));
        let position = parts.initializers.get_index_of(name).unwrap_or(parts.initializers.len());
        parts.initializers.shift_remove(name);
        parts.initializers.shift_insert(position, stored.clone(), narrowed(tensor, options.dtype, None)?);
        casts.push(widening(&stored, name));
    }
    for node in &mut parts.nodes {
        let (Op::Constant(constant), Some(name)) = (&node.op, node.output(0)) else { continue };
        if !is_weight(graph, &uses, name, &constant.value) {
            continue;
        }
        if let Some(reason) = reason(graph, &uses, name, &constant.value, options) {
            kept.push(Kept { node: node.label(), reason });
            continue;
        }
        let stored = taken.fresh(&format!("{name}_{}", options.dtype.dtype()));
        parts.initializers.insert(stored.clone(), narrowed(&constant.value, options.dtype, None)?);
        // without the name of the constant, which runtimes let occur twice as they do not with that of a Cast
        *node = widening(&stored, name);
        n_narrowed += 1;
    }
    n_narrowed += casts.len();
    parts.nodes.splice(0..0, casts);
    Ok(Halved { graph: Graph::new(parts)?, kept, notes: given(graph), n_narrowed, opset: 13 })
}

/// Says of the constants that a caller may give that they stay.
pub(super) fn given(graph: &Graph) -> Vec<String> {
    let floats = |name: &&Name| {
        graph
            .initializers
            .get(*name)
            .is_some_and(|tensor| tensor.dtype() == DType::F32 && tensor.len() >= FEWEST_ELEMENTS)
    };
    let names: Vec<&Name> = graph.overridable.iter().filter(floats).collect();
    names
        .first()
        .map(|first| {
            let n_others = names.len() - 1;
            format!(
                "`{first}` and {n_others} other weights stay f32, since a caller may give others; \
             `simplify` makes them constants"
            )
        })
        .into_iter()
        .collect()
}

fn widening(from: &Name, to: &Name) -> Node {
    let cast = Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up };
    Node::new(Op::Cast(cast), vec![Some(from.clone())], vec![Some(to.clone())])
}

/// Whether it is an `f32` constant of some size that operators only compute with.
fn is_weight(graph: &Graph, uses: &Uses<'_>, name: &Name, tensor: &Tensor) -> bool {
    let readers = uses.readers(name);
    let free = !graph.overridable.contains(name) && !uses.is_output(name) && !readers.is_empty();
    let computes = |node: &Node, position: Option<usize>| match (&node.op, position) {
        (_, None) => true,
        (Op::Resize(_), Some(position)) => position == 0,
        // these cost little and decide about much
        (Op::BatchNormalization(_), Some(position)) => position == 0,
        (Op::QuantizeLinear(_) | Op::DequantizeLinear(_) | Op::Range(_) | Op::Opaque(_), _) => false,
        (Op::DynamicQuantizeLSTM(_), Some(position)) => position < 8,
        (op, _) => !op.name().starts_with("QLinear") && !matches!(op, Op::QGemm(_)),
    };
    let weighs = |reader: &crate::graph::uses::Reader| {
        graph.nodes.get(reader.node_idx).is_some_and(|node| computes(node, reader.position))
    };
    tensor.dtype() == DType::F32 && tensor.len() >= FEWEST_ELEMENTS && free && readers.iter().all(weighs)
}

fn reason(graph: &Graph, uses: &Uses<'_>, name: &Name, tensor: &Tensor, options: &HalfOptions) -> Option<String> {
    let kept = |name: &str| !name.is_empty() && options.keep.contains(name);
    let asked = |node: &Node| {
        kept(&node.name) || kept(node.op.name()) || node.outputs.iter().flatten().any(|output| kept(output))
    };
    let mut readers = uses.readers(name).iter().filter_map(|reader| graph.nodes.get(reader.node_idx));
    if kept(name) || readers.any(asked) {
        return Some("it was asked for".to_string());
    }
    loss(tensor, options.dtype).map(|loss| loss.reason(name, options.dtype))
}
