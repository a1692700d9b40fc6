//! Weights that make up for what is taken out: where units end, in the products that sum over them, the weights of the units that stay
//! are fitted anew, so that what the product makes changes least on data.
//!
//! A product `W x + b` of which the inputs `R` go and `K` stay becomes `W′ x_K + b′` with the least
//! `E|W x + b − W′ x_K − b′|² + λ|W′ − W_K|²`: `W′ = W_K + W_R S_RK (S_KK + λ I)⁻¹` and `b′ = b + (W − W′ P_K) E[x]`, where `S` is the
//! covariance of `x`, and its second moments where there is no bias to fit. This is the reconstruction of He et al., "Channel Pruning
//! for Accelerating Very Deep Neural Networks" (2017), equation 5, and of Luo et al., "ThiNet" (2017), equation 7, for every tap of a
//! kernel by itself; the damping pulls to the weights as they were, so that the error is never above that of zeros in the place of `R`.
//!
//! [`compensate()`] fits all weights at once to what the whole network reads; [`compensate_in_order()`] one after the other to what the
//! network reads whose earlier weights are fitted already.

mod fit;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{PruneError, Selection};
use crate::compress::observe::ObserveError;
use crate::compress::observe::moments::{self, Gram, grams, pair};
use crate::compress::observe::offset::{Offset, constant, offset};
use crate::compress::observe::product::{Product, product};
use crate::graph::axes::{Port, Slot, axes};
use crate::graph::patch::Patch;
use crate::graph::probe::Forward;
use crate::graph::shape::Types;
use crate::graph::structure::groups::{Groups, Member, Role};
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Op};
use fit::{Fitted, Seen, fitted};

/// What is added to the diagonal of the moments, as part of its mean, where nobody says.
pub const DAMPING: f64 = 0.01;

/// The most inputs that are fitted together: the moments grow with their square.
const MOST_COLUMNS: usize = 8192;

/// The same in order, where moments of two networks and those between them are held: a gibibyte.
const MOST_COLUMNS_IN_ORDER: usize = 4096;

/// The weights that can make up for the units of a selection.
#[derive(Clone, Debug)]
pub struct Task {
    items: Vec<Item>,
    /// What reads units and is not fitted.
    silenced: Vec<Silenced>,
    /// The weights that read units and stay as they are, and why.
    pub declined: Vec<Declined>,
}

/// A weight that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// The weight, or the node.
    pub name: Name,
    /// Why.
    pub reason: String,
}

/// Slices of a constant along an axis that read units.
#[derive(Clone, Debug)]
struct Silenced {
    name: Name,
    axis: usize,
    indices: Vec<usize>,
}

/// A weight whose inputs go in part.
#[derive(Clone, Debug)]
struct Item {
    name: Name,
    /// A flag a column: whether it goes.
    gone: Vec<bool>,
    sites: Vec<Site>,
}

/// A product of the weight.
#[derive(Clone, Debug)]
struct Site {
    node_idx: usize,
    product: Product,
    /// What the product is multiplied by before the bias is added.
    alpha: f64,
    /// A bias of its own, with a number for each channel.
    bias: Option<(Name, Offset)>,
}

/// The weights that sum over units that go, of which `groups` and `selection` tell. `types` are the graph's.
pub fn task(graph: &Graph, types: &Types, groups: &Groups, selection: &Selection) -> Task {
    let uses = Uses::of(graph);
    let mut read: IndexMap<&Name, Vec<(&Member, &[usize])>> = IndexMap::new();
    for (group, units) in groups.groups.iter().zip(&selection.units).filter(|(_, units)| !units.is_empty()) {
        for member in group.with_role(Role::Summed) {
            read.entry(&member.value).or_default().push((member, units));
        }
    }
    let mut task = Task { items: Vec::new(), silenced: Vec::new(), declined: Vec::new() };
    for (name, members) in read {
        match item(graph, types, &uses, name, &members) {
            Ok(item) => task.items.push(item),
            Err(reason) => {
                task.declined.push(Declined { name: name.clone(), reason });
                let slices = |(member, units): &(&Member, &[usize])| Silenced {
                    name: name.clone(),
                    axis: member.axis,
                    indices: units.iter().flat_map(|&unit| member.of_unit(unit)).copied().collect(),
                };
                task.silenced.extend(members.iter().filter(|_| constant(graph, name).is_some()).map(slices));
            }
        }
    }
    task
}

fn item(
    graph: &Graph,
    types: &Types,
    uses: &Uses<'_>,
    name: &Name,
    members: &[(&Member, &[usize])],
) -> Result<Item, String> {
    let tensor = graph.constant(name).ok_or("is computed, or the caller may give another")?;
    if constant(graph, name).is_none() {
        return Err(format!("is stored as {}", tensor.dtype()));
    }
    if uses.is_output(name) {
        return Err("is an output of the network".to_string());
    }
    let readers = uses.readers(name);
    let sites: Vec<Site> = readers
        .iter()
        .map(|reader| {
            let position = reader.position.ok_or("is read by a body")?;
            site(graph, types, uses, reader.node_idx, position)
        })
        .collect::<Result<_, String>>()?;
    let first = sites.first().ok_or("is read by nothing")?.product.matrices;
    if sites.iter().any(|site| site.product.matrices != first) {
        return Err("has products that sum over several of its axes".to_string());
    }
    if first.n_columns > MOST_COLUMNS {
        return Err(format!("sums over {} inputs; up to {MOST_COLUMNS} can be fitted together", first.n_columns));
    }
    let mut gone = vec![false; first.n_columns];
    for (member, units) in members {
        let n_per_index = columns_of_index(&sites[0].product, tensor.shape(), member.axis);
        let n_per_index = n_per_index.ok_or("is no matrix of what goes")?;
        for index in units.iter().flat_map(|&unit| member.of_unit(unit)) {
            gone[index * n_per_index..(index + 1) * n_per_index].fill(true);
        }
    }
    Ok(Item { name: name.clone(), gone, sites })
}

/// How many neighbouring columns of the matrix belong to an index of the weight's axis; none where that axis is not summed over alone.
fn columns_of_index(product: &Product, shape: &[usize], axis: usize) -> Option<usize> {
    let matrices = &product.matrices;
    let (&size, inner) = (shape.get(axis)?, shape.get(axis + 1..)?.iter().product::<usize>());
    let n_per_index = matrices.n_columns.checked_div(size)?;
    let is_whole = matrices.n_groups == 1 && n_per_index * size == matrices.n_columns;
    let is_along = |column: usize| {
        matrices.position(0, 0, column) == column / n_per_index.max(1) * inner + column % n_per_index.max(1)
    };
    (is_whole && (0..matrices.n_columns).all(is_along)).then_some(n_per_index)
}

fn site(graph: &Graph, types: &Types, uses: &Uses<'_>, node_idx: usize, position: usize) -> Result<Site, String> {
    let node = &graph.nodes[node_idx];
    let product =
        product(graph, types, node_idx, position).map_err(|reason| format!("meets {}: {reason}", node.label()))?;
    let alpha = match &node.op {
        Op::Gemm(gemm) => f64::from(gemm.alpha),
        _ => 1.0,
    };
    let n_outputs = product.matrices.n_rows;
    let facts = axes(node, types);
    let weight = facts.weights.iter().find(|weight| weight.position == position);
    let made = weight.and_then(|weight| {
        let own = Slot { port: Port::Input(position), axis: weight.output_axis };
        Some(facts.ties.iter().find(|tie| tie.a == own && tie.b.port == Port::Output(0))?.b.axis)
    });
    let place = made.and_then(|axis| offset(graph, types, uses, node_idx, axis, n_outputs).ok());
    // A bias that is not there, or not for this product alone, would change the network's structure, and its groups.
    let bias = place.and_then(|place| {
        let name = graph.nodes[place.node_idx].input(place.position)?;
        let n_channels = constant(graph, name)?.shape().iter().rev().nth(place.from_last).copied()?;
        let is_own = uses.readers(name).len() == 1 && !uses.is_output(name);
        (is_own && n_channels == n_outputs).then(|| (name.clone(), place))
    });
    Ok(Site { node_idx, product, alpha, bias })
}

impl Task {
    /// Whether there is nothing to fit.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The values that a network must give to [`compensate()`], in this order.
    pub fn values(&self) -> Vec<Name> {
        moments::values(self.products())
    }

    /// The task in parts, in its order, each with moments of no more than so many bytes where more than one weight is in it.
    pub fn parts(&self, most_bytes: usize) -> Vec<Task> {
        let parts = moments::parts(&self.items, Item::products, most_bytes);
        parts.into_iter().map(|items| Task { items, silenced: Vec::new(), declined: Vec::new() }).collect()
    }

    fn products(&self) -> impl Iterator<Item = &Product> {
        self.items.iter().flat_map(Item::products)
    }
}

impl Item {
    fn products(&self) -> impl Iterator<Item = &Product> {
        self.sites.iter().map(|site| &site.product)
    }
}

/// A network whose weights make up for units that are still there.
#[derive(Clone, Debug)]
pub struct Compensated {
    /// The network: the same nodes and shapes, so that the same groups and types hold. The weights of the inputs that go are zero.
    pub graph: Graph,
    /// The weights that were fitted, in the order of the task.
    pub weights: Vec<CompensatedWeight>,
    /// Those that were not.
    pub declined: Vec<Declined>,
}

/// A weight that was fitted, and what its products make: mean squares, summed over channels, on what the unpruned network gives them
/// to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompensatedWeight {
    /// The weight.
    pub name: Name,
    /// Of what its products make, biases not counted.
    pub power: f64,
    /// Of how it changes when the inputs go and nothing else is done.
    pub error_before: f64,
    /// Of how it changes as the weights are now.
    pub error_after: f64,
}

/// Fits the weights of a task. `network` is the unpruned network and gives [`Task::values`] in their order; `graph` is the same
/// network, in which other parts may be fitted already; `told` gets the number of samples that are done.
///
/// Each weight is fitted to what the unpruned network reads. A weight behind a layer that normalises over the units sees other
/// numbers once they are gone; it is fitted to those before.
///
/// # Errors
/// When there are no samples, the network cannot be run, a value is no finite number, or `damping` is none that is above zero.
pub fn compensate<E: From<PruneError> + From<ObserveError>>(
    graph: &Graph,
    task: &Task,
    damping: f64,
    network: &mut dyn Forward,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<Compensated, E> {
    check(damping)?;
    if task.is_empty() {
        return Ok(Compensated { graph: graph.clone(), weights: Vec::new(), declined: task.declined.clone() });
    }
    let grams = grams(network, task.products(), batches, told)?;
    Ok(compensated_by(graph, task, damping, &grams)?)
}

/// As [`compensate`], weight after weight in the order of the graph, each to what the network gives it to read whose earlier weights are
/// fitted and without units already, and so that its products make what those of the unpruned network make: errors of one layer are
/// made good in the next (He et al., "Channel Pruning", 2017, section 3.2). The data are run through both networks once for each weight.
///
/// A layer that normalises over the units still sees those that go; what their removal changes there is not made good.
///
/// `graph` is the unpruned network. `shown` gives a network that gives these values, and the data; `told` gets how many weights are
/// done, and the number of samples of the next.
///
/// # Errors
/// As [`compensate`].
pub fn compensate_in_order<E, B>(
    graph: &Graph,
    task: &Task,
    damping: f64,
    mut shown: impl FnMut(&Graph, &[Name]) -> Result<(Box<dyn Forward>, B), E>,
    mut told: impl FnMut(usize, u64),
) -> Result<Compensated, E>
where
    E: From<PruneError> + From<ObserveError>,
    B: IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
{
    check(damping)?;
    let n_columns = |item: &&Item| item.sites[0].product.matrices.n_columns;
    let (mut items, wide): (Vec<&Item>, Vec<&Item>) =
        task.items.iter().partition(|item| n_columns(item) <= MOST_COLUMNS_IN_ORDER);
    items.sort_by_key(|item| item.sites.iter().map(|site| site.node_idx).min());
    let mut out = Compensated { graph: zeroed(graph, task)?, weights: Vec::new(), declined: task.declined.clone() };
    out.declined.extend(wide.iter().map(|item| Declined {
        name: item.name.clone(),
        reason: format!(
            "sums over {} inputs; up to {MOST_COLUMNS_IN_ORDER} can be fitted in order, {MOST_COLUMNS} together",
            n_columns(item)
        ),
    }));
    for (n_done, item) in items.into_iter().enumerate() {
        let mut seen = Seen::apart(item);
        for site in &item.sites {
            let value = [site.product.read.value.clone()];
            let (mut whole, batches) = shown(graph, &value)?;
            let (mut own, _) = shown(&out.graph, &value)?;
            let told = |n_samples: u64| told(n_done, n_samples);
            seen.add_pair(site, &pair([whole.as_mut(), own.as_mut()], &site.product, batches, told)?);
        }
        let mut patch = Patch::new(&out.graph);
        let tensor = graph.constant(&item.name).expect("the graph has the constants of the task");
        out.weights.push(put(&mut patch, graph, item, tensor, damping, &seen)?);
        out.graph = patch.apply(None).map_err(PruneError::from)?;
    }
    Ok(out)
}

/// The graph with zeros in the place of what is read of units that go.
fn zeroed(graph: &Graph, task: &Task) -> Result<Graph, PruneError> {
    let mut patch = Patch::new(graph);
    for item in &task.items {
        let tensor = graph.constant(&item.name).expect("the graph has the constants of the task");
        let matrices = item.sites[0].product.matrices;
        let mut numbers = tensor.as_slice::<f32>()?.to_vec();
        for column in (0..matrices.n_columns).filter(|&column| item.gone[column]) {
            (0..matrices.n_rows).for_each(|row| numbers[matrices.position(0, row, column)] = 0.0);
        }
        patch.replace_initializer(&item.name, Tensor::new(tensor.shape(), numbers)?);
    }
    let mut by_name: IndexMap<&Name, Vec<&Silenced>> = IndexMap::new();
    task.silenced.iter().for_each(|slices| by_name.entry(&slices.name).or_default().push(slices));
    for (name, slices) in by_name {
        let tensor = graph.constant(name).expect("the graph has the constants of the task");
        let mut numbers = tensor.as_slice::<f32>()?.to_vec();
        slices.iter().for_each(|slices| slices.silence(tensor.shape(), &mut numbers));
        patch.replace_initializer(name, Tensor::new(tensor.shape(), numbers)?);
    }
    Ok(patch.apply(None)?)
}

impl Silenced {
    /// Zeros in the place of the slices.
    fn silence(&self, shape: &[usize], numbers: &mut [f32]) {
        let inner: usize = shape[self.axis + 1..].iter().product();
        let size = shape[self.axis];
        for (position, number) in numbers.iter_mut().enumerate() {
            if self.indices.contains(&(position / inner.max(1) % size)) {
                *number = 0.0;
            }
        }
    }
}

fn check(damping: f64) -> Result<(), PruneError> {
    if damping > 0.0 && damping.is_finite() {
        return Ok(());
    }
    let problem = format!("is {damping}; give a number above 0, such as {DAMPING}");
    Err(PruneError::Option { option: "damping", problem })
}

fn compensated_by(graph: &Graph, task: &Task, damping: f64, grams: &[Gram]) -> Result<Compensated, PruneError> {
    let mut patch = Patch::new(graph);
    let mut weights = Vec::with_capacity(task.items.len());
    for item in &task.items {
        let tensor = graph.constant(&item.name).expect("the graph has the constants of the task");
        weights.push(put(&mut patch, graph, item, tensor, damping, &Seen::alike(item, grams))?);
    }
    Ok(Compensated { graph: patch.apply(None)?, weights, declined: task.declined.clone() })
}

/// Fits a weight, and puts it and the biases of its products in.
fn put(
    patch: &mut Patch,
    graph: &Graph,
    item: &Item,
    tensor: &Tensor,
    damping: f64,
    seen: &Seen,
) -> Result<CompensatedWeight, PruneError> {
    let Fitted { numbers, shifts, power, error_before, error_after } =
        fitted(item, tensor.as_slice::<f32>()?, damping, seen);
    patch.replace_initializer(&item.name, Tensor::new(tensor.shape(), numbers)?);
    for (site, shifts) in item.sites.iter().zip(&shifts) {
        let Some((name, place)) = &site.bias else { continue };
        let bias = graph.constant(name).expect("the graph has the constants of the task");
        patch.replace_initializer(name, shifted(bias, place, site.alpha, shifts)?);
    }
    Ok(CompensatedWeight { name: item.name.clone(), power, error_before, error_after })
}

/// A bias with a number added for each channel.
fn shifted(bias: &Tensor, place: &Offset, alpha: f64, shifts: &[f64]) -> Result<Tensor, PruneError> {
    let shape = bias.shape();
    let inner: usize = shape[shape.len() - place.from_last..].iter().product();
    let numbers = bias.as_slice::<f32>()?.iter().enumerate().map(|(idx, &number)| {
        let shift = shifts[idx / inner.max(1) % shifts.len()];
        (f64::from(number) + alpha * shift / place.factor) as f32
    });
    Ok(Tensor::new(shape, numbers.collect())?)
}
