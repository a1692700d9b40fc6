//! How many units each group gives for a goal, solved from measured curves.
//!
//! What groups lose is taken to add up: the noise of the whole to be the sum of the noises of the groups, as it is where they are small
//! and unlike one another; what is saved to be the sum of what each group saves alone. The first is an assumption that only judging the
//! result can check. The second counts twice what two groups save together (the weights between them), which [`solve_for`] makes good by
//! counting what the result really costs.

use super::sensitivity::{Costs, Curve, Point, Sensitivity};
use super::{Amount, PruneError};

/// Into how many parts the goal is divided where the choice is searched for: see [`solve`].
pub const RESOLUTION: usize = 10_000;

/// How many units each group gives, by its place in the network, so that at least the amount is saved and the noises of all groups are
/// least in sum.
///
/// Of each group one point of its curve, or none, is chosen (a knapsack of multiple choice, solved by dynamic programming over savings).
/// Savings are counted in parts of the goal divided by [`RESOLUTION`], rounded down: the choice always saves enough, and no choice that
/// saves `1 + n_groups / RESOLUTION` times as much as asked has less noise.
///
/// # Errors
/// When the amount is no share, or more than all groups together can save.
pub fn solve(sensitivity: &Sensitivity, amount: Amount) -> Result<Vec<usize>, PruneError> {
    let problem = Problem::of(sensitivity, amount)?;
    let choice = problem
        .solved(problem.goal, RESOLUTION)
        .ok_or_else(|| problem.refused(amount, problem.most(), "by the curves"))?;
    Ok(problem.units(sensitivity, &choice))
}

/// As [`solve`], but what a choice saves in the end is counted by `costs`, which is told the units of each group: savings are asked for
/// until those counted are enough.
///
/// # Errors
/// As [`solve`]; those of `costs`.
pub fn solve_for(
    sensitivity: &Sensitivity,
    amount: Amount,
    mut costs: impl FnMut(&[usize]) -> Result<Costs, PruneError>,
) -> Result<Vec<usize>, PruneError> {
    const MOST_STEPS: usize = 24;
    let problem = Problem::of(sensitivity, amount)?;
    let mut most = 0f64;
    let mut is_enough = |goal: f64| -> Result<Option<(Vec<usize>, bool)>, PruneError> {
        let Some(choice) = problem.solved(goal, RESOLUTION) else { return Ok(None) };
        let units = problem.units(sensitivity, &choice);
        let saved = match amount {
            Amount::Channels(_) => problem.saved(&choice),
            Amount::Macs(_) | Amount::Params(_) | Amount::Bytes(_) => {
                saving(&sensitivity.costs, &costs(&units)?, amount)
            }
        };
        most = most.max(saved);
        Ok(Some((units, saved >= problem.goal)))
    };
    let all = problem.most();
    let by_curves = || problem.refused(amount, all, "by the curves");
    let (mut low, mut high) = (problem.goal, all);
    let mut best = match is_enough(low)?.ok_or_else(by_curves)? {
        (units, true) => return Ok(units),
        (_, false) => match is_enough(high)?.ok_or_else(by_curves)? {
            (units, true) => units,
            (_, false) => return Err(problem.refused(amount, most, "by the largest amounts of the curves together")),
        },
    };
    for _ in 0..MOST_STEPS {
        let middle = low.midpoint(high);
        match is_enough(middle)? {
            Some((units, true)) => (best, high) = (units, middle),
            Some((_, false)) => low = middle,
            None => high = middle,
        }
        if high - low <= problem.goal / RESOLUTION as f64 {
            break;
        }
    }
    Ok(best)
}

/// One point of a curve.
#[derive(Clone, Copy, Debug)]
struct Item {
    units: usize,
    saves: f64,
    harm: f64,
}

/// What can be chosen of each curve, and what must be saved.
struct Problem {
    curves: Vec<Vec<Item>>,
    goal: f64,
    whole: f64,
}

/// For each curve, which of its points; none where the group stays whole.
type Choice = Vec<Option<usize>>;

impl Problem {
    fn of(sensitivity: &Sensitivity, amount: Amount) -> Result<Problem, PruneError> {
        let (option, share) = match amount {
            Amount::Channels(share) => ("channels", share),
            Amount::Macs(share) => ("macs", share),
            Amount::Params(share) => ("params", share),
            Amount::Bytes(share) => ("bytes", share),
        };
        if !(0.0..1.0).contains(&share) {
            return Err(PruneError::Option { option, problem: format!("is {share}; give a share from 0 to below 1") });
        }
        let whole = match amount {
            Amount::Channels(_) => sensitivity.curves.iter().map(|curve| curve.n_units as f64).sum(),
            Amount::Macs(_) | Amount::Params(_) | Amount::Bytes(_) => {
                saving(&sensitivity.costs, &Costs::default(), amount)
            }
        };
        let item = |point: &Point| {
            let saves = match amount {
                Amount::Channels(_) => point.units as f64,
                Amount::Macs(_) | Amount::Params(_) | Amount::Bytes(_) => {
                    saving(&sensitivity.costs, &point.costs, amount)
                }
            };
            Item { units: point.units, saves, harm: point.noise.max(0.0) }
        };
        let items = |curve: &Curve| curve.points.iter().map(item).filter(|item| item.harm.is_finite()).collect();
        Ok(Problem { curves: sensitivity.curves.iter().map(items).collect(), goal: share * whole, whole })
    }

    /// What all groups save where each gives the most.
    fn most(&self) -> f64 {
        let most = |items: &Vec<Item>| items.iter().map(|item| item.saves).fold(0.0, f64::max);
        self.curves.iter().map(most).sum()
    }

    fn saved(&self, choice: &Choice) -> f64 {
        self.chosen(choice).map(|item| item.saves).sum()
    }

    fn harm(&self, choice: &Choice) -> f64 {
        self.chosen(choice).map(|item| item.harm).sum()
    }

    fn chosen<'a>(&'a self, choice: &'a Choice) -> impl Iterator<Item = &'a Item> {
        self.curves.iter().zip(choice).filter_map(|(items, &idx)| items.get(idx?))
    }

    fn units(&self, sensitivity: &Sensitivity, choice: &Choice) -> Vec<usize> {
        let mut units = vec![0; sensitivity.n_groups];
        for ((items, &idx), curve) in self.curves.iter().zip(choice).zip(&sensitivity.curves) {
            if let (Some(item), Some(units)) = (idx.and_then(|idx| items.get(idx)), units.get_mut(curve.group)) {
                *units = item.units;
            }
        }
        units
    }

    /// `most` is saved at most.
    fn refused(&self, amount: Amount, most: f64, how: &str) -> PruneError {
        let (share, of) = match amount {
            Amount::Channels(share) => (share, "channels"),
            Amount::Macs(share) => (share, "MACs"),
            Amount::Params(share) => (share, "parameters"),
            Amount::Bytes(share) => (share, "bytes"),
        };
        let most = 100.0 * most / self.whole.max(1.0);
        PruneError::Amount {
            asked: format!("{:.1} % of the {of}", 100.0 * share),
            reached: format!("{most:.1} % {how}"),
            remedy: "measure larger amounts, or ask for less",
        }
    }

    /// The choice of least harm that saves so much; none where nothing does.
    fn solved(&self, goal: f64, resolution: usize) -> Option<Choice> {
        if goal <= 0.0 {
            return Some(vec![None; self.curves.len()]);
        }
        let greedy = self.greedy(goal);
        let exact = self.exact(goal, resolution);
        match (greedy, exact) {
            (Some(greedy), Some(exact)) if self.harm(&greedy) < self.harm(&exact) => Some(greedy),
            (greedy, None) => greedy,
            (_, exact) => exact,
        }
    }

    /// Step after step, the group that harms least for what it saves more.
    fn greedy(&self, goal: f64) -> Option<Choice> {
        let mut choice: Choice = vec![None; self.curves.len()];
        let mut saved = 0.0;
        while saved < goal {
            let mut best: Option<(f64, usize, usize, f64)> = None;
            for (curve_idx, items) in self.curves.iter().enumerate() {
                let now = choice[curve_idx].map_or((0.0, 0.0), |idx| (items[idx].saves, items[idx].harm));
                for (idx, item) in items.iter().enumerate().filter(|(_, item)| item.saves > now.0) {
                    let more = item.saves - now.0;
                    // What is not needed any more counts for nothing.
                    let price = (item.harm - now.1) / more.min(goal - saved);
                    if best.is_none_or(|(least, ..)| price < least) {
                        best = Some((price, curve_idx, idx, more));
                    }
                }
            }
            let (_, curve_idx, idx, more) = best?;
            choice[curve_idx] = Some(idx);
            saved += more;
        }
        (self.saved(&choice) >= goal).then_some(choice)
    }

    /// Dynamic programming over savings in parts of the goal: the least harm with which the curves so far save at least so many parts.
    fn exact(&self, goal: f64, resolution: usize) -> Option<Choice> {
        let resolution = resolution.max(1);
        let parts = |item: &Item| {
            let parts = (item.saves.max(0.0) / goal * resolution as f64).floor() as usize;
            parts.min(resolution)
        };
        let mut least = vec![f64::INFINITY; resolution + 1];
        least[0] = 0.0;
        // For each curve and number of parts: which point led there (0 for none), and from how many parts.
        let mut ways: Vec<Vec<(u32, u32)>> = Vec::with_capacity(self.curves.len());
        for items in &self.curves {
            let mut next = least.clone();
            let mut way: Vec<(u32, u32)> = (0u32..).take(resolution + 1).map(|reached| (0, reached)).collect();
            for (number, item) in (1u32..).zip(items) {
                let parts = parts(item);
                for (reached, before) in (0u32..).zip(&least).filter(|(_, before)| before.is_finite()) {
                    let (to, harm) = ((reached as usize + parts).min(resolution), before + item.harm);
                    if harm < next[to] {
                        (next[to], way[to]) = (harm, (number, reached));
                    }
                }
            }
            ways.push(way);
            least = next;
        }
        let mut reached = resolution;
        let back = |way: &Vec<(u32, u32)>| {
            let (number, before) = way[reached];
            reached = before as usize;
            number.checked_sub(1).map(|idx| idx as usize)
        };
        let mut choice: Choice = match least[resolution].is_finite() {
            true => ways.iter().rev().map(back).collect(),
            false => return None,
        };
        choice.reverse();
        Some(choice)
    }
}

/// What is saved between two networks.
fn saving(whole: &Costs, smaller: &Costs, amount: Amount) -> f64 {
    let saved = |whole: u64, smaller: u64| whole.saturating_sub(smaller) as f64;
    match amount {
        Amount::Channels(_) => 0.0,
        Amount::Macs(_) => saved(whole.macs, smaller.macs),
        Amount::Params(_) => saved(whole.params, smaller.params),
        Amount::Bytes(_) => saved(whole.bytes, smaller.bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compress::prune::Limits;
    use crate::compress::prune::select::sizes;
    use crate::compress::prune::sensitivity::{Amounts, chosen, sensitivity};
    use crate::compress::prune::testing::{Judge, Net, grouped, wave, without};
    use crate::graph::Op;

    /// A network of 1000 MACs, with points `(units, MACs saved, noise)` of each group.
    fn measured(curves: &[Vec<(usize, u64, f64)>]) -> Sensitivity {
        let costs = Costs { macs: 1000, params: 1000, bytes: 4000 };
        let point = |&(units, saved, noise): &(usize, u64, f64)| Point {
            units,
            share: units as f64 / 10.0,
            noise,
            accuracy: None,
            costs: Costs { macs: 1000 - saved, params: 1000 - saved / 2, bytes: 4000 - 2 * saved },
        };
        let curve = |(group, points): (usize, &Vec<(usize, u64, f64)>)| Curve {
            group,
            name: format!("w{group}").as_str().into(),
            n_units: 10,
            points: points.iter().map(point).collect(),
        };
        let curves: Vec<Curve> = curves.iter().enumerate().map(curve).collect();
        Sensitivity { n_groups: curves.len(), costs, accuracy: None, curves, refused: Vec::new() }
    }

    /// The least sum of noises that saves so much, over all choices.
    fn least(problem: &Problem, goal: f64) -> Option<f64> {
        fn go(curves: &[Vec<Item>], saved: f64, harm: f64, goal: f64) -> Option<f64> {
            let Some((items, rest)) = curves.split_first() else { return (saved >= goal).then_some(harm) };
            let with = items.iter().filter_map(|item| go(rest, saved + item.saves, harm + item.harm, goal));
            with.chain(go(rest, saved, harm, goal)).min_by(f64::total_cmp)
        }
        go(&problem.curves, 0.0, 0.0, goal)
    }

    #[test]
    fn the_least_harm_that_saves_enough() {
        let found = measured(&[
            vec![(2, 100, 0.01), (5, 200, 0.05)],
            vec![(1, 90, 0.02), (3, 250, 0.04)],
            vec![(4, 300, 0.30)],
        ]);
        assert_eq!(solve(&found, Amount::Macs(0.1)).expect("solved"), [2, 0, 0]);
        assert_eq!(solve(&found, Amount::Macs(0.25)).expect("solved"), [0, 3, 0]);
        assert_eq!(solve(&found, Amount::Macs(0.35)).expect("solved"), [2, 3, 0]);
        assert_eq!(solve(&found, Amount::Macs(0.7)).expect("solved"), [5, 3, 4]);
        assert_eq!(solve(&found, Amount::Params(0.05)).expect("solved"), [2, 0, 0]);
        assert_eq!(solve(&found, Amount::Bytes(0.05)).expect("solved"), [2, 0, 0]);
        assert_eq!(solve(&found, Amount::Channels(0.1)).expect("solved"), [2, 1, 0]);
        assert_eq!(solve(&found, Amount::Macs(0.0)).expect("solved"), [0, 0, 0]);
    }

    #[test]
    fn refusals() {
        let found = measured(&[vec![(2, 100, 0.01)]]);
        let refused = |amount| solve(&found, amount).expect_err("refused").to_string();
        assert_eq!(refused(Amount::Macs(1.0)), "`macs` is 1; give a share from 0 to below 1");
        assert_eq!(
            refused(Amount::Macs(0.3)),
            "30.0 % of the MACs cannot be taken out: 10.0 % by the curves is the most \
             (hint: measure larger amounts, or ask for less)"
        );
    }

    #[test]
    fn shared_savings_are_counted_by_the_result() {
        let (mut net, x) = Net::of_images(2);
        let mut value = net.conv(&x, 8, 2);
        for _ in 0..2 {
            let hidden = net.0.node(Op::Relu, &[&value]);
            value = net.conv(&hidden, 8, 8);
        }
        let hidden = net.0.node(Op::Relu, &[&value]);
        let weight = net.0.initializer("last", wave(&[3, 8, 1, 1], 0.4));
        let y = net.0.node(Op::Conv(crate::graph::op::Conv::default()), &[&hidden, &weight]);
        let graph = net.finish(&y);
        let (types, groups) = grouped(&graph);
        let importance: Vec<Option<Vec<f64>>> =
            groups.groups.iter().map(|group| Some((0..group.n_units).map(|unit| unit as f64).collect())).collect();
        let shares = &[0.125, 0.25, 0.375, 0.5, 0.625, 0.75];
        let amounts = Amounts { shares, limits: Limits::default() };
        let mut judge = Judge(graph.clone());
        let found = sensitivity(&graph, &types, &groups, &importance, amounts, &mut judge, &mut |_, _| ());
        let found = found.expect("measured");
        let costs = |units: &[usize]| {
            let numbers: Vec<(usize, usize)> = units.iter().copied().enumerate().collect();
            let smaller =
                without(&graph, &types, &groups, &chosen(&importance, &groups, &numbers)).expect("they can go");
            Ok(Costs::of(&smaller, &sizes(&graph, &types))?)
        };
        let share = |units: &[usize]| 1.0 - costs(units).expect("counted").macs as f64 / found.costs.macs as f64;
        let plain = solve(&found, Amount::Macs(0.6)).expect("solved");
        let counted = solve_for(&found, Amount::Macs(0.6), costs).expect("solved");
        assert!(share(&plain) < 0.6 && share(&counted) >= 0.6, "{plain:?} {counted:?}");
        // No smaller choice along the way would do.
        assert!(share(&counted) < 0.75, "{counted:?}");
        let error = solve_for(&found, Amount::Macs(0.97), costs).expect_err("refused").to_string();
        assert!(error.starts_with("97.0 % of the MACs cannot be taken out"), "{error}");
    }

    fn curves() -> impl Strategy<Value = Vec<Vec<(usize, u64, f64)>>> {
        let point = (1usize..10, 1u64..200, 0.0f64..1.0);
        prop::collection::vec(prop::collection::vec(point, 1..4), 1..5)
    }

    proptest! {
        /// With few parts the bound is wide, with many it is tight; both hold, and what is asked for is saved.
        #[test]
        fn within_the_bound_of_brute_force(curves in curves(), share in 0.01f64..0.6, resolution in prop_oneof![Just(20usize), Just(1000)]) {
            let problem = Problem::of(&measured(&curves), Amount::Macs(share)).expect("a share");
            let goal = problem.goal;
            let found = problem.solved(goal, resolution);
            let Some(best) = least(&problem, goal) else {
                prop_assert!(found.is_none());
                return Ok(());
            };
            let slack = 1.0 + problem.curves.len() as f64 / resolution as f64;
            match found {
                Some(found) => {
                    prop_assert!(problem.saved(&found) >= goal);
                    let harm = problem.harm(&found);
                    prop_assert!(harm >= best - 1e-12);
                    if let Some(bound) = least(&problem, goal * slack) {
                        prop_assert!(harm <= bound + 1e-12, "{harm} {bound}");
                    }
                }
                None => prop_assert!(least(&problem, goal * slack).is_none(), "greedy and exact both missed it"),
            }
        }
    }
}
