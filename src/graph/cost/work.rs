//! How much each operator computes: one table.

use super::wide;
use crate::graph::op::{Op, Scan};
use crate::graph::shape::{Types, einsum_products};
use crate::graph::tensor::n_elements;
use crate::graph::{Dim, Node};

/// What a node does.
pub(super) enum Work {
    /// It multiplies and adds.
    Macs(u64),
    /// It computes elements one by one.
    Elementwise(u64),
    /// It computes nothing.
    Moves,
    /// It runs its bodies.
    Bodies,
}

/// How much a node computes; none where shapes are missing, or it is opaque.
pub(super) fn work(node: &Node, types: &Types) -> Option<Work> {
    let macs = |macs: Option<u64>| macs.map(Work::Macs);
    let view = View { node, types };
    match &node.op {
        Op::Conv(_) | Op::ConvInteger(_) => macs(view.conv(1)),
        Op::QLinearConv(_) => macs(view.conv(3)),
        Op::ConvTranspose(_) => macs(view.spread()),
        Op::Gemm(gemm) => macs(view.product(view.dim(0, usize::from(!gemm.trans_a)))),
        Op::QGemm(gemm) => macs(view.product(view.dim(0, usize::from(!gemm.trans_a)))),
        Op::MatMul | Op::MatMulInteger | Op::QLinearMatMul => macs(view.product(view.last_dim(0))),
        Op::MatMulNBits(product) => macs(view.product(u64::try_from(product.k).ok())),
        Op::Einsum(einsum) => macs(view.einsum(&einsum.equation)),
        Op::Attention(_) => macs(view.attention()),
        Op::RNN(_) => macs(view.recurrent(1)),
        Op::GRU(_) => macs(view.recurrent(3)),
        Op::LSTM(_) | Op::DynamicQuantizeLSTM(_) => macs(view.recurrent(4)),

        Op::AveragePool(pool) => view.pooled(&pool.kernel_shape),
        Op::MaxPool(pool) => view.pooled(&pool.kernel_shape),
        Op::QLinearAveragePool(pool) => view.pooled(&pool.kernel_shape),

        Op::Constant(_) | Op::ConstantOfShape(_) | Op::Concat(_) | Op::DepthToSpace(_) | Op::Expand => {
            Some(Work::Moves)
        }
        Op::Flatten(_) | Op::Gather(_) | Op::GatherElements(_) | Op::GatherND(_) | Op::Identity => Some(Work::Moves),
        Op::NonZero | Op::OneHot(_) | Op::Pad(_) | Op::Range(_) | Op::Reshape(_) | Op::Shape(_) => Some(Work::Moves),
        Op::ScatterElements(_) | Op::ScatterND(_) | Op::Size | Op::Slice | Op::SpaceToDepth(_) => Some(Work::Moves),
        Op::Split(_) | Op::Squeeze | Op::Tile | Op::Transpose(_) | Op::Trilu(_) | Op::Unsqueeze => Some(Work::Moves),
        Op::Where => Some(Work::Moves),

        Op::Abs | Op::Acos | Op::Acosh | Op::Add | Op::And | Op::ArgMax(_) | Op::ArgMin(_) | Op::Asin => {
            view.elements()
        }
        Op::Asinh | Op::Atan | Op::Atanh | Op::BatchNormalization(_) | Op::BiasGelu | Op::Cast(_) => view.elements(),
        Op::CastLike(_) | Op::Ceil | Op::Celu(_) | Op::Clip | Op::Cos | Op::Cosh | Op::CumSum(_) => view.elements(),
        Op::DequantizeLinear(_) | Op::Div | Op::Dropout(_) | Op::DynamicQuantizeLinear | Op::Elu(_) => view.elements(),
        Op::Equal | Op::Erf | Op::Exp | Op::FastGelu | Op::Floor | Op::Gelu(_) => view.elements(),
        Op::GlobalAveragePool | Op::GlobalMaxPool | Op::Greater | Op::GreaterOrEqual => view.elements(),
        Op::GroupNormalization(_) | Op::HardSigmoid(_) | Op::HardSwish | Op::Hardmax(_) => view.elements(),
        Op::InstanceNormalization(_) | Op::IsInf(_) | Op::IsNaN | Op::LRN(_) | Op::LayerNormalization(_) => {
            view.elements()
        }
        Op::LeakyRelu(_) | Op::Less | Op::LessOrEqual | Op::Log | Op::LogSoftmax(_) => view.elements(),
        Op::LpNormalization(_) | Op::Max | Op::Mean | Op::Min | Op::Mish | Op::Mod(_) | Op::Mul => view.elements(),
        Op::Neg | Op::Not | Op::Or | Op::PRelu | Op::Pow | Op::QLinearAdd | Op::QLinearConcat(_) => view.elements(),
        Op::QLinearGlobalAveragePool(_) | Op::QLinearLeakyRelu(_) | Op::QLinearMul => view.elements(),
        Op::QLinearSigmoid | Op::QLinearSoftmax(_) | Op::QuantizeLinear(_) => view.elements(),
        Op::RMSNormalization(_) | Op::Reciprocal | Op::ReduceL1(_) | Op::ReduceL2(_) => view.elements(),
        Op::ReduceLogSum(_) | Op::ReduceLogSumExp(_) | Op::ReduceMax(_) | Op::ReduceMean(_) => view.elements(),
        Op::ReduceMin(_) | Op::ReduceProd(_) | Op::ReduceSum(_) | Op::ReduceSumSquare(_) => view.elements(),
        Op::Relu | Op::Resize(_) | Op::Round | Op::Selu(_) | Op::Sigmoid | Op::Sign | Op::Sin => view.elements(),
        Op::Sinh | Op::SkipLayerNormalization(_) | Op::Softmax(_) | Op::Softplus | Op::Softsign => view.elements(),
        Op::Sqrt | Op::Sub | Op::Sum | Op::Swish(_) | Op::Tan | Op::Tanh | Op::ThresholdedRelu(_) => view.elements(),
        Op::TopK(_) | Op::Xor => view.elements(),

        Op::If(_) | Op::Loop(_) | Op::Scan(_) => Some(Work::Bodies),
        Op::Opaque(_) => None,
    }
}

struct View<'a> {
    node: &'a Node,
    types: &'a Types,
}

impl View<'_> {
    fn shape(&self, position: usize) -> Option<Vec<usize>> {
        self.types.known_shape(self.node.input(position)?)
    }

    fn output_shape(&self) -> Option<Vec<usize>> {
        // what is left out has the shape of nothing: a recurrent operator may name its last state alone
        self.types.known_shape(self.node.outputs.iter().flatten().next()?)
    }

    fn dim(&self, position: usize, axis: usize) -> Option<u64> {
        self.shape(position)?.get(axis).copied().map(wide)
    }

    fn last_dim(&self, position: usize) -> Option<u64> {
        self.shape(position)?.last().copied().map(wide)
    }

    /// Each element of the output needs this many.
    fn product(&self, inner: Option<u64>) -> Option<u64> {
        count(&self.output_shape()?)?.checked_mul(inner?)
    }

    /// Each element of the output needs a weight of one output channel.
    fn conv(&self, weight: usize) -> Option<u64> {
        self.product(count(self.shape(weight)?.get(1..)?))
    }

    /// Each element of the input meets a weight of its channel.
    fn spread(&self) -> Option<u64> {
        count(&self.shape(0)?)?.checked_mul(count(self.shape(1)?.get(1..)?)?)
    }

    fn einsum(&self, equation: &str) -> Option<u64> {
        let shapes: Vec<&[Dim]> = self
            .node
            .inputs
            .iter()
            .map(|name| self.types.tensor(name.as_ref()?)?.shape.as_deref())
            .collect::<Option<_>>()?;
        einsum_products(equation, &shapes)
    }

    /// Each step multiplies the input and the state with the weights of each gate.
    fn recurrent(&self, n_gates: u64) -> Option<u64> {
        let sequence = self.shape(0)?;
        let &[.., input_size] = sequence.as_slice() else { return None };
        let n_steps = count(sequence.get(..2)?)?;
        // W is [directions, gates · hidden, input], or with its last two exchanged
        let n_weights = count(&self.shape(1)?)?;
        let directions = self.dim(1, 0)?;
        let hidden = n_weights.checked_div(directions)?.checked_div(wide(input_size))?.checked_div(n_gates)?;
        let of_state = directions.checked_mul(n_gates)?.checked_mul(hidden)?.checked_mul(hidden)?;
        n_steps.checked_mul(n_weights.checked_add(of_state)?)
    }

    /// Queries with keys, and the scores with the values.
    fn attention(&self) -> Option<u64> {
        let (query, output) = (self.shape(0)?, self.output_shape()?);
        let keys = self.shape(1)?;
        let past = match self.node.input(4) {
            Some(_) => self.dim(4, 2)?,
            None => 0,
        };
        let n_keys = wide(*keys.get(keys.len().checked_sub(2)?)?).checked_add(past)?;
        // every element of a query, and every element of the output, meets every key
        n_keys.checked_mul(count(&query)?.checked_add(count(&output)?)?)
    }

    fn pooled(&self, kernel: &[i64]) -> Option<Work> {
        let kernel: Option<Vec<usize>> = kernel.iter().map(|&size| usize::try_from(size).ok()).collect();
        self.product(count(&kernel?)).map(Work::Elementwise)
    }

    fn elements(&self) -> Option<Work> {
        let read = count(&self.shape(0)?)?;
        let written = count(&self.output_shape()?)?;
        Some(Work::Elementwise(read.max(written)))
    }
}

fn count(shape: &[usize]) -> Option<u64> {
    n_elements(shape).map(wide)
}

/// How often the body of a `Loop` or `Scan` runs, where that is known beforehand.
pub(super) fn n_iterations(node_idx: usize, node: &Node, types: &Types) -> Option<u64> {
    if let Op::Loop(attributes) = &node.op {
        let condition = &attributes.body.outputs.first()?.name;
        let goes_on = is_true(types.body(node_idx, 0)?, condition);
        let starts = node.input(1).is_none_or(|name| is_true(types, name));
        let most = types.constant(node.input(0)?)?.as_slice::<i64>().ok()?.first().copied()?;
        return (starts && goes_on).then(|| u64::try_from(most.max(0)).ok()).flatten();
    }
    let Op::Scan(Scan { num_scan_inputs, scan_input_axes, .. }) = &node.op else { return None };
    let position = node.inputs.len().checked_sub(usize::try_from(*num_scan_inputs).ok()?)?;
    let shape = types.known_shape(node.input(position)?)?;
    let axis = scan_input_axes.first().copied().unwrap_or(0);
    let axis = if axis < 0 { axis.checked_add(i64::try_from(shape.len()).ok()?)? } else { axis };
    shape.get(usize::try_from(axis).ok()?).copied().map(wide)
}

fn is_true(types: &Types, name: &str) -> bool {
    let tensor = types.constant(name).and_then(|tensor| tensor.as_slice::<bool>().ok());
    tensor.and_then(|truth| truth.first().copied()) == Some(true)
}
