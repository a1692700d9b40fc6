//! Where a network becomes integers: by its ranges, by what the runtime is quicker with, and by what its budget leaves in floats.

use serde::{Deserialize, Serialize};

use super::report::{Harm, Precision};
use super::{Quantized, Work, written};
use crate::compress::quantize::mixed::{Mixed, mixed};
use crate::compress::quantize::options::{Choice, Ports, QuantizeOptions, Target};
use crate::compress::quantize::slow::{Slow, slow_nodes};
use crate::compress::quantize::{self, Plan, QuantizeError, Ranges, Scales};
use crate::graph::probe::Score as _;
use crate::graph::{Graph, Name, Node, Op};
use crate::recipe::RecipeError;
use crate::recipe::look::Shown;
use crate::recipe::samples::Samples;

/// Where a network's values become integers, and by which scales.
pub(in crate::recipe) struct Calibrated {
    pub(in crate::recipe) plan: Plan,
    pub(in crate::recipe) scales: Scales,
    pub(super) ranges: Ranges,
    pub(super) by: Option<String>,
    /// What is left in floats; none where nobody looked.
    pub(in crate::recipe) left: Option<Left>,
    pub(super) harm: Option<Harm>,
    pub(super) mixed: Option<Precision>,
}

/// Nodes that were found to be better off in floats, by the first output of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Left {
    /// Those that integers make slower; their weights are narrow all the same.
    pub slow: Vec<Name>,
    /// Those that the network's budget of accuracy has no room for.
    pub sensitive: Vec<Name>,
    /// Whether recurrent operators that could be written out stay whole, which is quicker.
    #[serde(skip_serializing_if = "is_false")]
    pub recurrent_whole: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde gives a reference
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Left {
    /// Whether anybody has anything to find out.
    pub(in crate::recipe) fn is_sought(options: &QuantizeOptions, target: Target) -> bool {
        options.budget.is_something() || Left::seeks_slow(options, target)
    }

    /// Whether integers that are slower than floats go back to them. Inputs and outputs that are integers must stay so.
    pub(super) fn seeks_slow(options: &QuantizeOptions, target: Target) -> bool {
        !options.keep_slow && target != Target::Any && options.ports != Some(Ports::Int)
    }
}

impl Work<'_> {
    /// Where its values become integers, and by which scales.
    pub(in crate::recipe) fn calibrated(&mut self) -> Result<Calibrated, RecipeError> {
        let plan = quantize::plan(&self.look.model.graph, self.look.types, &self.choice.scheme)?;
        let values: Vec<Name> = plan.values.keys().cloned().collect();
        let (ranges, by) = self.ranges(&values, self.choice.calibrator.needs_histogram())?;
        let scales = self.scales(&plan, &ranges)?;
        Ok(Calibrated { plan, scales, ranges, by, left: None, harm: None, mixed: None })
    }

    /// What these values look like, and by which runtime.
    pub(super) fn ranges(
        &mut self,
        values: &[Name],
        histograms: bool,
    ) -> Result<(Ranges, Option<String>), RecipeError> {
        const MISSING: &str = "ranges of activations come from samples; give some hundreds, or quantize weights alone";
        if let Some(Samples::Ranges(ranges)) = self.look.samples {
            return Ok(((**ranges).clone(), None));
        }
        let Shown { mut network, batches } = self.look.shown(values, MISSING)?;
        let ranges = quantize::calibrate(network.as_mut(), values, histograms, batches, &mut *self.look.told)?;
        Ok((ranges, Some(self.look.runtime.name().to_string())))
    }

    fn scales(&self, plan: &Plan, ranges: &Ranges) -> Result<Scales, QuantizeError> {
        let bounds = ranges.bounds(&plan.values, self.choice.calibrator)?;
        quantize::scales(&self.look.model.graph, plan, &bounds)
    }

    /// What is left of it where floats are not better: by what a run before has found, or by what is found now.
    pub(in crate::recipe) fn settled(
        &self,
        calibrated: Calibrated,
        known: Option<&Left>,
    ) -> Result<Calibrated, RecipeError> {
        if !Left::is_sought(self.options, self.target) {
            return Ok(calibrated);
        }
        let Calibrated { ranges, by, .. } = calibrated;
        let (left, harm, mixed) = match known {
            Some(known) => (known.clone(), None, None),
            None => self.left(&ranges)?,
        };
        let scheme = self.choice.scheme.without(left.slow.iter().chain(&left.sensitive));
        let plan = match quantize::plan(&self.look.model.graph, self.look.types, &scheme) {
            Err(QuantizeError::Nothing { .. }) => Plan::default(),
            plan => plan?,
        };
        let scales = self.scales(&plan, &ranges)?;
        Ok(Calibrated { plan, scales, ranges, by, left: Some(left), harm, mixed })
    }

    /// What is slower in integers on the runtime, and of the rest what the budget leaves in floats.
    fn left(&self, ranges: &Ranges) -> Result<(Left, Option<Harm>, Option<Precision>), RecipeError> {
        let mut left = Left::default();
        let (graph, types) = (&self.look.model.graph, self.look.types);
        let runtime = self.look.runtime.name().to_string();
        let mut harm = None;
        if Left::seeks_slow(self.options, self.target) {
            let written = written(&self.choice, self.target, &[]);
            let mut scorer = self.look.scorer(&written)?;
            let slow = slow_nodes(graph, types, &self.choice, ranges, &mut scorer)?;
            left.slow.clone_from(&slow.nodes);
            harm = Some(Harm { runtime: runtime.clone(), slow, seconds: scorer.seconds });
        }
        if !self.options.budget.is_something() {
            return Ok((left, harm, None));
        }
        let choice = Choice { scheme: self.choice.scheme.without(&left.slow), ..self.choice.clone() };
        let slow = left.slow.clone();
        let written = written(&choice, self.target, &slow);
        let mut scorer = self.look.scorer(&written)?;
        scorer.judge = Some(self.look.judge(None)?);
        let mixed = match quantize::plan(graph, types, &choice.scheme) {
            Err(QuantizeError::Nothing { .. }) => {
                let quality = scorer.quality(graph).map_err(QuantizeError::from)?;
                Mixed { floats: Vec::new(), layers: Vec::new(), in_floats: quality, quality, is_met: true }
            }
            _ => mixed(graph, types, &choice, ranges, &self.options.budget, &mut scorer, &mut |_, _| ())?,
        };
        left.sensitive.clone_from(&mixed.floats);
        let precision = Precision { runtime, mixed, seconds: scorer.seconds };
        Ok((left, harm, Some(precision)))
    }

    /// How long a network of narrow weights takes on the runtime in times of floats, where it computes otherwise than floats.
    pub(super) fn harm_of(&self, quantized: &Quantized) -> Result<Option<Harm>, RecipeError> {
        let computes_otherwise = |node: &Node| {
            matches!(
                node.op,
                Op::DequantizeLinear(_) | Op::DynamicQuantizeLinear | Op::DynamicQuantizeLSTM(_) | Op::MatMulNBits(_)
            )
        };
        let graph = &quantized.model.graph;
        if !Left::seeks_slow(self.options, self.target) || !graph.nodes.iter().any(computes_otherwise) {
            return Ok(None);
        }
        let written = |graph: &Graph| Ok(graph.clone());
        let timed = || {
            let mut scorer = self.look.scorer(&written)?;
            let all = scorer.time_ratio(&self.look.model.graph, graph).map_err(QuantizeError::from)?;
            Ok::<_, RecipeError>((all, scorer.seconds))
        };
        let (all, seconds) = match timed() {
            // What is made up need not fit a network that takes no samples to quantize.
            Err(error) if self.look.samples.is_none() => {
                tracing::warn!("the network is not timed: {error}; give samples, or `keep_slow`");
                return Ok(None);
            }
            timed => timed?,
        };
        let slow = Slow { nodes: Vec::new(), regions: Vec::new(), all, rest: None };
        Ok(Some(Harm { runtime: self.look.runtime.name().to_string(), slow, seconds }))
    }

    /// Says how good the network is that is written, where another was judged before.
    pub(super) fn rejudge(&self, quantized: &mut Quantized) -> Result<(), RecipeError> {
        let Some(Precision { mixed, .. }) = &mut quantized.report.mixed else { return Ok(()) };
        let written = |graph: &Graph| Ok(graph.clone());
        let mut scorer = self.look.scorer(&written)?;
        scorer.judge = Some(self.look.judge(None)?);
        let graph = &quantized.model.graph;
        mixed.quality = scorer.quality(graph).map_err(QuantizeError::from)?;
        let n_bytes = scorer.n_bytes(graph).map_err(QuantizeError::from)?;
        let budget = &self.options.budget;
        let is_kept = budget.is_kept(&mixed.in_floats, &mixed.quality)?;
        mixed.is_met &= is_kept && budget.bytes.is_none_or(|most| n_bytes <= most);
        Ok(())
    }
}
