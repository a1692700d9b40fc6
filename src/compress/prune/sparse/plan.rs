//! Which weights go sparse.

use indexmap::IndexMap;
use serde::Serialize;

use super::super::PruneError;
use super::layout::Layout;
use super::options::SparseOptions;
use crate::compress::observe::moments;
use crate::compress::observe::product::{Product, product};
use crate::graph::axes::{Weight, axes};
use crate::graph::shape::Types;
use crate::graph::spelling::matches;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name};

/// The most that an output may sum over for its inputs to be looked at together: their second moments grow with its square.
const MOST_COLUMNS: usize = 8192;

/// The weights that go sparse.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The weights, in the order of the graph.
    pub operands: Vec<Operand>,
    /// The weights that were meant and stay as they are.
    pub left: Vec<Left>,
}

/// A constant operand of products.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The initializer.
    pub name: Name,
    pub(super) layout: Layout,
    /// What it meets; empty where the criterion does not ask.
    pub(super) products: Vec<Product>,
}

/// A weight that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The initializer.
    pub weight: Name,
    /// Why.
    pub reason: String,
}

/// Where a constant is read.
struct Site {
    node_idx: usize,
    weight: Weight,
}

/// The constant operands of Conv, MatMul, Gemm and recurrent operators that the options mean. Biases and normalisations are none;
/// embeddings where they are asked for.
///
/// # Errors
/// When the options cannot be carried out, a pattern of names means nothing in the network, or no weight is left.
pub fn plan(graph: &Graph, types: &Types, options: &SparseOptions) -> Result<Plan, PruneError> {
    options.check()?;
    if let Some(pattern) = idle_pattern(graph, options) {
        return Err(PruneError::Pattern { pattern: pattern.to_string() });
    }
    let uses = Uses::of(graph);
    let mut by_name: IndexMap<&Name, Vec<Site>> = IndexMap::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        for weight in axes(node, types).weights {
            let name = node.input(weight.position).filter(|name| graph.constant(name).is_some());
            let Some(name) = name else { continue };
            by_name.entry(name).or_default().push(Site { node_idx, weight });
        }
    }
    let mut plan = Plan::default();
    for (name, sites) in by_name {
        let is_meant = |pattern: &String| {
            matches(pattern, name) || sites.iter().any(|site| graph.nodes[site.node_idx].is_meant(pattern))
        };
        let is_asked_for = options.only.is_empty() || options.only.iter().any(is_meant);
        let is_embedding = sites.iter().all(|site| site.weight.input_axis.is_none());
        if !is_asked_for || options.exclude.iter().any(is_meant) || (is_embedding && !options.embeddings) {
            continue;
        }
        match operand(graph, types, &uses, options, name, &sites) {
            Ok(operand) => plan.operands.push(operand),
            Err(reason) => plan.left.push(Left { weight: name.clone(), reason }),
        }
    }
    if plan.operands.is_empty() {
        let reason = match plan.left.first() {
            Some(Left { weight, reason }) => format!("`{weight}` stays as it is because {reason}"),
            None => {
                "no constant that is meant is multiplied with what a Conv, MatMul, Gemm or recurrent operator reads"
                    .into()
            }
        };
        return Err(PruneError::Nothing { reason });
    }
    Ok(plan)
}

/// A pattern for names that means nothing: most likely misspelled.
fn idle_pattern<'a>(graph: &Graph, options: &'a SparseOptions) -> Option<&'a str> {
    let means_any = |pattern: &str| {
        graph.nodes.iter().any(|node| node.is_meant(pattern))
            || graph.initializers.keys().any(|it| matches(pattern, it))
    };
    let mut patterns = options.only.iter().chain(&options.exclude).map(String::as_str);
    patterns.find(|pattern| !means_any(pattern))
}

fn operand(
    graph: &Graph,
    types: &Types,
    uses: &Uses<'_>,
    options: &SparseOptions,
    name: &Name,
    sites: &[Site],
) -> Result<Operand, String> {
    let constant = &graph.initializers[name];
    if constant.dtype() != DType::F32 {
        return Err(format!("it is of {}", constant.dtype()));
    }
    if uses.is_output(name) || uses.readers(name).len() != sites.len() {
        return Err("something else reads it, too".to_string());
    }
    if sites.iter().any(|site| site.weight.input_axis.is_none()) && !options.embeddings {
        return Err("it is an embedding, too; `embeddings` says that these go sparse".to_string());
    }
    let layout = |site: &Site| Layout::of(&graph.nodes[site.node_idx], &site.weight, constant.shape(), options.pattern);
    let mut layouts = sites.iter().map(layout);
    let first = layouts.next().ok_or("nothing reads it")??;
    for other in layouts {
        if other? != first {
            return Err("its products sum over several of its axes".to_string());
        }
    }
    if constant.as_slice::<f32>().map_err(|error| error.to_string())?.iter().any(|weight| !weight.is_finite()) {
        return Err("it holds a number that is not finite".to_string());
    }
    let products = match options.criterion.reads_samples() {
        false => Vec::new(),
        true => {
            if first.matrices.n_columns > MOST_COLUMNS {
                let n = first.matrices.n_columns;
                return Err(format!("it sums over {n} inputs; up to {MOST_COLUMNS} can be looked at together"));
            }
            let of_site = |site: &Site| product(graph, types, site.node_idx, site.weight.position);
            sites.iter().map(of_site).collect::<Result<_, _>>()?
        }
    };
    Ok(Operand { name: name.clone(), layout: first, products })
}

impl Plan {
    /// The values that a network must give to [`by_samples`](super::by_samples), in this order.
    pub fn values(&self) -> Vec<Name> {
        moments::values(self.products())
    }

    /// The plan in parts, in its order, each with second moments of no more than so many bytes where more than one weight is in
    /// it: one is carried out after the other, each on the graph that the last one gave.
    pub fn parts(&self, most_bytes: usize) -> Vec<Plan> {
        let parts = moments::parts(&self.operands, |operand| &operand.products, most_bytes);
        parts.into_iter().map(|operands| Plan { operands, left: Vec::new() }).collect()
    }

    pub(super) fn products(&self) -> impl Iterator<Item = &Product> {
        self.operands.iter().flat_map(|operand| &operand.products)
    }
}

impl Operand {
    pub(super) fn constant<'a>(&self, graph: &'a Graph) -> Result<&'a Tensor, PruneError> {
        let missing = |problem: &str| PruneError::Mask { weight: self.name.clone(), problem: problem.to_string() };
        let constant = graph.constant(&self.name).ok_or_else(|| missing("is of no constant of the network"))?;
        match constant.len() == self.layout.n_weights() {
            true => Ok(constant),
            false => Err(missing("was planned for another network")),
        }
    }
}
