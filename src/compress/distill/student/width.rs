//! How many units of each group stay, and the network without the others.

use std::collections::BTreeSet;

use super::{Factors, GroupReport, Left, StudentError, StudentOptions, Width, counted};
use crate::compress::importance::{Unranked, importance, ranked};
use crate::graph::cost::Cost;
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::spelling::matches;
use crate::graph::structure::blocks::{Skip, structure};
use crate::graph::structure::groups::{Group, Groups, Kind, Role, groups};
use crate::graph::structure::removal::{Removal, remove};
use crate::graph::{Graph, Name};

/// A network without some of its units.
pub(super) struct Narrow {
    pub(super) graph: Graph,
    pub(super) groups: Vec<GroupReport>,
    pub(super) left: Vec<Left>,
    pub(super) factor: Option<f64>,
}

/// The network with the units that are to be kept. Shares are of the teacher.
pub(super) fn apply(
    teacher: &Graph,
    graph: Graph,
    options: &StudentOptions,
    sizes: &Bindings,
    seed: u64,
) -> Result<Narrow, StudentError> {
    let factors = match &options.width {
        Width::Factor(factor) => Factors { default: Some(*factor), ..Factors::default() },
        Width::Factors(factors) => factors.clone(),
    };
    if factors == (Factors { default: Some(1.0), ..Factors::default() }) || factors == Factors::default() {
        return Ok(Narrow { graph, groups: Vec::new(), left: Vec::new(), factor: None });
    }
    let types = infer(&graph, &Bindings::default())?;
    let found = groups(&graph, &types);
    let plan = Plan::new(&graph, &types, &found, &factors, options, seed)?;
    let mut narrow = match factors.has_budget() {
        true => plan.within(&factors, teacher, sizes)?,
        false => Narrow { graph: plan.cut(1.0)?, factor: None, groups: plan.reports(1.0), left: Vec::new() },
    };
    narrow.left = plan.left(&found);
    Ok(narrow)
}

/// The smallest number that is at least this part of another, and at least one where the other is.
pub(super) fn part_of(n: usize, part: f64) -> usize {
    // a product such as 0.1 · 30 that is a little above a whole number is that number
    ((n as f64 * part * (1.0 - 1e-12)).ceil() as usize).clamp(n.min(1), n)
}

/// The units that are not among the first `n_kept` of a ranking, ascending.
fn rest(ranking: &[usize], n_kept: usize) -> Vec<usize> {
    let mut rest = ranking.get(n_kept..).unwrap_or_default().to_vec();
    rest.sort_unstable();
    rest
}

/// What decides over a group.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// A factor for it, its kind or all groups.
    Factor(f64),
    /// The budget.
    Budget,
}

/// The groups with what decides over them, and their units ranked.
struct Plan<'a> {
    graph: &'a Graph,
    types: &'a Types,
    groups: &'a [Group],
    is_stream: Vec<bool>,
    rules: Vec<Rule>,
    rankings: Vec<Result<Vec<usize>, Unranked>>,
    divisor: usize,
    least: usize,
}

impl<'a> Plan<'a> {
    fn new(
        graph: &'a Graph,
        types: &'a Types,
        found: &'a Groups,
        factors: &Factors,
        options: &StudentOptions,
        seed: u64,
    ) -> Result<Plan<'a>, StudentError> {
        let entries = stream_entries(graph, types);
        let carries = |group: &Group| group.members.iter().any(|member| entries.contains(&member.value));
        let is_stream: Vec<bool> = found.groups.iter().map(carries).collect();
        let groups = found.groups.iter().zip(&is_stream);
        let keyed: Vec<(String, Rule)> = groups.map(|(group, &is_stream)| rule(group, is_stream, factors)).collect();
        check_keys(&keyed, factors, found)?;
        let ranking = |importance: Result<Vec<f64>, Unranked>| importance.map(|importance| ranked(&importance));
        let rankings: Vec<_> =
            importance(graph, types, &found.groups, options.criterion.into(), seed).into_iter().map(ranking).collect();
        for ((key, rule), ranking) in keyed.iter().zip(&rankings) {
            let is_named = key != DEFAULT && *rule != Rule::Factor(1.0);
            if let Some(unranked) = ranking.as_ref().err().filter(|_| is_named) {
                return Err(unranked.clone().into());
            }
        }
        let rules = keyed.into_iter().map(|(_, rule)| rule).collect();
        let StudentOptions { divisor, least, .. } = *options;
        Ok(Plan { graph, types, groups: &found.groups, is_stream, rules, rankings, divisor, least })
    }

    /// How many units of a group stay; `factor` is for the groups that the budget decides over.
    fn n_kept(&self, group_idx: usize, factor: f64) -> usize {
        let group = &self.groups[group_idx];
        let factor = match self.rules[group_idx] {
            Rule::Factor(factor) => factor,
            Rule::Budget => factor,
        };
        if factor >= 1.0 || self.rankings[group_idx].is_err() {
            return group.n_units;
        }
        let n_kept = part_of(group.n_units, factor);
        match group.kind {
            Kind::Heads => n_kept,
            Kind::Channels | Kind::Features | Kind::HiddenUnits => {
                n_kept.max(self.least).div_ceil(self.divisor).saturating_mul(self.divisor).min(group.n_units)
            }
        }
    }

    fn cut(&self, factor: f64) -> Result<Graph, StudentError> {
        let gone: Vec<Vec<usize>> = (0..self.groups.len())
            .map(|idx| self.rankings[idx].as_ref().map_or_else(|_| Vec::new(), |r| rest(r, self.n_kept(idx, factor))))
            .collect();
        let removals = self.groups.iter().zip(&gone).filter(|(_, units)| !units.is_empty());
        let removals: Vec<Removal<'_>> = removals.map(|(group, units)| Removal { group, units }).collect();
        if removals.is_empty() {
            return Ok(self.graph.clone());
        }
        Ok(remove(self.graph, self.types, &removals)?)
    }

    fn reports(&self, factor: f64) -> Vec<GroupReport> {
        let report = |(idx, group): (usize, &Group)| GroupReport {
            name: group.name().clone(),
            kind: group.kind,
            is_stream: self.is_stream[idx],
            n_before: group.n_units,
            n_after: self.n_kept(idx, factor),
        };
        self.groups.iter().enumerate().map(report).collect()
    }

    /// The widest student within the budget. Factors between which no group changes are one; over the others the budget is
    /// searched by halves: a smaller factor keeps some of the same units.
    fn within(&self, factors: &Factors, teacher: &Graph, sizes: &Bindings) -> Result<Narrow, StudentError> {
        let free = (0..self.groups.len()).filter(|&idx| self.rules[idx] == Rule::Budget);
        let sizes_of = free.map(|idx| self.groups[idx].n_units).collect::<BTreeSet<usize>>();
        let parts = sizes_of.into_iter().flat_map(|n| (1..=n).map(move |kept| kept as f64 / n as f64));
        let mut steps: Vec<f64> = parts.collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let whole = Costs::of(teacher, factors, sizes)?;
        let fits = |factor: f64| -> Result<Option<(&'static str, f64, f64)>, StudentError> {
            let costs = Costs::of(&self.cut(factor)?, factors, sizes)?;
            Ok(costs.exceeded(&whole, factors))
        };
        let Some(&least) = steps.first() else {
            return Err(StudentError::NoGroups { key: "width".to_string(), reasons: Vec::new() });
        };
        if let Some((key, asked, least)) = fits(least)? {
            return Err(StudentError::OutOfReach { key, asked, least });
        }
        // the step at `low` fits, that at `high` does not
        let (mut low, mut high) = (0, steps.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match fits(steps[middle])? {
                None => low = middle,
                Some(_) => high = middle,
            }
        }
        let factor = steps[low];
        Ok(Narrow { graph: self.cut(factor)?, groups: self.reports(factor), left: Vec::new(), factor: Some(factor) })
    }

    /// What no key could make smaller: refused units, and groups that cannot be ranked.
    fn left(&self, found: &Groups) -> Vec<Left> {
        let refused = found.refused.iter().map(|refused| Left {
            part: refused.weight.to_string(),
            n_units: Some(refused.n_units),
            reason: refused.reason.clone(),
        });
        let unranked = self.groups.iter().zip(&self.rankings).filter_map(|(group, ranking)| {
            let reason = format!("it {}", ranking.as_ref().err()?.reason());
            Some(Left { part: group.name().to_string(), n_units: Some(group.n_units), reason })
        });
        refused.chain(unranked).collect()
    }
}

/// What a residual connection carries on: the values that identity blocks and encoder layers read.
fn stream_entries(graph: &Graph, types: &Types) -> BTreeSet<Name> {
    let parts = structure(graph, types);
    let blocks = parts.residual_blocks.into_iter().filter(|block| block.skip == Skip::Identity);
    let layers = parts.encoder_layers.into_iter().map(|layer| layer.span);
    blocks.map(|block| block.span).chain(layers).map(|span| span.entry).collect()
}

/// The key of groups that nothing else is said of.
const DEFAULT: &str = "width";

/// What decides over a group, and by which key.
fn rule(group: &Group, is_stream: bool, factors: &Factors) -> (String, Rule) {
    let patterns = factors.groups.iter().filter(|(pattern, _)| is_named(group, pattern));
    if let Some((pattern, &factor)) = patterns.max_by_key(|(pattern, _)| pattern.len()) {
        return (pattern_key(pattern), Rule::Factor(factor));
    }
    let of_kind = match group.kind {
        Kind::Channels => ("channels", factors.channels),
        Kind::Features => ("features", factors.features),
        Kind::Heads => ("heads", factors.heads),
        Kind::HiddenUnits => ("states", factors.states),
    };
    let stream = ("stream", factors.stream.filter(|_| is_stream));
    for (key, factor) in [stream, of_kind] {
        if let Some(factor) = factor {
            return (format!("width.{key}"), Rule::Factor(factor));
        }
    }
    let rule = if factors.has_budget() { Rule::Budget } else { Rule::Factor(factors.default.unwrap_or(1.0)) };
    (DEFAULT.to_string(), rule)
}

fn pattern_key(pattern: &str) -> String {
    format!("width.groups.\"{pattern}\"")
}

fn is_named(group: &Group, pattern: &str) -> bool {
    group.with_role(Role::Made).any(|member| matches(pattern, &member.value))
}

/// Every key that asks for less must mean a group, or part of one: what another key takes before it is meant, too.
fn check_keys(keyed: &[(String, Rule)], factors: &Factors, found: &Groups) -> Result<(), StudentError> {
    let held = |keep: &dyn Fn(&str) -> bool| {
        let refused = found.refused.iter().filter(|refused| keep(&refused.weight));
        refused.map(ToString::to_string).collect::<Vec<String>>()
    };
    for (pattern, _) in factors.groups.iter().filter(|(_, factor)| **factor < 1.0) {
        if !found.groups.iter().any(|group| is_named(group, pattern)) {
            let reasons = held(&|weight| matches(pattern, weight));
            return Err(StudentError::NoGroups { key: pattern_key(pattern), reasons });
        }
    }
    let of_kind = |kind: Kind| found.groups.iter().any(|group| group.kind == kind);
    let is_used = |key: &str| keyed.iter().any(|(used, _)| used == key);
    let kinds = [
        ("width.stream", factors.stream, is_used("width.stream")),
        ("width.channels", factors.channels, of_kind(Kind::Channels)),
        ("width.heads", factors.heads, of_kind(Kind::Heads)),
        ("width.features", factors.features, of_kind(Kind::Features)),
        ("width.states", factors.states, of_kind(Kind::HiddenUnits)),
    ];
    for (key, factor, is_there) in kinds {
        if factor.is_some_and(|factor| factor < 1.0) && !is_there {
            return Err(StudentError::NoGroups { key: key.to_string(), reasons: held(&|_| true) });
        }
    }
    Ok(())
}

/// What a budget is about.
struct Costs {
    parameters: u64,
    macs: u64,
}

impl Costs {
    fn of(graph: &Graph, factors: &Factors, sizes: &Bindings) -> Result<Costs, StudentError> {
        let Cost { total, nodes, .. } = match factors.macs {
            Some(_) => counted(graph, sizes)?,
            None => crate::graph::cost::cost(graph, &Types::default()),
        };
        if let Some(node) = nodes.iter().find(|node| node.incomplete).filter(|_| factors.macs.is_some()) {
            return Err(StudentError::Uncounted { node: format!("{} `{}`", node.operator, node.output) });
        }
        Ok(Costs { parameters: total.parameters, macs: total.macs })
    }

    /// The key of the budget that these costs exceed, what it allows and what the share is.
    fn exceeded(&self, whole: &Costs, factors: &Factors) -> Option<(&'static str, f64, f64)> {
        let budgets = [
            ("width.parameters", factors.parameters, self.parameters, whole.parameters),
            ("width.macs", factors.macs, self.macs, whole.macs),
        ];
        budgets.into_iter().find_map(|(key, asked, cost, whole)| {
            let (asked, share) = (asked?, cost as f64 / whole.max(1) as f64);
            (share > asked).then_some((key, asked, share))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{matches, part_of};

    #[test]
    fn patterns_stand_for_names() {
        let yes =
            [("a.b", "a.b"), ("*", "a"), ("a.*", "a.b.c"), ("*.weight", "x.weight"), ("a*c*e", "abcde"), ("a*a", "aa")];
        let no = [("a.b", "a.c"), ("a.*", "b.a."), ("*.weight", "weight"), ("a*c*e", "abde"), ("a*a", "a"), ("", "a")];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn parts_are_rounded_up_and_never_none() {
        for (n, part, expected) in [(10, 0.25, 3), (30, 0.1, 3), (4, 0.01, 1), (7, 1.0, 7), (0, 0.5, 0), (3, 1e-300, 1)]
        {
            assert_eq!(part_of(n, part), expected, "{part} of {n}");
        }
    }
}
