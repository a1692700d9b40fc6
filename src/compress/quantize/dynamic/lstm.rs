//! An `LSTM` as com.microsoft's `DynamicQuantizeLSTM`: weights of eight bits, transposed, with a scale for each direction or
//! for each of its gates' rows.

use super::quantized;
use crate::compress::quantize::dense::{floats, reads_floats};
use crate::compress::quantize::scheme::{Granularity, Weights};
use crate::graph::op::{self, Op};
use crate::graph::patch::Patch;
use crate::graph::shape::Types;
use crate::graph::tensor::{Tensor, TensorError, turned};
use crate::graph::{Graph, Name, Node};

/// What takes an `LSTM`'s place; in words why nothing does.
pub(super) fn lower(
    graph: &Graph,
    types: &Types,
    patch: &mut Patch,
    node: &Node,
    lstm: &op::LSTM,
    weights: Weights,
) -> Result<Vec<Node>, String> {
    if lstm.layout != 0 {
        return Err("it has the batch first, which the form on integers has not".to_string());
    }
    if !reads_floats(graph, types, node, 0) {
        return Err("its first input is no activation of floats".to_string());
    }
    let [w, r] = [floats(graph, node, 1)?, floats(graph, node, 2)?];
    let n_hidden = r.shape().last().copied().unwrap_or(0);
    let [w, r] = [matrices(w, weights)?, matrices(r, weights)?];
    let mut inputs: Vec<Option<Name>> = (0..8).map(|position| node.input(position).cloned()).collect();
    for (position, matrices) in [(1, w), (2, r)] {
        let name = node.input(position).expect("a constant has a name").clone();
        inputs[position] = Some(patch.add_initializer(&format!("{name}_quantized"), matrices.integers));
        inputs.push(Some(patch.add_initializer(&format!("{name}_scale"), matrices.scales)));
        inputs.push(Some(patch.add_initializer(&format!("{name}_zero_point"), matrices.zero_points)));
    }
    let op = op::DynamicQuantizeLSTM {
        activation_alpha: lstm.activation_alpha.clone(),
        activation_beta: lstm.activation_beta.clone(),
        activations: lstm.activations.clone(),
        clip: lstm.clip,
        direction: lstm.direction,
        hidden_size: lstm.hidden_size.or(i64::try_from(n_hidden).ok()),
        input_forget: lstm.input_forget,
    };
    Ok(vec![Node { op: Op::DynamicQuantizeLSTM(op), inputs, ..node.clone() }])
}

/// The matrices of all directions, `[n_directions, columns, rows]`.
struct Matrices {
    integers: Tensor,
    scales: Tensor,
    zero_points: Tensor,
}

/// From `[n_directions, rows, columns]`, a row for each gate of each hidden unit.
fn matrices(weight: &Tensor, weights: Weights) -> Result<Matrices, String> {
    let &[n_directions, n_rows, n_columns] = weight.shape() else {
        return Err(format!("its weight has {} dimensions, not 3", weight.rank()));
    };
    let too_large = || "its weight is too large".to_string();
    let problem = |error: TensorError| error.to_string();
    let (flat, of_scales) = match weights.granularity {
        Granularity::Tensor => {
            ([n_directions, n_rows.checked_mul(n_columns).ok_or_else(too_large)?], vec![n_directions])
        }
        Granularity::Channel | Granularity::Block(_) => {
            ([n_directions.checked_mul(n_rows).ok_or_else(too_large)?, n_columns], vec![n_directions, n_rows])
        }
    };
    // A zero point of its own for each direction would do, but onnxruntime takes only those of symmetric weights.
    if !weights.symmetric {
        return Err("its weights are to be asymmetric, which onnxruntime does not take".to_string());
    }
    let constant = quantized(&weight.reshaped(&flat).map_err(problem)?, Some(0), weights)?;
    let bytes = constant.integers.bytes().ok_or("integers have bytes")?;
    if bytes.is_empty() {
        return Err("its weight is empty".to_string());
    }
    let transposed = turned(bytes, n_rows, n_columns);
    Ok(Matrices {
        integers: Tensor::from_bytes(weights.dtype.dtype(), &[n_directions, n_columns, n_rows], transposed.into())
            .map_err(problem)?,
        scales: constant.scales.reshaped(&of_scales).map_err(problem)?,
        zero_points: constant.zero_points.reshaped(&of_scales).map_err(problem)?,
    })
}
