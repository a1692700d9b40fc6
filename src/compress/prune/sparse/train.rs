//! Zeros in a training: kept where they are, or more of them as it goes.

use indexmap::IndexMap;

use super::super::PruneError;
use super::masks::{Mask, Masks, hold};
use super::options::{Criterion, SparseOptions};
use super::plan::Plan;
use super::schedule::Schedule;
use super::{choose, criteria};
use crate::graph::{Graph, Name};
use crate::learn::train::TrainError;
use crate::learn::train::fit::{Editor, Numbers, Pace};
use crate::learn::train::learner::Parameter;

/// What is kept among a training's numbers: for each element 0 where it is out, what its criterion sums up, and what weights and the
/// optimizer's moments go back to.
const MASK: &str = "mask";
const SUM: &str = "mask-sum";
const REWIND: &str = "rewind";

/// Who holds elements of weights at zero while the others learn: exactly, after every step, in the weights and in their average.
/// Handed to [`fit_with`](crate::learn::train::fit::fit_with), beside a guide or alone.
///
/// `clip` sees the gradients of elements that are out, too.
#[derive(Clone, Debug)]
pub struct Sparsifier {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Held(Masks),
    Grown(Box<Growing>),
}

/// Masks that grow by a schedule.
#[derive(Clone, Debug)]
struct Growing {
    plan: Plan,
    options: SparseOptions,
    seed: u64,
}

impl Sparsifier {
    /// Keeps the zeros of a network: those that [`apply`](super::apply) made, or [`Masks::of_zeros`] found.
    ///
    /// # Errors
    /// When a mask does not fit the network, or what it says is out is not zero in it.
    pub fn held(graph: &Graph, masks: Masks) -> Result<Sparsifier, PruneError> {
        hold(graph, &masks)?;
        Ok(Sparsifier { kind: Kind::Held(masks) })
    }

    /// Takes elements of a plan's weights out as the schedule of the options says, chosen anew each time among those that are left.
    /// [`Criterion::Movement`] sums up all steps so far; [`Criterion::Snip`] those since elements went last.
    ///
    /// # Errors
    /// When the options cannot be carried out, or the criterion is not computed in a training.
    pub fn growing(plan: &Plan, options: &SparseOptions, seed: u64) -> Result<Sparsifier, PruneError> {
        options.check()?;
        match options.criterion {
            Criterion::Magnitude | Criterion::Random | Criterion::Movement => {}
            Criterion::Snip if options.schedule != Schedule::OneShot => {}
            Criterion::Snip => {
                return Err(options
                    .criterion
                    .needs("gradients before the first step: choose by them first, and hold the zeros"));
            }
            Criterion::Wanda | Criterion::SparseGpt => {
                return Err(options.criterion.needs("samples: choose by them first, and hold the zeros"));
            }
        }
        let growing = Growing { plan: plan.clone(), options: options.clone(), seed };
        Ok(Sparsifier { kind: Kind::Grown(Box::new(growing)) })
    }
}

impl Editor for Sparsifier {
    fn begin(
        &mut self,
        parameters: &mut IndexMap<Name, Parameter>,
        n_steps: u64,
        n_moments: usize,
    ) -> Result<Numbers, TrainError> {
        match &self.kind {
            Kind::Held(masks) => {
                // what does not learn is zero already
                let known = masks.iter().filter_map(|(name, mask)| Some((parameters.get(name)?, name, mask)));
                for (parameter, name, mask) in known {
                    fits(name, mask, parameter)?;
                }
                Ok(Numbers::new())
            }
            Kind::Grown(growing) => growing.begin(parameters, n_steps, n_moments),
        }
    }

    fn see(&mut self, position: usize, gradient: &[f32], values: &[f32], numbers: &mut Numbers) {
        let Kind::Grown(growing) = &self.kind else { return };
        let Some(sums) = numbers.get_mut(SUM).and_then(|lists| lists.get_mut(position)) else { return };
        for ((sum, gradient), value) in sums.iter_mut().zip(gradient).zip(values) {
            match growing.options.criterion {
                Criterion::Movement => *sum -= gradient * value,
                _ => *sum += gradient,
            }
        }
    }

    fn edit(
        &mut self,
        pace: Pace,
        parameters: &mut IndexMap<Name, Parameter>,
        numbers: &mut Numbers,
    ) -> Result<(), TrainError> {
        match &self.kind {
            Kind::Held(masks) => {
                for (name, mask) in masks.iter() {
                    let Some((position, _, parameter)) = parameters.get_full_mut(name) else { continue };
                    mask.apply(&mut parameter.values);
                    if let Some(average) = average_of(numbers, position) {
                        mask.apply(average);
                    }
                }
            }
            Kind::Grown(growing) => growing.edit(pace, parameters, numbers),
        }
        Ok(())
    }

    fn is_settled(&self, pace: Pace) -> bool {
        match &self.kind {
            Kind::Held(_) => true,
            Kind::Grown(growing) => growing.sparsity_at(pace.n_done, pace.n_steps) >= growing.options.target(),
        }
    }

    fn course(&self, pace: Pace) -> Pace {
        match &self.kind {
            Kind::Held(_) => pace,
            Kind::Grown(growing) => {
                let phase = growing.options.schedule.phase(pace.n_done, pace.n_steps);
                Pace { n_done: phase.n_done, n_steps: phase.n_steps }
            }
        }
    }
}

impl Growing {
    fn begin(
        &self,
        parameters: &mut IndexMap<Name, Parameter>,
        n_steps: u64,
        n_moments: usize,
    ) -> Result<Numbers, TrainError> {
        if !self.options.schedule.fits(n_steps) {
            return Err(TrainError::Task {
                problem: format!("{n_steps} steps are too few for the rounds of the sparsity's schedule"),
                remedy: "train for more `epochs`, or give fewer `rounds`",
            });
        }
        for operand in &self.plan.operands {
            let parameter = parameters.get(&operand.name).filter(|parameter| parameter.is_learned);
            if parameter.is_none_or(|parameter| parameter.values.len() != operand.layout.n_weights()) {
                return Err(TrainError::Task {
                    problem: format!("`{}` is to go sparse and does not learn", operand.name),
                    remedy: "leave it out of what is to go sparse, or out of `freeze`",
                });
            }
        }
        let masked = |fill: f32| -> Vec<Vec<f32>> {
            let is_masked = |name: &Name| self.plan.operands.iter().any(|operand| operand.name == *name);
            let list = |(name, parameter): (&Name, &Parameter)| {
                if is_masked(name) { vec![fill; parameter.values.len()] } else { Vec::new() }
            };
            parameters.iter().map(list).collect()
        };
        let mut numbers = Numbers::from([(MASK.to_string(), masked(1.0))]);
        if matches!(self.options.criterion, Criterion::Movement | Criterion::Snip) {
            numbers.insert(SUM.to_string(), masked(0.0));
        }
        if self.options.schedule.rewinds_to(n_steps).is_some() {
            let values: Vec<Vec<f32>> = parameters.values().map(|parameter| parameter.values.clone()).collect();
            let zeros: Vec<Vec<f32>> = values.iter().map(|values| vec![0.0; values.len()]).collect();
            (0..n_moments).for_each(|moment| drop(numbers.insert(format!("{REWIND}-moment{moment}"), zeros.clone())));
            numbers.insert(REWIND.to_string(), values);
        }
        let sparsity = self.sparsity_at(0, n_steps);
        if sparsity > 0.0 {
            self.grow(sparsity, parameters, &mut numbers);
            mask(parameters, &mut numbers);
        }
        Ok(numbers)
    }

    fn edit(&self, pace: Pace, parameters: &mut IndexMap<Name, Parameter>, numbers: &mut Numbers) {
        let Pace { n_done, n_steps } = pace;
        let rewinds_to = self.options.schedule.rewinds_to(n_steps);
        let sparsity = self.sparsity_at(n_done, n_steps);
        let grows = sparsity > self.sparsity_at(n_done.saturating_sub(1), n_steps);
        if grows {
            self.grow(sparsity, parameters, numbers);
            if rewinds_to.is_some() {
                rewind(parameters, numbers);
            }
        }
        mask(parameters, numbers);
        if rewinds_to == Some(n_done) {
            let values = parameters.values().map(|parameter| parameter.values.clone()).collect();
            numbers.insert(REWIND.to_string(), values);
            for (moment, kept) in moments(numbers) {
                let lists = numbers[&moment].clone();
                numbers.insert(kept, lists);
            }
        }
    }

    fn sparsity_at(&self, n_done: u64, n_steps: u64) -> f64 {
        self.options.schedule.sparsity_at(n_done, n_steps, self.options.target())
    }

    /// Takes out as many as there are to be.
    fn grow(&self, sparsity: f64, parameters: &IndexMap<Name, Parameter>, numbers: &mut Numbers) {
        let operands = &self.plan.operands;
        let position =
            |name: &Name| parameters.get_index_of(name).expect("a training begins with all weights of the plan");
        let positions: Vec<usize> = operands.iter().map(|operand| position(&operand.name)).collect();
        let scores: Vec<Vec<f32>> = operands
            .iter()
            .zip(&positions)
            .map(|(operand, &position)| {
                let values = &parameters[position].values;
                let sums = || &numbers[SUM][position];
                match self.options.criterion {
                    Criterion::Random => criteria::drawn(values.len(), &operand.name, self.seed),
                    Criterion::Movement => sums().clone(),
                    Criterion::Snip => criteria::sensitivity(values, sums()),
                    Criterion::Magnitude | Criterion::Wanda | Criterion::SparseGpt => {
                        values.iter().map(|value| value.abs()).collect()
                    }
                }
            })
            .collect();
        let masks = &numbers[MASK];
        let layouts: Vec<_> = operands.iter().map(|operand| &operand.layout).collect();
        let is_out = |operand: usize, element: usize| masks[positions[operand]][element] == 0.0;
        let chosen = choose::of_all(&layouts, &scores, &self.options, sparsity, is_out);
        let masks = numbers.get_mut(MASK).expect("a training begins with its masks");
        for (&position, is_out) in positions.iter().zip(chosen) {
            masks[position].iter_mut().zip(is_out).for_each(|(mask, is_out)| *mask = f32::from(!is_out));
        }
        if self.options.criterion == Criterion::Snip {
            numbers.get_mut(SUM).into_iter().flatten().for_each(|sums| sums.fill(0.0));
        }
    }
}

/// Sets what is out to zero, in the average, too.
fn mask(parameters: &mut IndexMap<Name, Parameter>, numbers: &mut Numbers) {
    let masks = std::mem::take(numbers.get_mut(MASK).expect("a training begins with its masks"));
    for (position, (parameter, mask)) in parameters.values_mut().zip(&masks).enumerate() {
        let hold = |values: &mut [f32]| {
            values.iter_mut().zip(mask).filter(|(_, mask)| **mask == 0.0).for_each(|(value, _)| *value = 0.0);
        };
        hold(&mut parameter.values);
        if let Some(average) = average_of(numbers, position) {
            hold(average);
        }
    }
    *numbers.get_mut(MASK).expect("it was there") = masks;
}

/// Gives the network and the optimizer the numbers of the step that is gone back to.
fn rewind(parameters: &mut IndexMap<Name, Parameter>, numbers: &mut Numbers) {
    for (position, parameter) in parameters.values_mut().enumerate() {
        parameter.values.clone_from(&numbers[REWIND][position]);
    }
    if numbers.contains_key("average") {
        let values = numbers[REWIND].clone();
        numbers.insert("average".to_string(), values);
    }
    for (moment, kept) in moments(numbers) {
        let lists = numbers[&kept].clone();
        numbers.insert(moment, lists);
    }
}

/// The optimizer's moments by the kind under which they are kept to go back to.
fn moments(numbers: &Numbers) -> Vec<(String, String)> {
    let kept = numbers.keys().filter_map(|kind| Some((kind.strip_prefix(REWIND)?.strip_prefix('-')?, kind)));
    kept.map(|(moment, kept)| (moment.to_string(), kept.clone())).collect()
}

fn average_of(numbers: &mut Numbers, position: usize) -> Option<&mut Vec<f32>> {
    numbers.get_mut("average")?.get_mut(position)
}

fn fits(name: &Name, mask: &Mask, parameter: &Parameter) -> Result<(), TrainError> {
    match mask.n() == parameter.values.len() {
        true => Ok(()),
        false => Err(TrainError::Task {
            problem: format!("the mask of `{name}` has {} elements, the weight {}", mask.n(), parameter.values.len()),
            remedy: "give the masks of this network",
        }),
    }
}
