//! Rewrites that leave a network smaller or quicker and every value as it was, up to rounding.
//!
//! Two ordered lists, repeated until nothing changes: sweeps, which look at a graph as a whole, and rewrites, which look at
//! one node at a time. Either edits, or says nothing because it does not match, or says why it does not do what it matched.
//! Branches and bodies are simplified like the graph around them.

mod activations;
mod batch_norm;
mod branch;
mod channels;
mod constants;
mod dead;
mod duplicates;
mod edits;
mod fold;
mod layer_norm;
mod layout;
mod linear;
mod narrow;
mod no_op;
mod pad;
mod pattern;
mod recurrent;
mod reshape;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transpose;
mod view;

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::patch::{PatchError, map_bodies};
use super::shape::{self, Bindings, ShapeError, Types};
use super::uses::Uses;
use super::{CheckError, Graph, Name, TensorType, ValueInfo};
use edits::Edits;
use view::View;

/// How to simplify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keeps weights that are stored narrow and widened by a `Cast` (f16) as they are: the file stays small, and runtimes
    /// widen them when they load it.
    pub keep_narrow_weights: bool,
    /// Leaves constants that the file also lists among its inputs to the caller, who may give another value. Without it they
    /// are constants like any other, and no longer inputs: old exporters list every weight, and runtimes optimise none of
    /// those.
    pub keep_overridable: bool,
    /// Leaves batch normalisations as they are: a network that is to be trained further learns better with them.
    pub keep_batch_norms: bool,
    /// Introduces no operator that is newer than this version of ONNX's operator set; none: any.
    pub opset: Option<u32>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The rewrite's name.
    pub rewrite: &'static str,
    /// The node that it began at, or the constant that it concerns.
    pub node: String,
}

/// One thing that matched and was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The rewrite's name.
    pub rewrite: &'static str,
    /// The node that it began at.
    pub node: String,
    /// Why not.
    pub reason: String,
}

/// A simplified graph, and how it came about.
#[derive(Clone, Debug)]
pub struct Simplified {
    /// The result.
    pub graph: Graph,
    /// What was done, in order.
    pub applied: Vec<Applied>,
    /// What was not done although it matched.
    pub declined: Vec<Declined>,
}

/// Why a graph cannot be simplified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimplifyError {
    /// The types of the graph do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The graph is no graph.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A rewrite made something that does not fit: a fault of aludel's.
    #[error("the rewrite `{rewrite}` does not fit: {source}")]
    Patch {
        /// the rewrite's name
        rewrite: &'static str,
        /// what does not fit
        source: PatchError,
    },
}

/// A rewrite of single nodes: `at` is called for every node in order and edits, declines or does nothing.
struct Rewrite {
    name: &'static str,
    at: fn(&View<'_>, usize, &mut Edits),
}

/// A rewrite that looks at the graph as a whole.
struct Sweep {
    name: &'static str,
    over: fn(&View<'_>, &mut Edits),
}

/// The sweeps in the order of a round; the rewrites come after them.
const SWEEPS: &[Sweep] = &[
    // First, so that all others see numbers where numbers are known.
    Sweep { name: "fold constant", over: fold::over },
    // Before anything counts who reads a value.
    Sweep { name: "remove dead code", over: dead::over },
    // Equal constants make equal nodes.
    Sweep { name: "merge equal constants", over: duplicates::constants },
    Sweep { name: "merge equal nodes", over: duplicates::nodes },
];

/// The rewrites in the order of a round.
const REWRITES: &[Rewrite] = &[
    // What is not needed goes before anything is matched through it.
    Rewrite { name: "inline branch", at: branch::at },
    Rewrite { name: "remove no-op", at: no_op::at },
    Rewrite { name: "make shape constant", at: reshape::computed },
    Rewrite { name: "merge reshapes", at: reshape::consecutive },
    // A recurrent state of zeros is what the operator starts with by itself, and what keeps its shape computed.
    Rewrite { name: "leave out zero state", at: recurrent::at },
    // Transposes move towards each other, cancel, or end in what can take them; a region moves only where fewer remain.
    Rewrite { name: "merge transposes", at: transpose::consecutive },
    Rewrite { name: "work in the order from before a transpose", at: layout::at },
    Rewrite { name: "reduce before a transpose", at: transpose::into_reduction },
    Rewrite { name: "transpose in Gemm", at: transpose::into_gemm },
    Rewrite { name: "transpose weights instead", at: transpose::into_weights },
    Rewrite { name: "make transpose a reshape", at: transpose::as_reshape },
    // Only with narrow weights kept.
    Rewrite { name: "take rows before widening", at: narrow::at },
    // Formulas become operators. Normalisations first, since their parts would match smaller formulas; Clip before what is made of it.
    Rewrite { name: "recognise LayerNormalization", at: layer_norm::layer_norm },
    Rewrite { name: "recognise RMSNormalization", at: layer_norm::rms_norm },
    Rewrite { name: "recognise Clip", at: activations::clip },
    Rewrite { name: "recognise Relu", at: activations::relu },
    Rewrite { name: "recognise LeakyRelu", at: activations::leaky_relu },
    Rewrite { name: "recognise Gelu", at: activations::gelu },
    Rewrite { name: "recognise HardSwish", at: activations::hard_swish },
    Rewrite { name: "recognise HardSigmoid", at: activations::hard_sigmoid },
    Rewrite { name: "recognise Mish", at: activations::mish },
    // Into the weights, last: a batch norm, its scale and its bias are then next to the product that takes them.
    Rewrite { name: "fold pad", at: pad::fold },
    Rewrite { name: "fold batch norm", at: batch_norm::fold },
    Rewrite { name: "fold scale", at: channels::fold_scale },
    Rewrite { name: "fold bias", at: channels::fold_bias },
];

/// How often the lists are gone through at most; a network needs two or three.
const MOST_ROUNDS: usize = 64;

/// Applies every rewrite until none has anything left to do.
///
/// # Errors
/// When the graph's types do not fit together.
pub fn simplify(graph: &Graph, options: &Options) -> Result<Simplified, SimplifyError> {
    let mut applied = Vec::new();
    let graph = if options.keep_overridable { graph.clone() } else { frozen(graph, &mut applied)? };
    let mut state = State { options, types: infer(&graph)?, graph, applied, declined: vec![] };
    for _ in 0..MOST_ROUNDS {
        let n_applied = state.applied.len();
        state.declined.clear();
        for sweep in SWEEPS {
            state.pass(sweep.name, &|view, edits| (sweep.over)(view, edits))?;
        }
        for rewrite in REWRITES {
            state.pass(rewrite.name, &|view, edits| {
                (0..view.graph.nodes.len()).for_each(|node_idx| (rewrite.at)(view, node_idx, edits));
            })?;
        }
        if state.applied.len() == n_applied {
            break;
        }
    }
    Ok(Simplified { graph: state.graph, applied: state.applied, declined: state.declined })
}

/// The graph with every constant its own.
fn frozen(graph: &Graph, applied: &mut Vec<Applied>) -> Result<Graph, CheckError> {
    let mut parts = graph.to_parts();
    let freeze = |name: Name| Applied { rewrite: "freeze constant", node: format!("constant `{name}`") };
    applied.extend(std::mem::take(&mut parts.overridable).into_iter().map(freeze));
    if applied.is_empty() { Ok(graph.clone()) } else { Graph::new(parts) }
}

/// The types of a graph whose constants may be given another value by the caller: of those only the type is known.
fn infer(graph: &Graph) -> Result<Types, SimplifyError> {
    let mut graph = Cow::Borrowed(graph);
    if !graph.overridable.is_empty() {
        let mut parts = graph.to_parts();
        for name in std::mem::take(&mut parts.overridable) {
            if let Some(tensor) = parts.initializers.shift_remove(&name) {
                parts.inputs.push(ValueInfo::new(name, TensorType::of(&tensor)));
            }
        }
        graph = Cow::Owned(Graph::new(parts)?);
    }
    Ok(shape::infer(&graph, &Bindings::default())?)
}

struct State<'a> {
    options: &'a Options,
    graph: Graph,
    types: Types,
    applied: Vec<Applied>,
    declined: Vec<Declined>,
}

type Pass<'a> = &'a dyn Fn(&View<'_>, &mut Edits);

impl State<'_> {
    fn pass(&mut self, name: &'static str, pass: Pass<'_>) -> Result<(), SimplifyError> {
        let n_applied = self.applied.len();
        let (graph, types) = (self.graph.clone(), std::mem::take(&mut self.types));
        let mut names = BTreeSet::new();
        if graph.nodes.iter().any(|node| !node.op.bodies().is_empty()) {
            names = graph.all_names();
        }
        let changed = self.pass_over(name, pass, &graph, &types, None, &mut names);
        self.graph = changed.map_err(|source| SimplifyError::Patch { rewrite: name, source })?;
        self.types = if self.applied.len() == n_applied { types } else { infer(&self.graph)? };
        Ok(())
    }

    /// One graph after its bodies. `names` are all names of the whole network, new ones of this pass included.
    fn pass_over(
        &mut self,
        name: &'static str,
        pass: Pass<'_>,
        graph: &Graph,
        types: &Types,
        around: Option<&View<'_>>,
        names: &mut BTreeSet<Name>,
    ) -> Result<Graph, PatchError> {
        let mut graph = graph.clone();
        if graph.nodes.iter().any(|node| !node.op.bodies().is_empty()) {
            let before = graph.clone();
            let view = View { graph: &before, types, uses: Uses::of(&before), options: self.options, around };
            graph = map_bodies(&before, |node_idx, body_idx, body| match types.body(node_idx, body_idx) {
                Some(types) if !types.is_empty() => self.pass_over(name, pass, body, types, Some(&view), names),
                // the types of a body that is never run, or of an opaque operator's, may not fit
                Some(_) | None => Ok(body.clone()),
            })?;
        }
        let view = View { graph: &graph, types, uses: Uses::of(&graph), options: self.options, around };
        let mut edits = Edits::new(&graph, name, names.clone());
        pass(&view, &mut edits);
        let (patch, applied, declined) = edits.finish();
        self.applied.extend(applied);
        self.declined.extend(declined);
        let Some(patch) = patch else { return Ok(graph) };
        let changed = patch.apply(Some(types))?;
        if around.is_some() {
            names.extend(changed.all_names());
        }
        Ok(changed)
    }
}
