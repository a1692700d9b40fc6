//! Nodes whose outputs are known before the network runs.

use std::collections::{HashMap, HashSet};

use super::edits::Edits;
use super::view::View;
use crate::graph::cost;
use crate::graph::eval;
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor, n_elements};
use crate::graph::{Name, Node};

/// The most bytes that a folded value may take however small its inputs are.
const FEW_BYTES: usize = 16 << 10;

/// How many times the bytes of its inputs a folded value may take: f16 becomes f32.
const MOST_GROWTH: usize = 2;

/// The most multiplications that folding one node may take: the reference is slow.
const MOST_MACS: u64 = 1 << 26;

/// Narrow constants of fewer elements than this are not weights: they are widened whatever the options say.
const FEW_ELEMENTS: usize = 16;

/// Puts constants in the place of nodes that compute them.
pub(super) fn over(view: &View<'_>, edits: &mut Edits) {
    let mut fold = Fold { view, folded: HashMap::new(), quantized: HashSet::new() };
    for (node_idx, node) in view.graph.nodes.iter().enumerate() {
        match fold.outputs(node) {
            Known::No => {}
            Known::Declined(reason) => edits.decline(node_idx, reason),
            Known::Yes(tensors) => {
                let Some(patch) = edits.take(&[node_idx]) else { continue };
                patch.remove(node_idx);
                for (name, tensor) in tensors {
                    if view.uses.is_output(name) {
                        let constant = patch.add_initializer(name, tensor.clone());
                        patch.replace_uses(name, &constant);
                    } else {
                        patch.replace_initializer(name, tensor.clone());
                    }
                    fold.folded.insert(name, tensor);
                }
            }
        }
    }
}

enum Known<'a> {
    No,
    Declined(String),
    Yes(Vec<(&'a Name, Tensor)>),
}

struct Fold<'a> {
    view: &'a View<'a>,
    /// What this sweep has folded.
    folded: HashMap<&'a str, Tensor>,
    /// What comes out of quantized constants: they are not to become floats, nor anything that is computed from them.
    quantized: HashSet<&'a str>,
}

impl<'a> Fold<'a> {
    fn constant(&self, name: &str) -> Option<Tensor> {
        self.folded.get(name).or_else(|| self.view.constant(name)).cloned()
    }

    fn outputs(&mut self, node: &'a Node) -> Known<'a> {
        if let Op::Constant(constant) = &node.op {
            let output = node.output(0).filter(|name| !self.view.uses.is_output(name));
            return output.map_or(Known::No, |name| Known::Yes(vec![(name, constant.value.clone())]));
        }
        let reads_quantized = !matches!(node.op, Op::Shape(_) | Op::Size)
            && node.reads().any(|name| self.quantized.contains(name.as_str()));
        if is_quantization(&node.op) || reads_quantized {
            self.quantized.extend(node.outputs.iter().flatten().map(Name::as_str));
            return Known::No;
        }
        // an output that is a constant already would only get another Identity
        let is_output = node.outputs.iter().flatten().any(|name| self.view.uses.is_output(name));
        if !folds(&node.op) || (is_output && matches!(node.op, Op::Identity)) {
            return Known::No;
        }
        let constants: Option<Vec<(&Name, Tensor)>> =
            node.outputs.iter().flatten().map(|name| Some((name, self.view.types.constant(name)?.clone()))).collect();
        if let Some(constants) = constants.filter(|constants| !constants.is_empty()) {
            return Known::Yes(constants);
        }
        let constant = |name: &Option<Name>| name.as_ref().map_or(Some(None), |name| self.constant(name).map(Some));
        match node.inputs.iter().map(constant).collect::<Option<Vec<Option<Tensor>>>>() {
            Some(inputs) if !inputs.is_empty() => self.evaluated(node, &inputs),
            Some(_) | None => Known::No,
        }
    }

    fn evaluated(&self, node: &'a Node, inputs: &[Option<Tensor>]) -> Known<'a> {
        let types = self.view.types;
        if let (Op::Cast(cast), [Some(data), ..], true) = (&node.op, inputs, self.view.options.keep_narrow_weights)
            && cast.to.is_float()
            && data.dtype().n_bits() < cast.to.n_bits()
            && data.len() >= FEW_ELEMENTS
        {
            return Known::No;
        }
        let n_input_bytes: usize = inputs.iter().flatten().map(Tensor::n_bytes).fold(0, usize::saturating_add);
        let n_bytes = |name: &Name| self.view.dtype(name)?.n_bytes(n_elements(&types.known_shape(name)?)?);
        let n_output_bytes = node.outputs.iter().flatten().map(n_bytes).sum::<Option<usize>>();
        let Some(n_output_bytes) = n_output_bytes else { return Known::No };
        if n_output_bytes > FEW_BYTES.max(n_input_bytes.saturating_mul(MOST_GROWTH)) {
            return Known::Declined(format!("it would take {n_output_bytes} bytes, its inputs {n_input_bytes}"));
        }
        if let Some(macs) = cost::macs(node, types).filter(|&macs| macs > MOST_MACS) {
            return Known::Declined(format!("it would take {macs} multiplications"));
        }
        let outputs = match quickly(&node.op, inputs) {
            Some(output) => Ok(vec![Some(output)]),
            None => eval::operator(&node.op, inputs, node.outputs.len()),
        };
        match outputs {
            Ok(outputs) => {
                let named = node.outputs.iter().zip(outputs).filter_map(|(name, tensor)| name.as_ref().zip(tensor));
                let named: Vec<(&Name, Tensor)> = named.collect();
                if named.len() == node.outputs.iter().flatten().count() { Known::Yes(named) } else { Known::No }
            }
            Err(error) => Known::Declined(error.to_string()),
        }
    }
}

/// What the reference would compute, where whole weights pass through a node and it would take long.
fn quickly(op: &Op, inputs: &[Option<Tensor>]) -> Option<Tensor> {
    let data = inputs.first()?.as_ref()?;
    match op {
        Op::Cast(cast) if cast.to == DType::F32 && data.dtype().is_float() => {
            Tensor::new(data.shape(), data.to_f32s().ok()?.into_owned()).ok()
        }
        _ => None,
    }
}

/// Quantized constants stay quantized: the runtime multiplies them as they are.
fn is_quantization(op: &Op) -> bool {
    matches!(op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_) | Op::DynamicQuantizeLinear | Op::MatMulNBits(_))
}

/// Whether an operator gives the same for the same inputs, and reads no others by name.
fn folds(op: &Op) -> bool {
    match op {
        Op::Opaque(_) | Op::Dropout(_) => false,
        other => other.bodies().is_empty(),
    }
}
