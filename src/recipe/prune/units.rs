//! Units that go: ranked, chosen, made up for, and taken out.

use indexmap::IndexMap;

use super::report::{GroupReport, Report, Sizes, types_in_use};
use super::{Basis, Decided, Gone, Pruned};
use crate::compress::importance::{
    Needs, Unranked, activation_values, by_activations, by_gradients, comparable, importance,
};
use crate::compress::prune::compensate::{self, DAMPING, Declined, compensate, compensate_in_order};
use crate::compress::prune::options::{Compensation, PruneOptions};
use crate::compress::prune::recalibrate::{self, Before, Match};
use crate::compress::prune::sensitivity::chosen;
use crate::compress::prune::{
    self, Amount, Amounts, Costs, Limits, PruneError, Selection, Sensitivity, asked, order, select, select_until,
    sizes, solve_for,
};
use crate::graph::probe::Score as _;
use crate::graph::shape::{self, Bindings};
use crate::graph::structure::groups::{Group, Groups, groups};
use crate::graph::structure::removal::remove;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name, Node, Op};
use crate::learn::train::loss::{Loss, attach};
use crate::recipe::RecipeError;
use crate::recipe::look::{Look, MOMENT_BYTES, Shown, mean_percent};
use crate::recipe::samples::Samples;

/// How much goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// So much.
    Amount(Amount),
    /// Until a run takes this part of the time.
    Time(f64),
}

pub(super) fn prune(
    mut look: Look<'_>,
    options: &PruneOptions,
    until: Until,
    basis: Basis<'_>,
) -> Result<Pruned, RecipeError> {
    let (graph, types) = (&look.model.graph, look.types);
    let groups = groups(graph, types);
    let is_asked = asked(graph, &groups, &options.only, &options.exclude)?;
    let mut refused: Vec<(String, String)> =
        groups.refused.iter().map(|refused| (refused.weight.to_string(), refused.reason.clone())).collect();
    let selection = match basis.known {
        Some(known) => chosen_before(&groups, known)?,
        None => {
            let importance = ranked(&mut look, options, &groups, &is_asked, basis, &mut refused)?;
            selected(&look, options, until, &groups, &importance)?
        }
    };
    let mut report = Report::new(options, Sizes::of(graph)?, Sizes::default());
    let graph = compensated(&mut look, options, &groups, &selection, &mut report)?;
    let mut graph = remove(&graph, types, &selection.removals(&groups)).map_err(PruneError::from)?;
    if let Some(what) = options.recalibrate.filter(|_| !selection.is_empty()) {
        let whole = Before { graph: &look.model.graph, groups: &groups, selection: &selection };
        graph = recalibrated(&look, whole, &graph, what, &mut report)?;
    }
    report.after = Sizes::of(&graph)?;
    let left = groups.groups.iter().zip(&selection.units).zip(&is_asked).filter(|(_, is_asked)| **is_asked);
    report.groups = left
        .map(|((group, gone), _)| GroupReport {
            group: group.name().to_string(),
            kind: group.kind,
            n_units: group.n_units,
            n_left: group.n_units - gone.len(),
        })
        .collect();
    report.refused.splice(0..0, refused);
    let decided = matches!(until, Until::Time(_)).then(|| decided(&groups, &selection));
    Ok(Pruned { model: look.model.with_graph(graph), decided, sparsifier: None, report })
}

/// What each group alone costs.
pub(super) fn sensitivity(
    mut look: Look<'_>,
    options: &PruneOptions,
    shares: &[f64],
    basis: Basis<'_>,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Sensitivity, RecipeError> {
    let (graph, types) = (&look.model.graph, look.types);
    let groups = groups(graph, types);
    let is_asked = asked(graph, &groups, &options.only, &options.exclude)?;
    let importance = ranked(&mut look, options, &groups, &is_asked, basis, &mut Vec::new())?;
    let written = |graph: &Graph| Ok(graph.clone());
    let mut scorer = look.scorer(&written)?;
    scorer.judge = Some(look.judge(options.samples)?);
    let amounts = Amounts { shares, limits: options.limits() };
    let types = types_in_use(graph)?;
    Ok(prune::sensitivity(graph, &types, &groups, &importance, amounts, &mut scorer, told)?)
}

/// A number for each unit of each group that is asked for, comparable across groups. Groups whose units cannot be told apart are
/// `refused`.
fn ranked(
    look: &mut Look<'_>,
    options: &PruneOptions,
    groups: &Groups,
    is_asked: &[bool],
    basis: Basis<'_>,
    refused: &mut Vec<(String, String)>,
) -> Result<Vec<Option<Vec<f64>>>, RecipeError> {
    let all = importance_of(look, options, &groups.groups, basis)?;
    let mut importance: Vec<Option<Vec<f64>>> = Vec::with_capacity(all.len());
    for ((numbers, &is_asked), group) in all.into_iter().zip(is_asked).zip(&groups.groups) {
        importance.push(match numbers {
            Ok(numbers) => is_asked.then_some(numbers),
            Err(unranked) => {
                refused.extend(is_asked.then(|| (group.name().to_string(), unranked.reason())));
                None
            }
        });
    }
    if importance.iter().all(Option::is_none) {
        let reason = refused.last().map_or("no group is asked for".to_string(), |(name, why)| format!("{name} {why}"));
        return Err(PruneError::Nothing { reason }.into());
    }
    comparable(importance.iter_mut().flatten(), options.normalize.unwrap_or(options.criterion.normalize()));
    Ok(importance)
}

/// A number for each unit of each group.
fn importance_of(
    look: &mut Look<'_>,
    options: &PruneOptions,
    groups: &[Group],
    basis: Basis<'_>,
) -> Result<Vec<Result<Vec<f64>, Unranked>>, RecipeError> {
    let (graph, types, criterion) = (&look.model.graph, look.types, options.criterion);
    match criterion.needs() {
        Needs::Nothing => Ok(importance(graph, types, groups, criterion, basis.seed)),
        Needs::Activations => {
            let values: IndexMap<Name, usize> = activation_values(graph, types, groups);
            let seen = look.channels(&values, "the criterion is told by what units give on samples")?;
            Ok(by_activations(groups, &seen, criterion))
        }
        Needs::Gradients => {
            let (output, loss) = (basis.output_of(graph)?, Loss::CrossEntropy);
            let batches = labelled(look, output, loss)?;
            by_gradients(graph, types, groups, output, loss, batches, criterion, basis.seed)
        }
    }
}

fn missing(what: &str) -> RecipeError {
    let problem = format!("has no {what}: the criterion is told by the gradients of a loss on them");
    RecipeError::Part { part: "data".to_string(), problem }
}

/// The samples, and beside the network's inputs what the output should say of each.
pub(super) fn labelled<'a>(
    look: &Look<'a>,
    output: &Name,
    loss: Loss,
) -> Result<impl Iterator<Item = Result<IndexMap<Name, Tensor>, RecipeError>> + use<'a>, RecipeError> {
    let target = attach(&look.model.graph, output, loss)?.target.ok_or_else(|| missing("labels"))?;
    let shape = look.types.tensor(output).and_then(|known| known.shape.clone()).unwrap_or_default();
    let n_classes = match &shape[..] {
        [_, classes] => classes.known(),
        _ => None,
    };
    let n_classes = n_classes.ok_or_else(|| missing("classes that the network's output is of"))?;
    let (batches, labels) = look.labelled("the criterion is told by the gradients of a loss on samples")?;
    let mut labels = labels.ok_or_else(|| missing("labels"))?.into_iter();
    Ok(batches.map(move |batch| {
        let mut batch = batch?;
        let n_rows = batch.values().next().and_then(|tensor| tensor.shape().first().copied()).unwrap_or(0);
        let mut classes = vec![0f32; n_rows * n_classes];
        for (row, class) in classes.chunks_exact_mut(n_classes).zip(labels.by_ref()) {
            *row.get_mut(class).ok_or_else(|| missing(&format!("such class as {class} among its outputs")))? = 1.0;
        }
        batch.insert(target.clone(), Tensor::new(&[n_rows, n_classes], classes).map_err(PruneError::from)?);
        Ok(batch)
    }))
}

/// The units that go.
fn selected(
    look: &Look<'_>,
    options: &PruneOptions,
    until: Until,
    groups: &Groups,
    importance: &[Option<Vec<f64>>],
) -> Result<Selection, RecipeError> {
    let (graph, limits) = (&look.model.graph, options.limits());
    let ratio = match until {
        Until::Amount(amount) => {
            if let Some(curves) = &options.curves {
                return solved(graph, groups, importance, curves, amount, &limits);
            }
            // What is multiplied is counted at a usual size of what is open.
            let types = types_in_use(graph)?;
            return Ok(select(graph, &types, groups, importance, amount, options.scope, &limits)?);
        }
        Until::Time(ratio) => ratio,
    };
    let written = |graph: &Graph| Ok(graph.clone());
    let mut scorer = look.scorer(&written)?;
    let order = order(groups, importance, options.scope, &limits)?;
    let is_quick = |candidate: &Graph| Ok(scorer.time_ratio(graph, candidate)?.median <= ratio);
    Ok(select_until(graph, look.types, groups, &order, is_quick)?)
}

/// The units of each group that cost least by what was measured of each.
fn solved(
    graph: &Graph,
    groups: &Groups,
    importance: &[Option<Vec<f64>>],
    curves: &Sensitivity,
    amount: Amount,
    limits: &Limits,
) -> Result<Selection, RecipeError> {
    let types = types_in_use(graph)?;
    let sizes = sizes(graph, &types);
    let names = curves.curves.iter().map(|curve| (curve.group, &curve.name, curve.n_units));
    let is_same = |(idx, name, n_units): (usize, &Name, usize)| {
        groups.groups.get(idx).is_some_and(|group| group.name() == name && group.n_units == n_units)
    };
    let is_of_this = curves.n_groups == groups.groups.len() && curves.costs == Costs::of(graph, &sizes)?;
    if !is_of_this || !names.into_iter().all(is_same) {
        let problem = "are of another network: measure this one by `--sensitivity`".to_string();
        return Err(PruneError::Option { option: "curves", problem }.into());
    }
    let selection = |units: &[usize]| {
        let numbers: Vec<(usize, usize)> = units.iter().copied().enumerate().collect();
        chosen(importance, groups, &numbers)
    };
    let units = solve_for(&allowed(curves, groups, importance, limits), amount, |units| {
        Ok(Costs::of(&remove(graph, &types, &selection(units).removals(groups))?, &sizes)?)
    })?;
    Ok(selection(&units))
}

/// What of the curves is of groups that may lose units, and leaves of them what the limits allow.
fn allowed(curves: &Sensitivity, groups: &Groups, importance: &[Option<Vec<f64>>], limits: &Limits) -> Sensitivity {
    let mut allowed = curves.clone();
    allowed.curves.retain(|curve| importance[curve.group].is_some());
    for curve in &mut allowed.curves {
        let widths = limits.widths(&groups.groups[curve.group]);
        curve.points.retain(|point| curve.n_units.checked_sub(point.units).is_some_and(|left| widths.contains(&left)));
    }
    allowed
}

/// The network in which what reads the units makes up for those that go, where the options and the samples have it so.
fn compensated(
    look: &mut Look<'_>,
    options: &PruneOptions,
    groups: &Groups,
    selection: &Selection,
    report: &mut Report,
) -> Result<Graph, RecipeError> {
    const MISSING: &str = "`compensate` fits weights to what they read in samples";
    let graph = look.model.graph.clone();
    let has_samples = look.samples.is_some_and(|samples| !matches!(samples, Samples::Ranges(_)));
    let usual = if has_samples { Compensation::InOrder } else { Compensation::None };
    let compensation = options.compensate.unwrap_or(usual);
    if compensation == Compensation::None || selection.is_empty() {
        return Ok(graph);
    }
    let task = compensate::task(&graph, look.types, groups, selection);
    report.refused.extend(
        task.declined
            .iter()
            .map(|declined| (declined.name.to_string(), format!("is not fitted to what is left: {}", declined.reason))),
    );
    let mut graph = graph;
    let mut weights = Vec::new();
    if compensation == Compensation::InOrder {
        let shown = |graph: &Graph, values: &[Name]| {
            let model = look.model.with_graph(graph.clone());
            let Shown { network, batches } = look.shown_of(&model, values, MISSING)?;
            Ok::<_, RecipeError>((network, batches))
        };
        let mut n_samples = 0;
        let done = compensate_in_order(&graph, &task, DAMPING, shown, |_, n| n_samples = n)?;
        report.n_samples = n_samples;
        (graph, weights) = (done.graph, done.weights);
    } else {
        for part in task.parts(MOMENT_BYTES) {
            let Shown { mut network, batches } = look.shown(&part.values(), MISSING)?;
            let told = |n: u64| {
                report.n_samples = n;
                (look.told)(n);
            };
            let done = compensate::<RecipeError>(&graph, &part, DAMPING, network.as_mut(), batches, told)?;
            graph = done.graph;
            weights.extend(done.weights);
        }
    }
    let fitted = weights.iter().filter(|weight| weight.error_before > 0.0);
    let ratios: Vec<f64> = fitted.map(|weight| weight.error_after / weight.error_before).collect();
    if !ratios.is_empty() {
        report.seen_on = Some(look.runtime.name().to_string());
        report.notes.push(format!(
            "{} weights make up for what they no longer read: what they make is off by {:.0} % of what it would be, squared, on the geometric mean",
            ratios.len(),
            mean_percent(&ratios)
        ));
    }
    Ok(graph)
}

/// The smaller network with its statistics measured anew.
fn recalibrated(
    look: &Look<'_>,
    whole: Before<'_>,
    graph: &Graph,
    what: Match,
    report: &mut Report,
) -> Result<Graph, RecipeError> {
    const MISSING: &str = "`recalibrate` measures what values are like in samples";
    let shown = |graph: &Graph, values: &[Name]| {
        let Shown { network, batches } = look.shown_of(&look.model.with_graph(graph.clone()), values, MISSING)?;
        Ok::<_, RecipeError>((network, batches))
    };
    let mut n_samples = 0;
    let told = |n| n_samples = n;
    let is_norm = |node: &Node| matches!(node.op, Op::BatchNormalization(_));
    let (done, how) = if graph.nodes.iter().any(is_norm) {
        (recalibrate::batch_norms(graph, shown, told)?, "batch normalisations go by what they read now")
    } else {
        let types = shape::infer(graph, &Bindings::default())?;
        let how = match what {
            Match::Mean => "products make what they made before, on the mean",
            Match::Spread => "products make what they made before, by mean and spread",
        };
        (recalibrate::match_outputs(whole, graph, &types, what, shown, told)?, how)
    };
    report.n_samples = n_samples;
    report.seen_on = Some(look.runtime.name().to_string());
    report.notes.push(format!("{} {how}", done.done.len()));
    let told = |declined: Declined| (declined.name.to_string(), format!("is not set right: {}", declined.reason));
    report.refused.extend(done.declined.into_iter().map(told));
    Ok(done.graph)
}

fn decided(groups: &Groups, selection: &Selection) -> Decided {
    let gone = groups.groups.iter().zip(&selection.units).enumerate().filter(|(_, (_, units))| !units.is_empty());
    let gone = gone.map(|(idx, (group, units))| Gone { group: idx, name: group.name().clone(), units: units.clone() });
    Decided(gone.collect())
}

/// The units that a run before took out.
fn chosen_before(groups: &Groups, known: &Decided) -> Result<Selection, RecipeError> {
    let mut units = vec![Vec::new(); groups.groups.len()];
    for gone in &known.0 {
        let group = groups.groups.get(gone.group);
        let is_same =
            |group: &&Group| group.name() == &gone.name && gone.units.iter().all(|&unit| unit < group.n_units);
        if group.filter(is_same).is_none() {
            let name = &gone.name;
            let reason = format!("`{name}` makes no group with the units that went in the run that is replayed");
            return Err(PruneError::Nothing { reason }.into());
        }
        units[gone.group] = gone.units.clone();
    }
    Ok(Selection { units })
}
