//! Rounding of weights learned from what the network's products read: not each to the nearest integer, but so that what a product
//! makes changes least.
//!
//! [`task()`] finds the constants that are operands of products; [`round()`] runs samples for the second moments of what meets them
//! and puts each constant on its grid, so that rounding it by the scales that are given back changes nothing any more.

mod adaround;
mod clip;
mod descent;
mod gptq;
mod grid;
mod matrix;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::QuantizeError;
use super::insert::{Scales, least_scales};
use super::parameters::{Parameters, of_constant};
use super::plan::{Float, Plan, WeightSite};
use super::scheme::Weights;
use crate::compress::observe::ObserveError;
use crate::compress::observe::moments::{self, Gram, grams};
use crate::compress::observe::product::{Product, product};
use crate::graph::patch::Patch;
use crate::graph::probe::Forward;
use crate::graph::shape::Types;
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name};
use matrix::rounded;

/// The most that an output may sum over for its weights to be rounded together: the second moments grow with its square.
const MOST_COLUMNS: usize = 8192;

/// How weights are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// Each to the nearest integer. Needs no data.
    #[default]
    Nearest,
    /// Column after column, those to come making up for the errors of those before (Frantar et al., "GPTQ", 2023); then each
    /// weight once more given all others.
    Gptq,
    /// Up or down, learned by gradient descent (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization",
    /// 2020); then as above.
    Adaround,
}

/// The constants that can be rounded by what meets them.
#[derive(Clone, Debug)]
pub struct Task {
    items: Vec<Item>,
    /// The constants that stay with the nearest integers, and why.
    pub left: Vec<Float>,
}

/// A constant.
#[derive(Clone, Debug)]
struct Item {
    name: Name,
    axis: Option<usize>,
    weights: Weights,
    /// Its sites, by number.
    sites: Vec<usize>,
    /// The products of those.
    products: Vec<Product>,
}

/// What can be rounded of the constants of these sites.
pub fn task(graph: &Graph, types: &Types, sites: &[WeightSite]) -> Task {
    let uses = Uses::of(graph);
    let mut by_name: IndexMap<&Name, Vec<usize>> = IndexMap::new();
    for (site_idx, site) in sites.iter().enumerate() {
        by_name.entry(&site.name).or_default().push(site_idx);
    }
    let mut task = Task { items: Vec::new(), left: Vec::new() };
    for (name, of_name) in by_name {
        match item(graph, types, &uses, sites, of_name) {
            Ok(item) => task.items.push(item),
            Err(reason) => task.left.push(Float { node: name.to_string(), reason }),
        }
    }
    task
}

fn item(
    graph: &Graph,
    types: &Types,
    uses: &Uses<'_>,
    sites: &[WeightSite],
    of_name: Vec<usize>,
) -> Result<Item, String> {
    let first = &sites[of_name[0]];
    let all = || of_name.iter().map(|&site_idx| &sites[site_idx]);
    if uses.is_output(&first.name) || uses.readers(&first.name).len() != of_name.len() {
        return Err("something else reads it, too".to_string());
    }
    if all().any(|site| site.key() != first.key()) {
        return Err("it is quantized in several ways".to_string());
    }
    let products = all()
        .map(|site| product(graph, types, site.node_idx, site.position))
        .collect::<Result<Vec<Product>, String>>()?;
    let matrices = products[0].matrices;
    if products.iter().any(|product| product.matrices != matrices) {
        return Err("its products sum over several of its axes".to_string());
    }
    if matrices.n_columns > MOST_COLUMNS {
        let n = matrices.n_columns;
        return Err(format!("it sums over {n} inputs; up to {MOST_COLUMNS} can be rounded together"));
    }
    if graph.initializers[&first.name].is_empty() {
        return Err("it is empty".to_string());
    }
    Ok(Item { name: first.name.clone(), axis: first.axis, weights: first.weights, sites: of_name, products })
}

impl Task {
    /// The values that a network must give to [`round()`], in this order.
    pub fn values(&self) -> Vec<Name> {
        moments::values(self.products())
    }

    /// The task in parts, in its order, each with second moments of no more than so many bytes where more than one constant is in it.
    pub fn parts(&self, most_bytes: usize) -> Vec<Task> {
        let parts = moments::parts(&self.items, |item| &item.products, most_bytes);
        parts.into_iter().map(|items| Task { items, left: Vec::new() }).collect()
    }

    fn products(&self) -> impl Iterator<Item = &Product> {
        self.items.iter().flat_map(|item| &item.products)
    }
}

/// The grids of weights before they are rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// By site: what [`super::parameters::with_parameters`] takes.
    pub parameters: Vec<Vec<Parameters>>,
    /// By site: for each scale the least that it may be; empty where there is no bound.
    pub least_scales: Vec<Vec<f64>>,
}

impl Start {
    /// Grids that cover all numbers of each constant.
    ///
    /// # Errors
    /// When a constant holds no `f32`.
    pub fn of_sites(graph: &Graph, sites: &[WeightSite]) -> Result<Start, QuantizeError> {
        let of_site =
            |site: &WeightSite| of_constant(&graph.initializers[&site.name], site.axis, site.weights, |_| 0.0);
        let parameters = sites.iter().map(of_site).collect::<Result<_, _>>()?;
        Ok(Start { parameters, least_scales: vec![Vec::new(); sites.len()] })
    }

    /// The grids of a plan's weights.
    ///
    /// # Errors
    /// When a bias of the plan holds no `f32`.
    pub fn of_plan(graph: &Graph, plan: &Plan, scales: &Scales) -> Result<Start, QuantizeError> {
        let of_weight = |weight_idx| least_scales(graph, plan, weight_idx, &scales.activations);
        let least_scales = (0..plan.weights.len()).map(of_weight).collect::<Result<_, _>>()?;
        Ok(Start { parameters: scales.weights.clone(), least_scales })
    }
}

/// A network whose weights lie on their grids.
#[derive(Clone, Debug)]
pub struct Rounded {
    /// The network in floats, with the constants that were rounded in their place.
    pub graph: Graph,
    /// The grids, by site.
    pub parameters: Vec<Vec<Parameters>>,
    /// What was rounded, in the order of the sites.
    pub constants: Vec<RoundedConstant>,
}

/// A constant that was rounded, and what that does to what its products make: the mean square of the change, summed over channels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoundedConstant {
    /// The constant.
    pub name: Name,
    /// With the nearest integers of the grid at the start.
    pub error_of_nearest: f64,
    /// As it is rounded.
    pub error: f64,
}

/// Rounds the constants of a task. `network` gives [`Task::values`] in their order; `told` how many samples are done. With
/// [`Rounding::Nearest`] only scales are chosen, by what the nearest integers cost.
///
/// # Errors
/// When there are no samples, the network cannot be run, or a value is no finite number.
pub fn round<E: From<QuantizeError> + From<ObserveError>>(
    graph: &Graph,
    task: &Task,
    start: &Start,
    method: Rounding,
    network: &mut dyn Forward,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<Rounded, E> {
    let grams = grams(network, task.products(), batches, told)?;
    rounded_by(graph, task, start, method, &grams).map_err(E::from)
}

fn rounded_by(
    graph: &Graph,
    task: &Task,
    start: &Start,
    method: Rounding,
    grams: &[Gram],
) -> Result<Rounded, QuantizeError> {
    let mut patch = Patch::new(graph);
    let mut parameters = start.parameters.clone();
    let mut constants = Vec::with_capacity(task.items.len());
    for item in &task.items {
        let constant = &graph.initializers[&item.name];
        let first = item.sites[0];
        let moments = moments::of_products(&item.products, grams);
        let least = &start.least_scales;
        // Of several sites of one constant the largest bound holds.
        let least = |scale_idx: usize| {
            let bounds = item.sites.iter().filter_map(|&site| least.get(site)?.get(scale_idx));
            bounds.copied().fold(0.0, f64::max)
        };
        let site = matrix::Site { item, constant, least_scale: &least };
        let rounded = rounded(&site, &start.parameters[first], method, &moments)?;
        patch.replace_initializer(&item.name, rounded.constant);
        item.sites.iter().for_each(|&site| parameters[site].clone_from(&rounded.parameters));
        let (error_of_nearest, error) = (rounded.error_of_nearest, rounded.error);
        constants.push(RoundedConstant { name: item.name.clone(), error_of_nearest, error });
    }
    Ok(Rounded { graph: patch.apply(None)?, parameters, constants })
}
