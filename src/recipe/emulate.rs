//! A runtime that computes in integers as another machine does: onnxruntime there, foretold here.
//!
//! A file in Q/DQ form is brought to operators on integers first, as onnxruntime does when it loads it. What stays in floats is
//! computed by the reference.

use indexmap::IndexMap;

use super::RecipeError;
use crate::compress::quantize::qoperator::{QOperatorOptions, to_qoperator};
use crate::graph::shape::{self, Bindings};
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Graph, Name, Op, ValueInfo};
use crate::learn::integer::{Arithmetic, IntegerError, Network, Saturation};
use crate::measure::runtime::explain::{Explanation, Runs};
use crate::measure::runtime::{self, Doing, ModelBytes, Options, Runtime, RuntimeError, Session};
use crate::onnx;

/// A machine, by its name in [`Arithmetic::NAMED`].
///
/// ```
/// use aludel::measure::runtime::Runtime as _;
/// use aludel::recipe::emulate::Emulated;
///
/// let old = Emulated::named("x86-avx2")?;
/// assert_eq!(old.name(), "x86-avx2");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulated {
    name: &'static str,
    arithmetic: Arithmetic,
}

impl Emulated {
    /// The machine of this name.
    ///
    /// # Errors
    /// In words, with the names that there are.
    pub fn named(name: &str) -> Result<Emulated, String> {
        let arithmetic = name.parse()?;
        let known = Arithmetic::NAMED.iter().find(|(known, _)| *known == name);
        Ok(Emulated { name: known.map_or("", |(known, _)| known), arithmetic })
    }

    /// How it computes.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }
}

/// What can saturate in a network's products of integers, by their weights alone, and what does on these inputs. An empty list
/// of batches gives the former.
///
/// # Errors
/// When the network's types do not fit together, it cannot be computed as the machine would, or inputs do not fit it.
pub fn saturation(
    graph: &Graph,
    arithmetic: Arithmetic,
    batches: &[IndexMap<Name, Tensor>],
) -> Result<Vec<Saturation>, RecipeError> {
    let network = network(graph, arithmetic)?;
    let mut found = network.saturation();
    for batch in batches {
        for (sum, one) in found.iter_mut().zip(network.run(batch)?.saturation) {
            sum.n_sums += one.n_sums;
            sum.n_saturated += one.n_saturated;
        }
    }
    Ok(found)
}

/// onnxruntime on x86 takes signed activations between Q and DQ as unsigned ones; those of operators on integers it leaves.
fn network(graph: &Graph, arithmetic: Arithmetic) -> Result<Network, RecipeError> {
    let is_qdq = graph.nodes.iter().any(|node| matches!(node.op, Op::QuantizeLinear(_)));
    let graph = to_qoperator(graph, &QOperatorOptions { microsoft: true })?.graph;
    Ok(Network::new(&graph, arithmetic, is_qdq)?)
}

/// A network at hand.
struct Emulation {
    name: &'static str,
    model: String,
    network: Network,
    inputs: Vec<runtime::ValueInfo>,
    outputs: Vec<runtime::ValueInfo>,
}

impl Runtime for Emulated {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_string()
    }

    fn load(&self, model: &ModelBytes, options: &Options) -> Result<Box<dyn Session>, RuntimeError> {
        let refuse = |option: &str| Err(RuntimeError::Option { runtime: self.name, option: option.to_string() });
        if options.optimized_model.is_some() {
            return refuse("optimized graph to write");
        }
        if options.profile.is_some() {
            return refuse("profile: it is computed here, and its times say nothing of that machine");
        }
        let refused = |reason: String| RuntimeError::Refused {
            runtime: self.name,
            doing: Doing::Load,
            model: model.name(),
            node: None,
            reason,
        };
        let read = onnx::read_bytes(model.bytes().clone(), model.folder());
        let read = read.map_err(|error| refused(error.to_string()))?;
        let network = network(&read.graph, self.arithmetic).map_err(|error| refused(error.to_string()))?;
        network.check().map_err(|error| refused(error.to_string()))?;
        let inputs = read.graph.inputs.iter().filter(|input| !read.graph.overridable.contains(&input.name));
        let types = shape::infer(&read.graph, &Bindings::default()).ok();
        let output = |output: &ValueInfo| match types.as_ref().and_then(|types| types.tensor(&output.name)) {
            Some(known) => info(&ValueInfo::new(&output.name, known.clone())),
            None => info(output),
        };
        Ok(Box::new(Emulation {
            name: self.name,
            model: model.name(),
            network,
            inputs: inputs.map(info).collect(),
            outputs: read.graph.outputs.iter().map(output).collect(),
        }))
    }

    fn explain(
        &self,
        _model: &ModelBytes,
        _options: &Options,
        _inputs: &[(String, Tensor)],
        _runs: Runs,
    ) -> Result<Explanation, RuntimeError> {
        let option = "times to explain: it is computed here, not on that machine".to_string();
        Err(RuntimeError::Option { runtime: self.name, option })
    }
}

impl Session for Emulation {
    fn inputs(&self) -> &[runtime::ValueInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[runtime::ValueInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        runtime::ordered(&self.model, &self.inputs, inputs)?;
        let inputs = inputs.iter().map(|(name, tensor)| (Name::from(name.as_str()), tensor.clone())).collect();
        let ran = self.network.run(&inputs).map_err(|error| {
            let node = match &error {
                IntegerError::Unsupported { node, .. }
                | IntegerError::Invalid { node, .. }
                | IntegerError::Reference { node, .. } => Some(node.clone()),
                IntegerError::NoValue(_) | IntegerError::Tensor(_) => None,
            };
            let (model, reason) = (self.model.clone(), error.to_string());
            RuntimeError::Refused { runtime: self.name, doing: Doing::Run, model, node, reason }
        })?;
        Ok(ran.outputs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect())
    }
}

fn info(value: &ValueInfo) -> runtime::ValueInfo {
    let known = value.tensor_type();
    let dim = |dim: &Dim| match dim {
        Dim::Known(size) => runtime::Dim::Known(*size),
        Dim::Symbol(symbol) => runtime::Dim::Symbol(symbol.to_string()),
        Dim::Unknown => runtime::Dim::Unknown,
    };
    let dims = known.and_then(|known| known.shape.as_ref()).map(|dims| dims.iter().map(dim).collect());
    runtime::ValueInfo { name: value.name.to_string(), dtype: known.map(|known| known.dtype), dims }
}
