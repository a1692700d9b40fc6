//! The training graph: a student with all that it learns by.

use std::collections::BTreeMap;

use super::options::{Mix, Objective, Weighted};
use super::schedule::WeightSchedule;
use super::site::{Ends, Site};
use super::{features, logits, relations, transformer};
use crate::compress::distill::DistillError;
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, Name, TensorType};
use crate::learn::train::behind::Behind;
use crate::learn::train::loss::{Loss, WithLoss, each, prediction};

/// What is known of a teacher.
#[derive(Clone, Debug)]
pub struct Teacher<'a> {
    /// Its output and its logits.
    pub ends: Ends,
    /// The types of its values, those of `ends` among them; several teachers' means are values like any others.
    pub types: &'a BTreeMap<Name, TensorType>,
}

/// The types of a network's values that are tensors.
pub fn tensor_types(graph: &Graph, types: &Types) -> BTreeMap<Name, TensorType> {
    graph.value_names().filter_map(|name| Some((name.clone(), types.tensor(name)?.clone()))).collect()
}

/// A value of the teacher that a training graph reads.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherInput {
    /// The training graph's input.
    pub input: Name,
    /// The teacher's value.
    pub value: Name,
    /// Its type: `f32`, of the student's batch.
    pub tensor_type: TensorType,
}

/// A term of the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The objective as it stands in TOML; `label` for the loss of the labels.
    pub name: &'static str,
    /// Its value in the training graph, one number, before it is weighted.
    pub value: Name,
    /// The training graph's input with its weight, one `f32`: one graph serves while weights change.
    pub input: Name,
    /// The greatest weight, with `alpha` in it.
    pub weight: f64,
    /// What the weight is multiplied by as the training goes on.
    pub schedule: WeightSchedule,
}

/// A student with objectives behind it.
#[derive(Clone, Debug)]
pub struct WithObjectives {
    /// The training graph with its loss. Its `learned` are what objectives have learn, to be thrown away with the rest.
    pub with_loss: WithLoss,
    /// What it reads of the teacher.
    pub teacher: Vec<TeacherInput>,
    /// The terms of the loss: the objectives in the order of the mix, then the labels.
    pub terms: Vec<Term>,
    /// Whether a term is of what the student says, and not only of its inner values.
    pub teaches_output: bool,
}

impl WithObjectives {
    /// The inputs with the weights at a share of the training, from 0 to 1.
    pub fn weights(&self, progress: f64) -> impl Iterator<Item = (&Name, Tensor)> {
        self.terms.iter().map(move |term| {
            let weight = term.weight * term.schedule.factor(progress);
            (&term.input, Tensor::scalar(weight as f32))
        })
    }
}

/// The student with objectives behind it, of which `label` measures its output by the labels, as [`crate::learn::train::loss`]
/// has it. The first values of projections depend on `seed` and their names.
///
/// # Errors
/// When an option is out of its range, a value is not there or is none that an objective covers, or a list of pairs is empty; see
/// [`super::pairing::resolve`].
pub fn attach(
    student: &Graph,
    output: &Name,
    teacher: &Teacher<'_>,
    mix: &Mix,
    label: Loss,
    seed: u64,
) -> Result<WithObjectives, DistillError> {
    mix.check()?;
    let types = infer(student, &Bindings::default())?;
    let (prediction, prediction_type) = prediction(student, &types, output, label)?;
    let mut behind = Behind::new(student, "label");
    let reads_labels = mix.alpha < 1.0 || mix.loss.iter().any(|term| term.objective.reads_labels());
    let target_type = TensorType { dtype: DType::F32, ..prediction_type.clone() };
    let target = reads_labels.then(|| behind.input("target", target_type));
    let mut site = Site::new(behind, student, &types, Ends::of(student, output), teacher, seed);
    site.target.clone_from(&target);
    let mut terms = Vec::new();
    for (idx, Weighted { objective, weight, schedule }) in mix.loss.iter().enumerate() {
        site.objective = objective.name();
        site.behind.enter(objective.name());
        let value = nodes(&mut site, objective, mix.temperature)?;
        let input = site.behind.input(&format!("weight_{idx}"), scalar());
        let weight = mix.alpha * weight;
        terms.push(Term { name: objective.name(), value, input, weight, schedule: *schedule });
    }
    if let Some(target) = target.as_ref().filter(|_| mix.alpha < 1.0) {
        site.behind.enter("label");
        let read = site.behind.single(&prediction, prediction_type.dtype);
        let each = each(&mut site.behind, label, &read, target);
        let value = site.behind.mean(&each);
        let input = site.behind.input("weight_label", scalar());
        terms.push(Term { name: "label", value, input, weight: 1.0 - mix.alpha, schedule: mix.label_schedule });
    }
    site.behind.enter("loss");
    let parts: Vec<Name> = terms.iter().map(|term| site.behind.mul(&term.value, &term.input)).collect();
    let loss = site.sum_of(&parts);
    let Site { behind, learned, inputs, .. } = site;
    let graph = behind.finish(&[&loss])?;
    let with_loss = WithLoss { graph, prediction, target, loss, learned };
    let teaches_output = mix.alpha < 1.0 || mix.loss.iter().any(|term| term.objective.is_of_output());
    Ok(WithObjectives { with_loss, teacher: inputs.into_values().collect(), terms, teaches_output })
}

fn scalar() -> TensorType {
    TensorType { dtype: DType::F32, shape: Some(Vec::new()) }
}

/// The value of an objective; `shared` is the temperature of those that do not state theirs.
fn nodes(site: &mut Site<'_>, objective: &Objective, shared: f64) -> Result<Name, DistillError> {
    let heat = |temperature: &Option<f64>| temperature.unwrap_or(shared);
    match objective {
        Objective::Kd { temperature } => logits::kd(site, heat(temperature)),
        Objective::SoftCrossEntropy { temperature } => logits::soft_cross_entropy(site, heat(temperature)),
        Objective::Mse {} => logits::mse(site),
        Objective::Dkd { alpha, beta, temperature } => logits::dkd(site, [*alpha, *beta], heat(temperature)),
        Objective::Dist { inter, intra, temperature } => logits::dist(site, [*inter, *intra], heat(temperature)),
        Objective::Binary { temperature } => logits::binary(site, heat(temperature)),
        Objective::Regression { loss, bounded } => logits::regression(site, *loss, *bounded),
        Objective::Hint { pairs, projection }
        | Objective::TinybertHidden { pairs, projection }
        | Objective::TinybertEmbedding { pairs, projection } => {
            features::over(site, pairs, |site, taps| features::hint(site, taps, *projection))
        }
        Objective::AttentionTransfer { pairs, power } => {
            features::over(site, pairs, |site, taps| features::attention_transfer(site, taps, *power))
        }
        Objective::Similarity { pairs } => features::over(site, pairs, |site, taps| relations::similarity(site, &taps)),
        Objective::Relational { pairs, distance, angle } => {
            features::over(site, pairs, |site, taps| relations::relational(site, &taps, [*distance, *angle]))
        }
        Objective::Pkt { pairs } => features::over(site, pairs, |site, taps| relations::pkt(site, &taps)),
        Objective::Fsp { pairs } => features::fsp(site, pairs),
        Objective::Nst { pairs } => features::over(site, pairs, features::nst),
        Objective::Crd { pairs, size, temperature } => {
            features::over(site, pairs, |site, taps| relations::crd(site, &taps, *size, *temperature))
        }
        Objective::Vid { pairs } => features::over(site, pairs, features::vid),
        Objective::TinybertAttention { pairs } => features::over(site, pairs, transformer::scores),
        Objective::Minilm { scores, values } => transformer::minilm(site, scores, values),
        Objective::MinilmV2 { queries, keys, values, heads } => {
            transformer::minilm_v2(site, [queries, keys, values], *heads)
        }
    }
}
