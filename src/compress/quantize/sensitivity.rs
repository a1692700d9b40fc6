//! How much each layer suffers from integers: alone in them, or alone out of them.

use serde::Serialize;

use super::QuantizeError;
use super::calibrate::Ranges;
use super::insert::quantized;
use super::options::Choice;
use super::plan::plan;
use super::scheme::Scheme;
use crate::graph::cost;
use crate::graph::probe::{Quality, Score};
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::{Graph, Name};

/// A product that computes in integers, and what they cost it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// What it makes.
    pub node: Name,
    /// Its operator.
    pub operator: String,
    /// Its multiplications with an addition, of one sample where the batch is open.
    pub macs: u64,
    /// The network with this layer alone in integers.
    pub alone: Quality,
    /// The network with every layer but this one in integers; none where nobody asked.
    pub without: Option<Quality>,
}

impl Layer {
    /// Noise by multiplication that is saved: what goes back to floats first.
    pub(super) fn harm(&self) -> f64 {
        self.alone.noise / self.macs.max(1) as f64
    }
}

/// Every product of a network in integers alone and, `both` ways, all others without it; those that do most harm for the work that they save
/// come first. `told` hears how many are done, and of how many.
///
/// # Errors
/// When a network cannot be made or run.
pub fn sensitivity(
    graph: &Graph,
    types: &Types,
    choice: &Choice,
    ranges: &Ranges,
    both: bool,
    score: &mut dyn Score,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Layer>, QuantizeError> {
    let products = products(graph, types, &choice.scheme)?;
    let symbols = shape::symbols(graph).into_iter().map(|symbol| (symbol, 1)).collect();
    // A network may be too deep for a picture of one pixel; then what depends on its size counts nothing.
    let bound = shape::infer(graph, &Bindings { symbols, ..Bindings::default() });
    let costs = cost::cost(graph, bound.as_ref().unwrap_or(types)).nodes;
    let mut quality = |scheme: &Scheme| match quantized(graph, types, scheme, ranges, choice.calibrator) {
        Err(QuantizeError::Nothing { .. }) => Ok(score.quality(graph)?),
        graph => Ok::<_, QuantizeError>(score.quality(&graph?)?),
    };
    let mut layers = Vec::with_capacity(products.len());
    for (place, (node_idx, node)) in products.iter().enumerate() {
        told(place, products.len());
        let others = products.iter().map(|(_, other)| other).filter(|other| *other != node);
        layers.push(Layer {
            node: node.clone(),
            operator: graph.nodes[*node_idx].op.name().to_string(),
            macs: costs[*node_idx].counts.macs,
            alone: quality(&choice.scheme.without(others))?,
            without: both.then(|| quality(&choice.scheme.without([node]))).transpose()?,
        });
    }
    layers.sort_by(|a, b| b.harm().total_cmp(&a.harm()));
    Ok(layers)
}

/// The products that a scheme puts into integers: by position, and what they make.
fn products(graph: &Graph, types: &Types, scheme: &Scheme) -> Result<Vec<(usize, Name)>, QuantizeError> {
    let plan = plan(graph, types, scheme)?;
    let node = |node_idx: &usize| Some((*node_idx, graph.nodes[*node_idx].output(0)?.clone()));
    Ok(plan.products.iter().filter_map(node).collect())
}
