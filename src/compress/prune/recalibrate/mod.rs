//! Statistics set right after units are gone, on data and without training: what is left of a network sees other numbers than the
//! whole one did.
//!
//! | what | of |
//! |---|---|
//! | [`batch_norms()`] | the running means and variances of BatchNormalization nodes, measured anew (as Li et al., "EagleEye" (2020), section 3.3, have it) |
//! | [`match_outputs()`] | the biases of products, and their weights' scale if asked, where normalisations are folded into them: what each channel makes gets the mean, or mean and spread, that it had in the whole network |
//!
//! What one place changes, the places behind it see. So places are set right in the order of the graph: those that no other comes
//! before in a first pass over the data, those behind them in a second, and so on.

mod place;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compensate::Declined;
use super::{PruneError, Selection};
use crate::compress::observe::ObserveError;
use crate::compress::observe::channels::{ChannelStatistics, measure};
use crate::graph::patch::Patch;
use crate::graph::probe::Forward;
use crate::graph::shape::Types;
use crate::graph::structure::groups::Groups;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};
use place::{Normalisation, Output, Places, applied, normalisations, outputs};

/// What of a channel's numbers is to be as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// Their mean.
    #[default]
    Mean,
    /// Their mean and their standard deviation, which grows or shrinks no more than fourfold.
    Spread,
}

/// The most that a channel is scaled by.
const MOST_SCALE: f64 = 4.0;

/// A network with statistics set right.
#[derive(Clone, Debug)]
pub struct Recalibrated {
    /// The network.
    pub graph: Graph,
    /// The nodes that were set right, in the order in which they were.
    pub done: Vec<String>,
    /// Those that were not, and why.
    pub declined: Vec<Declined>,
    /// How often the data were run through the smaller network.
    pub n_passes: usize,
}

/// Measures what each BatchNormalization of inference reads, and lets it normalise by that: by the mean and the variance of all
/// elements of a channel on the data. `shown` gives a network that gives these values, and the data, once for each pass; `told` hears
/// how many samples of a pass are done.
///
/// # Errors
/// When no such node can be set right, the network cannot be run, or a value is no finite number.
pub fn batch_norms<E, B>(
    graph: &Graph,
    mut shown: impl FnMut(&Graph, &[Name]) -> Result<(Box<dyn Forward>, B), E>,
    mut told: impl FnMut(u64),
) -> Result<Recalibrated, E>
where
    E: From<PruneError> + From<ObserveError>,
    B: IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
{
    let places = normalisations(graph);
    check(&places, "the network has no BatchNormalization")?;
    let mut out = Recalibrated { graph: graph.clone(), done: Vec::new(), declined: places.declined, n_passes: 0 };
    for level in &places.levels {
        let values = level.iter().map(|place| (place.input.clone(), 1)).collect();
        let seen = pass(&out.graph, &values, &mut shown, &mut told)?;
        out.graph = normalised(&out.graph, level, &seen)?;
        out.done.extend(level.iter().map(|place| graph.nodes[place.node_idx].label()));
        out.n_passes += 1;
    }
    Ok(out)
}

/// The network as it was, and what went.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The whole network.
    pub graph: &'a Graph,
    /// Its groups.
    pub groups: &'a Groups,
    /// The units of them that are gone.
    pub selection: &'a Selection,
}

/// Shifts, and scales if asked, what each product of a smaller network makes, so that its channels look as in the whole one. A Conv
/// or Gemm without a bias gets one. `shown` gives a network that gives these values, and the data: of the whole one once, of the
/// smaller one for each pass; `told` hears how many samples of a pass are done.
///
/// # Errors
/// As [`batch_norms`].
pub fn match_outputs<E, B>(
    whole: Before<'_>,
    graph: &Graph,
    types: &Types,
    what: Match,
    mut shown: impl FnMut(&Graph, &[Name]) -> Result<(Box<dyn Forward>, B), E>,
    mut told: impl FnMut(u64),
) -> Result<Recalibrated, E>
where
    E: From<PruneError> + From<ObserveError>,
    B: IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
{
    let places = outputs(graph, types, what);
    check(&places, "the network has no Conv, Gemm or MatMul of a constant")?;
    let values: IndexMap<Name, usize> =
        places.levels.iter().flatten().map(|place| (place.value.clone(), place.axis)).collect();
    let before = pass(whole.graph, &values, &mut shown, &mut told)?;
    let mut out = Recalibrated { graph: graph.clone(), done: Vec::new(), declined: places.declined, n_passes: 0 };
    for level in &places.levels {
        let values = level.iter().map(|place| (place.value.clone(), place.axis)).collect();
        let after = pass(&out.graph, &values, &mut shown, &mut told)?;
        let mut moved = Vec::with_capacity(level.len());
        for place in level {
            match moves(whole, place, &before, &after, what) {
                Ok(moves) => {
                    moved.push((place, moves));
                    out.done.push(graph.nodes[place.node_idx].label());
                }
                Err(reason) => {
                    out.declined.push(Declined { name: place.value.clone(), reason: reason.to_string() });
                }
            }
        }
        out.graph = applied(&out.graph, &moved)?;
        out.n_passes += 1;
    }
    Ok(out)
}

/// That there is something to set right.
fn check<T>(places: &Places<T>, none: &str) -> Result<(), PruneError> {
    if !places.levels.is_empty() {
        return Ok(());
    }
    let reason = match places.declined.first() {
        Some(Declined { name, reason }) => format!("{name} {reason}"),
        None => none.to_string(),
    };
    Err(PruneError::NothingToRecalibrate { reason })
}

/// What the channels of these values look like on the data.
fn pass<E, B>(
    graph: &Graph,
    values: &IndexMap<Name, usize>,
    shown: &mut impl FnMut(&Graph, &[Name]) -> Result<(Box<dyn Forward>, B), E>,
    told: &mut impl FnMut(u64),
) -> Result<IndexMap<Name, ChannelStatistics>, E>
where
    E: From<ObserveError>,
    B: IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
{
    let names: Vec<Name> = values.keys().cloned().collect();
    let (mut network, batches) = shown(graph, &names)?;
    measure(network.as_mut(), values, batches, told)
}

fn normalised(
    graph: &Graph,
    level: &[Normalisation],
    seen: &IndexMap<Name, ChannelStatistics>,
) -> Result<Graph, PruneError> {
    let mut patch = Patch::new(graph);
    for place in level {
        let Some(seen) = seen.get(&place.input) else { continue };
        let channels = 0..seen.n_channels();
        let means = channels.clone().map(|channel| seen.mean(channel) as f32).collect();
        let variances = channels.map(|channel| seen.standard_deviation(channel).powi(2) as f32).collect();
        patch.replace_initializer(&place.mean, Tensor::vector::<f32>(means));
        patch.replace_initializer(&place.variance, Tensor::vector::<f32>(variances));
    }
    Ok(patch.apply(None)?)
}

/// What is to be done to the channels of a place; why not, where it cannot be told.
fn moves(
    whole: Before<'_>,
    place: &Output,
    before: &IndexMap<Name, ChannelStatistics>,
    after: &IndexMap<Name, ChannelStatistics>,
    what: Match,
) -> Result<Vec<Move>, &'static str> {
    let (before, after) = before.get(&place.value).zip(after.get(&place.value)).ok_or("has no elements")?;
    let kept = kept(whole.groups, whole.selection, &place.value, place.axis);
    let kept = kept.unwrap_or_else(|| (0..before.n_channels()).collect());
    let fits = kept.len() == after.n_channels() && kept.iter().all(|&channel| channel < before.n_channels());
    if !fits || kept.len() != place.n_channels {
        return Err("has channels that are not those of the whole network");
    }
    Ok(kept.iter().enumerate().map(|(own, &of_whole)| Move::of(before, of_whole, after, own, what)).collect())
}

/// The channels that stay of those that a value has in the whole network; none where none of them go.
fn kept(groups: &Groups, selection: &Selection, value: &Name, axis: usize) -> Option<Vec<usize>> {
    let mut gone: Option<Vec<bool>> = None;
    for (group, units) in groups.groups.iter().zip(&selection.units) {
        for member in group.members.iter().filter(|member| member.value == *value && member.axis == axis) {
            let gone = gone.get_or_insert_with(|| vec![false; member.size]);
            units.iter().flat_map(|&unit| member.of_unit(unit)).for_each(|&index| gone[index] = true);
        }
    }
    let gone = gone?;
    Some((0..gone.len()).filter(|&channel| !gone[channel]).collect())
}

/// How a channel is set right: it is scaled, then shifted.
#[derive(Clone, Copy, Debug)]
struct Move {
    scale: f64,
    shift: f64,
}

impl Move {
    fn of(before: &ChannelStatistics, of_whole: usize, after: &ChannelStatistics, own: usize, what: Match) -> Move {
        let [wanted, has] = [before.standard_deviation(of_whole), after.standard_deviation(own)];
        let scale = match what {
            Match::Spread if has > 0.0 && wanted > 0.0 => (wanted / has).clamp(1.0 / MOST_SCALE, MOST_SCALE),
            Match::Spread | Match::Mean => 1.0,
        };
        Move { scale, shift: before.mean(of_whole) - scale * after.mean(own) }
    }
}
