//! How much a network is harmed by each group's losing units, the others whole: the curves from which amounts are solved
//! ([`solve`](super::budget::solve)).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::select::sizes;
use super::{Limits, PruneError, Selection};
use crate::graph::cost::cost;
use crate::graph::probe::Score;
use crate::graph::shape::{self, Bindings, ShapeError, Types};
use crate::graph::structure::groups::Groups;
use crate::graph::structure::removal::{Removal, RemovalError, remove};
use crate::graph::{Graph, Name};

/// What a network costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Multiplications with an addition.
    pub macs: u64,
    /// Parameters.
    pub params: u64,
    /// Bytes of the weights.
    pub bytes: u64,
}

impl Costs {
    /// What a graph costs, the symbols in its inputs' shapes at these sizes.
    ///
    /// # Errors
    /// When the types of the graph do not fit together.
    pub fn of(graph: &Graph, sizes: &Bindings) -> Result<Costs, ShapeError> {
        let total = cost(graph, &shape::infer(graph, sizes)?).total;
        Ok(Costs { macs: total.macs, params: total.parameters, bytes: total.weight_bytes })
    }
}

/// A network without some units of one group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// The units that are gone.
    pub units: usize,
    /// The same as a share of the group's.
    pub share: f64,
    /// The power of the change of the outputs over that of the outputs; the greatest number where they are no numbers any more.
    pub noise: f64,
    /// The share of labelled samples that it puts right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// What the whole network costs.
    pub costs: Costs,
}

/// What losing units does to one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// The group's place among those of the network.
    pub group: usize,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its units.
    pub n_units: usize,
    /// By number of units, from the least.
    pub points: Vec<Point>,
}

/// A group that loses nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// The group's place among those of the network.
    pub group: usize,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Why.
    pub reason: String,
}

/// What each group's units are worth to a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// How many groups the network has.
    pub n_groups: usize,
    /// What the whole network costs.
    pub costs: Costs,
    /// The share of labelled samples that the whole network puts right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Group by group.
    pub curves: Vec<Curve>,
    /// The groups that cannot be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Whole>,
}

/// How many units each group is to lose.
#[derive(Clone, Copy, Debug)]
pub struct Amounts<'a> {
    /// As shares of the group's units, rounded up.
    pub shares: &'a [f64],
    /// What must be left. Where a share leaves a number of units that it does not allow, more units go; fewer where so few would be left.
    pub limits: Limits,
}

/// Judges the network without the least important units of each group, for each of these amounts; one unit always stays.
/// `importance` has a number for each unit of each group, and none for a group that is passed over. Costs are counted with the symbols in
/// the shapes of the inputs at the sizes that `types` give them, else at one. `told` hears how many networks are judged, and of how many.
///
/// # Errors
/// When a share is none, a network cannot be judged, or there is no group.
pub fn sensitivity(
    graph: &Graph,
    types: &Types,
    groups: &Groups,
    importance: &[Option<Vec<f64>>],
    amounts: Amounts<'_>,
    score: &mut dyn Score,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Sensitivity, PruneError> {
    if let Some(share) = amounts.shares.iter().find(|share| !(0.0..=1.0).contains(*share)) {
        return Err(PruneError::Option {
            option: "shares",
            problem: format!("holds {share}; give shares from 0 to 1"),
        });
    }
    let numbers: Vec<Vec<usize>> = groups
        .groups
        .iter()
        .enumerate()
        .map(|(idx, group)| match importance.get(idx) {
            Some(Some(_)) => numbers(amounts.shares, group.n_units, &amounts.limits.widths(group)),
            Some(None) | None => Vec::new(),
        })
        .collect();
    let n_to_judge: usize = numbers.iter().map(Vec::len).sum();
    if n_to_judge == 0 {
        return Err(PruneError::Nothing { reason: "no group can lose so many units and keep one".to_string() });
    }
    let sizes = sizes(graph, types);
    let whole = score.quality(graph)?;
    let mut found = Sensitivity {
        n_groups: groups.groups.len(),
        costs: Costs::of(graph, &sizes)?,
        accuracy: whole.accuracy,
        curves: Vec::new(),
        refused: Vec::new(),
    };
    let mut n_judged = 0;
    for (group_idx, (group, numbers)) in groups.groups.iter().zip(&numbers).enumerate() {
        let mut curve =
            Curve { group: group_idx, name: group.name().clone(), n_units: group.n_units, points: Vec::new() };
        let mut refused = None;
        for &n_gone in numbers {
            told(n_judged, n_to_judge);
            n_judged += 1;
            let units = &chosen(importance, groups, &[(group_idx, n_gone)]).units[group_idx];
            let smaller = match remove(graph, types, &[Removal { group, units }]) {
                Ok(smaller) => smaller,
                Err(error @ (RemovalError::Empties { .. } | RemovalError::Operand { .. })) => {
                    refused.get_or_insert_with(|| error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let quality = score.quality(&smaller)?;
            curve.points.push(Point {
                units: n_gone,
                share: n_gone as f64 / group.n_units.max(1) as f64,
                noise: if quality.noise.is_finite() { quality.noise } else { f64::MAX },
                accuracy: quality.accuracy,
                costs: Costs::of(&smaller, &sizes)?,
            });
        }
        match refused {
            Some(reason) if curve.points.is_empty() => {
                found.refused.push(Whole { group: group_idx, name: curve.name, reason });
            }
            Some(_) | None if curve.points.is_empty() => {}
            Some(_) | None => found.curves.push(curve),
        }
    }
    Ok(found)
}

/// So many units for each share, each number once: at least that many where the widths that may be left allow it, else the most that they
/// do.
fn numbers(shares: &[f64], n_units: usize, widths: &[usize]) -> Vec<usize> {
    let number = |share: &f64| {
        // 0.3 of ten units are three, not four.
        let kept = n_units - ((share * n_units as f64 - 1e-9).ceil().max(0.0) as usize).min(n_units);
        let width = widths.iter().find(|&&width| width <= kept).or(widths.last())?;
        Some(n_units - width)
    };
    let mut numbers: Vec<usize> = shares.iter().filter(|share| **share > 0.0).filter_map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The least important units, so many of each of these groups. Of equals the later ones go first.
pub fn chosen(importance: &[Option<Vec<f64>>], groups: &Groups, numbers: &[(usize, usize)]) -> Selection {
    let mut selection = Selection { units: vec![Vec::new(); groups.groups.len()] };
    for &(group_idx, n_gone) in numbers {
        let Some(Some(importance)) = importance.get(group_idx) else { continue };
        let mut units: Vec<usize> = (0..importance.len()).rev().collect();
        units.sort_by(|&one, &other| importance[one].total_cmp(&importance[other]));
        units.truncate(n_gone);
        units.sort_unstable();
        selection.units[group_idx] = units;
    }
    selection
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::prune::testing::{Judge, Net, grouped, noise, without};
    use crate::graph::Op;

    fn network() -> Graph {
        let (mut net, x) = Net::of_images(2);
        let first = net.conv(&x, 5, 2);
        let hidden = net.0.node(Op::Relu, &[&first]);
        let second = net.conv(&hidden, 4, 5);
        let hidden = net.0.node(Op::Relu, &[&second]);
        let y = net.conv(&hidden, 3, 4);
        net.finish(&y)
    }

    fn costs(graph: &Graph) -> Result<Costs, ShapeError> {
        Costs::of(graph, &Bindings::of(shape::symbols(graph).iter().map(|symbol| (symbol.as_str(), 1))))
    }

    fn falling(groups: &Groups) -> Vec<Option<Vec<f64>>> {
        groups.groups.iter().map(|group| Some((0..group.n_units).map(|unit| -(unit as f64)).collect())).collect()
    }

    #[test]
    fn each_group_is_measured_alone() {
        let graph = network();
        let (types, groups) = grouped(&graph);
        let importance = falling(&groups);
        let mut asked = Vec::new();
        let amounts = Amounts { shares: &[0.2, 0.1, 0.5, 1.0], limits: Limits::default() };
        let mut told = |done: usize, of: usize| asked.push((done, of));
        let found = sensitivity(&graph, &types, &groups, &importance, amounts, &mut Judge(graph.clone()), &mut told);
        let found = found.expect("measured");
        assert_eq!(asked, [0, 1, 2, 3, 4, 5].map(|done| (done, 6)));
        let units = |curve: &Curve| curve.points.iter().map(|point| point.units).collect::<Vec<usize>>();
        assert_eq!(found.curves.iter().map(units).collect::<Vec<_>>(), [[1, 3, 4], [1, 2, 3]]);
        assert_eq!(found.costs, costs(&graph).expect("counted"));
        for curve in &found.curves {
            for point in &curve.points {
                let selection = chosen(&importance, &groups, &[(curve.group, point.units)]);
                let last: Vec<usize> = (curve.n_units - point.units..curve.n_units).collect();
                assert_eq!(selection.units[curve.group], last, "the least important");
                let smaller = without(&graph, &types, &groups, &selection).expect("they can go");
                assert_eq!(point.noise, noise(&graph, &smaller));
                assert_eq!(point.costs, costs(&smaller).expect("counted"));
                assert!(point.costs.macs < found.costs.macs && point.costs.params < found.costs.params);
            }
        }
        let text = toml::to_string(&found).expect("text");
        assert_eq!(toml::from_str::<Sensitivity>(&text).expect("the same"), found);
    }

    #[test]
    fn what_is_left_keeps_the_limits() {
        let check = |shares: &[f64], limits: &str, n_units: usize, expected: &[usize]| {
            let limits: Limits = toml::from_str(limits).expect("limits");
            assert_eq!(
                numbers(shares, n_units, &limits.widths_of(n_units, 1)),
                expected,
                "{shares:?} {limits:?} of {n_units}"
            );
        };
        check(&[0.3, 0.0], "", 10, &[3]);
        check(&[0.3, 0.31, 0.35], "", 10, &[3, 4]);
        // All would go: one stays.
        check(&[1.0], "", 10, &[9]);
        check(&[1.0], "", 1, &[]);
        check(&[0.1, 0.5, 1.0], "round_to = 8", 32, &[8, 16, 24]);
        check(&[0.1, 0.9], "round_to = 8\nmin_width = 12", 32, &[8, 16]);
        check(&[0.1, 0.5], "max_share = 0.3", 10, &[1, 3]);
        check(&[0.5], "min_width = 20", 10, &[]);
        check(&[0.0, 0.1], "round_to = 8", 12, &[4]);
        check(&[0.1], "round_to = 8", 6, &[]);
    }

    #[test]
    fn groups_without_importance_are_passed_over() {
        let graph = network();
        let (types, groups) = grouped(&graph);
        let mut importance = falling(&groups);
        importance[0] = None;
        let mut judge = Judge(graph.clone());
        let mut run = |importance: &[Option<Vec<f64>>], shares: &[f64]| {
            let amounts = Amounts { shares, limits: Limits::default() };
            sensitivity(&graph, &types, &groups, importance, amounts, &mut judge, &mut |_, _| ())
        };
        let found = run(&importance, &[0.5]).expect("measured");
        assert_eq!(found.curves.iter().map(|curve| curve.group).collect::<Vec<_>>(), [1]);
        importance[1] = None;
        let nothing = "nothing can be pruned: no group can lose so many units and keep one";
        assert_eq!(run(&importance, &[0.5]).expect_err("refused").to_string(), nothing);
        assert_eq!(
            run(&importance, &[1.5]).expect_err("refused").to_string(),
            "`shares` holds 1.5; give shares from 0 to 1"
        );
    }
}
