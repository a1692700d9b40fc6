//! Transformer encoder with a classification head.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Activation, Net, integer};
use super::sequence;
use crate::graph::op::{self, Op};
use crate::graph::tensor::DType;
use crate::graph::{Graph, Name};

/// Devlin et al., "BERT" (2019): embedded tokens, positions and token types, encoder layers normalised after each
/// residual (Vaswani et al. 2017), and a classifier of the first token's state behind a linear map and tanh.
///
/// Inputs: ids `[tokens]`; optionally their mask `[tokens]` or number `[]`; optionally token types, `i64 [tokens]`, as
/// the third.
///
/// Names are Hugging Face's of `BertModel`, without its prefix `bert.`: `embeddings.word_embeddings.weight`,
/// `embeddings.position_embeddings.weight`, `embeddings.token_type_embeddings.weight`, `embeddings.LayerNorm.*`; in
/// `encoder.layer.{i}`: `attention.self.query.*`, `attention.self.key.*`, `attention.self.value.*`,
/// `attention.output.dense.*`, `attention.output.LayerNorm.*`, `intermediate.dense.*`, `output.dense.*`,
/// `output.LayerNorm.*`; `pooler.dense.*`, `classifier.*`. The weights of the linear maps in `encoder` are `[in, out]`,
/// theirs transposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bert {
    /// The size of a token's state.
    pub hidden: usize,
    /// The number of encoder layers.
    pub layers: usize,
    /// The number of attention heads; divides `hidden`.
    pub heads: usize,
    /// The size inside the feed-forward parts; by default four times `hidden`.
    pub intermediate: Option<usize>,
    /// The length of the longest sequence.
    pub positions: usize,
    /// The number of token types. Without an input of them, each token is of the first; with 0 there are none.
    pub token_types: usize,
    /// The share of elements dropped of embeddings, attention weights, and what enters a residual sum or the
    /// classifier.
    pub dropout: f32,
}

impl Default for Bert {
    fn default() -> Bert {
        Bert { hidden: 128, layers: 2, heads: 2, intermediate: None, positions: 512, token_types: 2, dropout: 0.1 }
    }
}

const EPSILON: f32 = 1e-12;

/// What is added to the score of a token that is not there. Enough to make its weight zero in `f32`, and a number in
/// `f16`.
const MASKED: f32 = 1e4;

pub(super) fn build(parameters: &Bert, mut net: Net<'_>) -> Result<Graph, ZooError> {
    check(parameters, &net)?;
    sequence::check_n_inputs(&net, 3, "give ids, a mask or a length, and token types")?;
    let (ids, n_ids) = sequence::ids(&mut net)?;
    let length = sequence::length(&mut net)?;
    let types = token_types(parameters, &mut net)?;
    let mask = length.map(|length| {
        let mask = sequence::mask(&mut net, &ids, &length);
        score_mask(&mut net, &mask)
    });
    let mut value = embeddings(&mut net, parameters, &ids, n_ids, types.as_ref());
    for idx in 0..parameters.layers {
        value = encoder_layer(&mut net, &format!("encoder.layer.{idx}"), parameters, &value, mask.as_ref());
    }
    let first = net.integer("pooler.position", 0);
    let state = net.node("pooler.first", Op::Gather(op::Gather { axis: 1 }), &[&value, &first]);
    let state = net.linear("pooler.dense", &state, parameters.hidden, parameters.hidden);
    let state = net.activation("pooler", Activation::Tanh, &state);
    net.finish("classifier", &state, parameters.hidden, parameters.dropout)
}

fn check(parameters: &Bert, net: &Net<'_>) -> Result<(), ZooError> {
    net.check_size("hidden", parameters.hidden)?;
    net.check_size("layers", parameters.layers)?;
    net.check_size("heads", parameters.heads)?;
    net.check_size("intermediate", intermediate(parameters))?;
    net.check_size("positions", parameters.positions)?;
    net.check_dropout(parameters.dropout)?;
    if parameters.token_types != 0 {
        net.check_size("token_types", parameters.token_types)?;
    }
    if !parameters.hidden.is_multiple_of(parameters.heads) {
        let problem = format!("is {}, which {} heads do not divide", parameters.hidden, parameters.heads);
        return Err(net.wrong("hidden", problem, "give a multiple of `heads`"));
    }
    let tokens = net.task.inputs.first().and_then(|input| input.shape.first().copied().flatten());
    if let Some(tokens) = tokens.filter(|&tokens| tokens > parameters.positions) {
        let problem = format!("is {}, less than the {tokens} tokens of a sample", parameters.positions);
        return Err(net.wrong("positions", problem, "give as many, or have the samples cut"));
    }
    Ok(())
}

fn intermediate(parameters: &Bert) -> usize {
    parameters.intermediate.unwrap_or(parameters.hidden.saturating_mul(4))
}

/// The task's third input.
fn token_types(parameters: &Bert, net: &mut Net<'_>) -> Result<Option<Name>, ZooError> {
    let (Some(ids), Some(input)) = (net.task.inputs.first(), net.task.inputs.get(2)) else { return Ok(None) };
    if parameters.token_types == 0 {
        let problem = format!("is 0, and input `{}` holds token types", input.name);
        return Err(net.wrong("token_types", problem, "give their number, or leave out the input"));
    }
    if !matches!(input.dtype, DType::I64 | DType::I32) || input.shape != ids.shape {
        let problem = format!("input `{}` should hold token types", input.name);
        return Err(net.misfit(problem, "give them as i64, in the shape of the ids"));
    }
    Ok(Some(net.input(input)))
}

/// `f32 [batch, 1, 1, tokens]`: zero for a token that is there, far below zero otherwise.
fn score_mask(net: &mut Net<'_>, mask: &Name) -> Name {
    let one = net.float("encoder.mask.one", 1.0);
    let factor = net.float("encoder.mask.factor", MASKED);
    let value = net.node("encoder.mask.sub", Op::Sub, &[mask, &one]);
    let value = net.node("encoder.mask.mul", Op::Mul, &[&value, &factor]);
    let axes = net.integers("encoder.mask.axes", vec![1, 2]);
    net.node("encoder.mask", Op::Unsqueeze, &[&value, &axes])
}

fn embeddings(net: &mut Net<'_>, parameters: &Bert, ids: &Name, n_ids: usize, types: Option<&Name>) -> Name {
    let hidden = parameters.hidden;
    let mut value = net.embedding("embeddings.word_embeddings", ids, n_ids, hidden);
    if parameters.token_types > 0 {
        let types = types.cloned().unwrap_or_else(|| net.integer("embeddings.token_type", 0));
        let types = net.embedding("embeddings.token_type_embeddings", &types, parameters.token_types, hidden);
        value = net.node("embeddings.add_types", Op::Add, &[&value, &types]);
    }
    let positions = sequence::positions(net, "embeddings.positions", ids);
    let positions = net.embedding("embeddings.position_embeddings", &positions, parameters.positions, hidden);
    value = net.node("embeddings.add_positions", Op::Add, &[&value, &positions]);
    value = net.layer_norm("embeddings.LayerNorm", &value, hidden, EPSILON);
    net.dropout("embeddings.dropout", &value, parameters.dropout)
}

fn encoder_layer(net: &mut Net<'_>, path: &str, parameters: &Bert, value: &Name, mask: Option<&Name>) -> Name {
    let (hidden, inner) = (parameters.hidden, intermediate(parameters));
    let context = self_attention(net, &format!("{path}.attention.self"), parameters, value, mask);
    let value = residual(net, &format!("{path}.attention.output"), parameters, &context, hidden, value);
    let path_in = format!("{path}.intermediate");
    let made = net.linear_of_sequence(&format!("{path_in}.dense"), &value, hidden, inner);
    let made = net.activation(&path_in, Activation::Gelu, &made);
    residual(net, &format!("{path}.output"), parameters, &made, inner, &value)
}

/// `LayerNorm(skip + dropout(dense(value)))`
fn residual(net: &mut Net<'_>, path: &str, parameters: &Bert, value: &Name, size: usize, skip: &Name) -> Name {
    let made = net.linear_of_sequence(&format!("{path}.dense"), value, size, parameters.hidden);
    let made = net.dropout(&format!("{path}.dropout"), &made, parameters.dropout);
    let sum = net.node(&format!("{path}.add"), Op::Add, &[&made, skip]);
    net.layer_norm(&format!("{path}.LayerNorm"), &sum, parameters.hidden, EPSILON)
}

/// `softmax(Q Kᵀ / √head_size + mask) V` for each head, `[batch, tokens, hidden]`.
fn self_attention(net: &mut Net<'_>, path: &str, parameters: &Bert, value: &Name, mask: Option<&Name>) -> Name {
    let head_size = parameters.hidden / parameters.heads;
    let [queries, values] = ["query", "value"].map(|part| heads(net, path, part, parameters, value, &[0, 2, 1, 3]));
    let keys = heads(net, path, "key", parameters, value, &[0, 2, 3, 1]);
    let scores = net.node(&format!("{path}.scores"), Op::MatMul, &[&queries, &keys]);
    let scale = net.float(&format!("{path}.scale"), (1.0 / (head_size as f64).sqrt()) as f32);
    let mut scores = net.node(&format!("{path}.scaled"), Op::Mul, &[&scores, &scale]);
    if let Some(mask) = mask {
        scores = net.node(&format!("{path}.masked"), Op::Add, &[&scores, mask]);
    }
    let weights = net.node(&format!("{path}.softmax"), Op::Softmax(op::Softmax { axis: -1 }), &[&scores]);
    let weights = net.dropout(&format!("{path}.dropout"), &weights, parameters.dropout);
    let context = net.node(&format!("{path}.context"), Op::MatMul, &[&weights, &values]);
    let transpose = Op::Transpose(op::Transpose { perm: vec![0, 2, 1, 3] });
    let context = net.node(&format!("{path}.context.transpose"), transpose, &[&context]);
    let shape = net.integers(&format!("{path}.context.shape"), vec![0, 0, integer(parameters.hidden)]);
    net.node(&format!("{path}.context.reshape"), Op::Reshape(op::Reshape { allowzero: false }), &[&context, &shape])
}

/// A linear map of `[batch, tokens, hidden]`, its outputs `[batch, tokens, heads, head_size]` in the order of `perm`.
fn heads(net: &mut Net<'_>, path: &str, part: &str, parameters: &Bert, value: &Name, perm: &[i64]) -> Name {
    let path = format!("{path}.{part}");
    let made = net.linear_of_sequence(&path, value, parameters.hidden, parameters.hidden);
    let shape = vec![0, 0, integer(parameters.heads), integer(parameters.hidden / parameters.heads)];
    let shape = net.integers(&format!("{path}.shape"), shape);
    let split = net.node(&format!("{path}.reshape"), Op::Reshape(op::Reshape { allowzero: false }), &[&made, &shape]);
    net.node(&format!("{path}.transpose"), Op::Transpose(op::Transpose { perm: perm.to_vec() }), &[&split])
}
