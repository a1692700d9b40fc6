//! Which units go: the least important, until enough is gone.

mod asked;
mod meter;
mod order;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PruneError;
use crate::graph::Graph;
use crate::graph::shape::Types;
use crate::graph::structure::groups::Groups;
use crate::graph::structure::removal::{Removal, remove};
use meter::{Measure, Meter};

pub use meter::sizes;

pub use asked::asked;
pub use order::{Order, Step, order};

/// How much is to go, as a share of what there is before: at least that much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Of the units: of each group locally, of all together globally. Groups without importance do not count.
    Channels(f64),
    /// Of the multiplications of a run.
    Macs(f64),
    /// Of the parameters.
    Params(f64),
    /// Of the bytes of the weights.
    Bytes(f64),
}

/// Among which units the least important are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Each group gives the same share of its units, rounded up.
    Local,
    /// All units: their numbers are taken as they are, see [`comparable`](crate::compress::importance::comparable).
    #[default]
    Global,
}

/// What a selection must leave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The units that each group keeps at least, where it has so many; one of each stays in any case.
    pub min_width: usize,
    /// The units that stay in a group that loses some are a multiple of this: what the runtime's kernels are quick with. Where
    /// several slices of every weight go with a unit, as with heads, these are counted.
    pub round_to: usize,
    /// The most of a group's units that go, as a share.
    pub max_share: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { min_width: 1, round_to: 1, max_share: 1.0 }
    }
}

/// Units to take out, by group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// For each group of the network, in its order, the units that go, ascending.
    pub units: Vec<Vec<usize>>,
}

impl Selection {
    /// What [`remove`] takes; groups that lose nothing are not in it. `groups` are those of the selection.
    pub fn removals<'a>(&'a self, groups: &'a Groups) -> Vec<Removal<'a>> {
        let removals = groups.groups.iter().zip(&self.units);
        removals.filter(|(_, units)| !units.is_empty()).map(|(group, units)| Removal { group, units }).collect()
    }

    /// How many units go.
    pub fn n_units(&self) -> usize {
        self.units.iter().map(Vec::len).sum()
    }

    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.n_units() == 0
    }
}

/// The units whose importance is least, so many as make up the amount and, within the limits, no more. `importance` has a
/// number for each unit of each group, and none for a group that stays as it is. Of equals the later ones go first.
///
/// Locally a group of which the limits leave less than its share gives what they leave. What is multiplied, held and stored is
/// counted by [`cost`](crate::graph::cost::cost) in the network without the units, the symbols in its inputs' shapes at the
/// sizes that `types` give them, else at one.
///
/// # Errors
/// When the amount is no share, or cannot be reached within the limits.
pub fn select(
    graph: &Graph,
    types: &Types,
    groups: &Groups,
    importance: &[Option<Vec<f64>>],
    amount: Amount,
    scope: Scope,
    limits: &Limits,
) -> Result<Selection, PruneError> {
    let (option, share, measure) = match amount {
        Amount::Channels(share) => ("channels", share, None),
        Amount::Macs(share) => ("macs", share, Some(Measure::Macs)),
        Amount::Params(share) => ("params", share, Some(Measure::Parameters)),
        Amount::Bytes(share) => ("bytes", share, Some(Measure::Bytes)),
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(PruneError::Option { option, problem: format!("is {share}; give a share from 0 to 1") });
    }
    let order = order(groups, importance, scope, limits)?;
    let Some(measure) = measure else { return by_units(&order, share, scope) };
    if share == 0.0 {
        return Ok(order.prefix(0));
    }
    by_cost(&order, &Meter::new(graph, types, groups, measure)?, option, share)
}

/// The smallest part of an order that is enough. `is_enough` gets the network without the units of a part; more of an order must
/// never be less than enough.
///
/// # Errors
/// When even the whole order is not enough, units cannot be taken out, or `is_enough` fails.
pub fn select_until(
    graph: &Graph,
    types: &Types,
    groups: &Groups,
    order: &Order,
    mut is_enough: impl FnMut(&Graph) -> Result<bool, PruneError>,
) -> Result<Selection, PruneError> {
    let mut holds = |n: usize| is_enough(&remove(graph, types, &order.prefix(n).removals(groups))?);
    match least(order.len(), &mut holds)? {
        Some(n) => Ok(order.prefix(n)),
        None => Err(PruneError::Amount {
            asked: "what is asked for".to_string(),
            reached: format!("{} of {} units", order.prefix(order.len()).n_units(), order.n_units()),
            remedy: LOOSEN,
        }),
    }
}

const LOOSEN: &str = "ask for less, or loosen `min_width`, `round_to` and `max_share`";

/// The least number up to `most` for which it holds, where it then holds for all greater ones, too.
fn least(most: usize, holds: &mut dyn FnMut(usize) -> Result<bool, PruneError>) -> Result<Option<usize>, PruneError> {
    if !holds(most)? {
        return Ok(None);
    }
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        match holds(middle)? {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Ok(Some(high))
}

/// A share of a whole number, rounded up; what is above a whole number by rounding alone is that number.
fn part_of(n: u64, share: f64) -> u64 {
    (n as f64 * share * (1.0 - 1e-12)).ceil() as u64
}

fn by_units(order: &Order, share: f64, scope: Scope) -> Result<Selection, PruneError> {
    match scope {
        Scope::Local => {
            let begins_below = |step: &&Step| (step.n_before as u64) < part_of(step.n_of_group as u64, share);
            let selection = order.selection(order.steps().filter(begins_below));
            match selection.is_empty() && share > 0.0 {
                true => Err(PruneError::Amount {
                    asked: format!("{:.1} % of every group", 100.0 * share),
                    reached: "0 units".to_string(),
                    remedy: LOOSEN,
                }),
                false => Ok(selection),
            }
        }
        Scope::Global => {
            let asked = part_of(order.n_units() as u64, share);
            let n_gone = |n: usize| order.prefix(n).n_units();
            match least(order.len(), &mut |n| Ok(n_gone(n) as u64 >= asked))? {
                Some(n) => Ok(order.prefix(n)),
                None => Err(PruneError::Amount {
                    asked: format!("{asked} of {} units", order.n_units()),
                    reached: n_gone(order.len()).to_string(),
                    remedy: LOOSEN,
                }),
            }
        }
    }
}

fn by_cost(order: &Order, meter: &Meter<'_>, option: &str, share: f64) -> Result<Selection, PruneError> {
    let asked = part_of(meter.whole(), share);
    let is_enough = |left: u64| meter.whole().saturating_sub(left) >= asked;
    let too_much = |left: u64| PruneError::Amount {
        asked: format!("{share} of the {option}"),
        reached: format!("{:.4}", meter.whole().saturating_sub(left) as f64 / meter.whole().max(1) as f64),
        remedy: LOOSEN,
    };
    let mut foretold = |n: usize| Ok(is_enough(meter.foretold(&order.prefix(n))));
    // What is foretold leaves out operands that are written anew: the removal itself decides.
    let mut n = least(order.len(), &mut foretold)?.unwrap_or(order.len());
    loop {
        let left = meter.left(&order.prefix(n))?;
        match (is_enough(left), n < order.len()) {
            (true, _) => break,
            (false, true) => n += 1,
            (false, false) => return Err(too_much(left)),
        }
    }
    while n > 0 && is_enough(meter.left(&order.prefix(n - 1))?) {
        n -= 1;
    }
    Ok(order.prefix(n))
}
