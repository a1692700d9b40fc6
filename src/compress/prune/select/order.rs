//! In which order units go, within limits.

use super::{Limits, PruneError, Scope, Selection};
use crate::graph::structure::groups::{Group, Groups, Role};

/// Units of one group that go together: one, or as many as lie between two widths that the limits allow.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The group's position.
    pub group_idx: usize,
    /// Which of its units, the least important first.
    pub units: Vec<usize>,
    /// How many of them go before.
    pub n_before: usize,
    /// How many the group has.
    pub n_of_group: usize,
    /// The mean of their importance.
    pub importance: f64,
}

/// Everything that can go, what goes first before what goes later. A part of it is one that goes together: a step, or locally all
/// steps that the same share takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    parts: Vec<Vec<Step>>,
    n_groups: usize,
    n_units: usize,
}

impl Order {
    /// How many parts there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether nothing can go.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The units of all groups that have importance, whether they can go or not.
    pub fn n_units(&self) -> usize {
        self.n_units
    }

    /// Every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.parts.iter().flatten()
    }

    /// The units of the first `n` parts.
    pub fn prefix(&self, n: usize) -> Selection {
        self.selection(self.parts.iter().take(n).flatten())
    }

    /// The units of these steps.
    pub fn selection<'a>(&self, steps: impl IntoIterator<Item = &'a Step>) -> Selection {
        let mut units = vec![Vec::new(); self.n_groups];
        for step in steps {
            if let Some(units) = units.get_mut(step.group_idx) {
                units.extend_from_slice(&step.units);
            }
        }
        units.iter_mut().for_each(|units: &mut Vec<usize>| units.sort_unstable());
        Selection { units }
    }
}

/// The order in which units go that limits allow to go. Globally the mean importance of a step decides; locally the share of
/// a group's units that goes before it.
///
/// # Errors
/// When a limit is out of its range, `importance` is not of these groups or holds what is no finite number, and when no group
/// has any.
pub fn order(
    groups: &Groups,
    importance: &[Option<Vec<f64>>],
    scope: Scope,
    limits: &Limits,
) -> Result<Order, PruneError> {
    limits.check()?;
    let groups = &groups.groups;
    let fits = |(group, numbers): (&Group, &Option<Vec<f64>>)| {
        numbers.as_ref().is_none_or(|n| n.len() == group.n_units && n.iter().all(|number| number.is_finite()))
    };
    if importance.len() != groups.len() || !groups.iter().zip(importance).all(fits) {
        let problem = "should have a finite number for each unit of each group of the network".to_string();
        return Err(PruneError::Option { option: "importance", problem });
    }
    let ranked = || groups.iter().enumerate().zip(importance).filter_map(|(at, numbers)| Some((at, numbers.as_ref()?)));
    if ranked().next().is_none() {
        return Err(PruneError::Nothing { reason: "no group that can lose units is asked for".to_string() });
    }
    let n_units = ranked().map(|((_, group), _)| group.n_units).sum();
    let mut steps: Vec<Step> =
        ranked().flat_map(|((group_idx, group), numbers)| limits.steps(group_idx, group, numbers)).collect();
    let parts = match scope {
        Scope::Global => {
            let key = |step: &Step| (step.importance, std::cmp::Reverse(step.group_idx));
            steps.sort_by(|one, other| {
                let (one, other) = (key(one), key(other));
                one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))
            });
            steps.into_iter().map(|step| vec![step]).collect()
        }
        Scope::Local => {
            // By `n_before / n_of_group`, exactly.
            let compare = |one: &Step, other: &Step| {
                let cross = |a: &Step, b: &Step| a.n_before as u128 * b.n_of_group as u128;
                cross(one, other).cmp(&cross(other, one))
            };
            steps.sort_by(compare);
            steps.chunk_by(|one, other| compare(one, other).is_eq()).map(<[Step]>::to_vec).collect()
        }
    };
    Ok(Order { parts, n_groups: groups.len(), n_units })
}

impl Limits {
    /// # Errors
    /// When one is out of its range.
    fn check(&self) -> Result<(), PruneError> {
        if self.round_to == 0 {
            return Err(PruneError::Option { option: "round_to", problem: "is 0; give a number of at least 1".into() });
        }
        if !(0.0..=1.0).contains(&self.max_share) {
            let problem = format!("is {}; give a share from 0 to 1", self.max_share);
            return Err(PruneError::Option { option: "max_share", problem });
        }
        Ok(())
    }

    /// What can go of a group, step by step.
    fn steps(&self, group_idx: usize, group: &Group, numbers: &[f64]) -> Vec<Step> {
        let mut units: Vec<usize> = (0..group.n_units).rev().collect();
        units.sort_by(|&one, &other| numbers[one].total_cmp(&numbers[other]));
        let mut n_before = 0;
        let step = |width: usize| {
            let n_gone = group.n_units - width;
            let units = units[n_before..n_gone].to_vec();
            let importance = units.iter().map(|&unit| numbers[unit]).sum::<f64>() / units.len() as f64;
            let step = Step { group_idx, units, n_before, n_of_group: group.n_units, importance };
            n_before = n_gone;
            step
        };
        self.widths(group).into_iter().map(step).collect()
    }

    /// How many units a group that loses some may have left, descending.
    pub fn widths(&self, group: &Group) -> Vec<usize> {
        self.widths_of(group.n_units, slices_per_unit(group))
    }

    /// The same for so many units, of each of which so many slices go of every weight.
    pub(in crate::compress::prune) fn widths_of(&self, n: usize, slices_per_unit: usize) -> Vec<usize> {
        // a product such as 0.3 · 10 that is a little below a whole number is that number
        let n_most = (n as f64 * self.max_share * (1.0 + 1e-12)) as usize;
        let least = self.min_width.max(1).max(n.saturating_sub(n_most));
        let multiple = self.round_to / common_divisor(self.round_to, slices_per_unit);
        (least..n).rev().filter(|width| width.is_multiple_of(multiple)).collect()
    }
}

/// The greatest number of slices that divides what goes with a unit of every weight.
fn slices_per_unit(group: &Group) -> usize {
    let weights = group.with_role(Role::Made).chain(group.with_role(Role::Summed));
    weights.map(|member| member.n_per_unit).fold(0, common_divisor).max(1)
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
