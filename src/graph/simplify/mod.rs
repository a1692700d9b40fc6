//! Rewrites that leave a network smaller or quicker and every value as it was, up to rounding.
//!
//! One ordered list, repeated until nothing changes. A rewrite looks at one node at a time and either edits, or says
//! nothing because it does not match, or says why it does not do what it matched.

mod activations;
mod batch_norm;
mod channels;
mod constants;
mod edits;
mod layer_norm;
mod linear;
mod pad;
mod pattern;
#[cfg(test)]
mod testing;

use super::patch::PatchError;
use super::shape::{self, Bindings, ShapeError, Types};
use super::uses::Uses;
use super::{CheckError, Graph};
use edits::Edits;

/// How to simplify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keeps weights that are stored narrow and widened by a `Cast` (f16) as they are: the file stays small, and runtimes
    /// widen them when they load it.
    pub keep_narrow_weights: bool,
    /// Introduces no operator that is newer than this version of ONNX's operator set; none: any.
    pub opset: Option<u32>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The rewrite's name.
    pub rewrite: &'static str,
    /// The node that it began at.
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

/// What a rewrite sees.
struct View<'a> {
    graph: &'a Graph,
    types: &'a Types,
    uses: Uses<'a>,
    options: &'a Options,
}

/// A rewrite: `at` is called for every node in order and edits, declines or does nothing.
struct Rewrite {
    name: &'static str,
    at: fn(&View<'_>, usize, &mut Edits),
}

/// The rewrites in the order of a round.
const REWRITES: &[Rewrite] = &[
    Rewrite { name: "recognise LayerNormalization", at: layer_norm::layer_norm },
    Rewrite { name: "recognise RMSNormalization", at: layer_norm::rms_norm },
    Rewrite { name: "recognise Clip", at: activations::clip },
    Rewrite { name: "recognise Relu", at: activations::relu },
    Rewrite { name: "recognise LeakyRelu", at: activations::leaky_relu },
    Rewrite { name: "recognise Gelu", at: activations::gelu },
    Rewrite { name: "recognise HardSwish", at: activations::hard_swish },
    Rewrite { name: "recognise HardSigmoid", at: activations::hard_sigmoid },
    Rewrite { name: "recognise Mish", at: activations::mish },
    Rewrite { name: "recognise Softplus", at: activations::softplus },
    Rewrite { name: "recognise Swish", at: activations::swish },
    Rewrite { name: "fold pad", at: pad::fold },
    Rewrite { name: "fold batch norm", at: batch_norm::fold },
    Rewrite { name: "fold scale", at: channels::fold_scale },
    Rewrite { name: "fold bias", at: channels::fold_bias },
];

/// How often the list is gone through at most; a network needs two or three.
const MOST_ROUNDS: usize = 32;

/// Applies every rewrite until none has anything left to do.
///
/// # Errors
/// When the graph's types do not fit together.
pub fn simplify(graph: &Graph, options: &Options) -> Result<Simplified, SimplifyError> {
    let mut simplified = Simplified { graph: graph.clone(), applied: Vec::new(), declined: Vec::new() };
    for _ in 0..MOST_ROUNDS {
        let n_applied = simplified.applied.len();
        simplified.declined.clear();
        for rewrite in REWRITES {
            pass(rewrite, options, &mut simplified)?;
        }
        if simplified.applied.len() == n_applied {
            break;
        }
    }
    Ok(simplified)
}

fn pass(rewrite: &'static Rewrite, options: &Options, simplified: &mut Simplified) -> Result<(), SimplifyError> {
    let graph = simplified.graph.clone();
    let types = shape::infer(&graph, &Bindings::default())?;
    let view = View { graph: &graph, types: &types, uses: Uses::of(&graph), options };
    let mut edits = Edits::new(&graph, rewrite.name);
    for node_idx in 0..graph.nodes.len() {
        (rewrite.at)(&view, node_idx, &mut edits);
    }
    let (patch, applied, declined) = edits.finish();
    if let Some(patch) = patch {
        let failed = |source| SimplifyError::Patch { rewrite: rewrite.name, source };
        simplified.graph = patch.apply(Some(&types)).map_err(failed)?;
    }
    simplified.applied.extend(applied);
    simplified.declined.extend(declined);
    Ok(())
}
