//! What units give on data: how large it is, and how often it is zero.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::{Criterion, Unranked, add_over_mean};
use crate::compress::observe::channels::ChannelStatistics;
use crate::graph::axes::{self, Port, Slot};
use crate::graph::shape::Types;
use crate::graph::structure::groups::{Group, Member, Role};
use crate::graph::{Graph, Name};

/// What must be seen of a network for [`by_activations`], each value with the axis of its units: what the products read that
/// sum over a group's units, so behind activation functions and normalisations. `types` and `groups` are the graph's.
///
/// A group that no product sums over gives nothing.
pub fn activation_values(graph: &Graph, types: &Types, groups: &[Group]) -> IndexMap<Name, usize> {
    let mut summed: HashSet<(&Name, usize)> = HashSet::new();
    for node in &graph.nodes {
        for (one, other) in axes::axes(node, types).contracted {
            for Slot { port, axis } in [one, other] {
                let name = match port {
                    Port::Input(position) => node.input(position),
                    Port::Output(_) | Port::Bundle(_) => None,
                };
                summed.extend(name.map(|name| (name, axis)));
            }
        }
    }
    let mut values = IndexMap::new();
    for member in groups.iter().flat_map(|group| group.with_role(Role::Inner)) {
        if summed.contains(&(&member.value, member.axis)) {
            values.entry(member.value.clone()).or_insert(member.axis);
        }
    }
    values
}

/// A number for each unit of each group, by what was seen of its values: those of [`activation_values`].
///
/// For `activation` it is the sum, over the group's values, of the mean magnitude of what belongs to the unit, divided by the
/// mean over the group's units; for `apoz` the mean, over the values, of the share that is not zero.
///
/// # Errors
/// A group's, when none of its values was seen, when one has other channels than the group, and for criteria that are not
/// told by activations.
pub fn by_activations(
    groups: &[Group],
    seen: &IndexMap<Name, ChannelStatistics>,
    criterion: Criterion,
) -> Vec<Result<Vec<f64>, Unranked>> {
    groups.iter().map(|group| of_group(group, seen, criterion)).collect()
}

fn of_group(
    group: &Group,
    seen: &IndexMap<Name, ChannelStatistics>,
    criterion: Criterion,
) -> Result<Vec<f64>, Unranked> {
    let is_magnitude = match criterion {
        Criterion::Activation => true,
        Criterion::Apoz => false,
        Criterion::L1 | Criterion::L2 | Criterion::First | Criterion::Random | Criterion::BatchNorm => {
            return Err(Unranked::by_other_means(group, criterion));
        }
        Criterion::Fpgm | Criterion::Lamp | Criterion::Taylor | Criterion::Fisher | Criterion::Movement => {
            return Err(Unranked::by_other_means(group, criterion));
        }
    };
    let unranked = |weight: &Name, problem, remedy| {
        Err(Unranked { group: group.name().clone(), weight: weight.clone(), problem, remedy })
    };
    let own = group.with_role(Role::Inner);
    let own: Vec<(&Member, &ChannelStatistics)> = own
        .filter_map(|member| Some((member, seen.get(&member.value).filter(|seen| seen.axis == member.axis)?)))
        .collect();
    if own.is_empty() {
        return unranked(group.name(), "makes units that no product sums over", "use a criterion of weights");
    }
    let mut total = vec![0f64; group.n_units];
    for (member, statistics) in &own {
        if statistics.n_channels() != member.size {
            return unranked(&member.value, "was seen with another number of channels", "look at the same network");
        }
        let of_channel = |&channel: &usize| match is_magnitude {
            true => statistics.mean_magnitude(channel),
            false => 1.0 - statistics.share_of_zeros(channel),
        };
        let of_unit = |unit| member.of_unit(unit).iter().map(of_channel).sum::<f64>() / member.n_per_unit as f64;
        let numbers: Vec<f64> = (0..group.n_units).map(of_unit).collect();
        match is_magnitude {
            true => add_over_mean(&mut total, &numbers),
            false => total.iter_mut().zip(&numbers).for_each(|(total, share)| *total += share / own.len() as f64),
        }
    }
    Ok(total)
}
