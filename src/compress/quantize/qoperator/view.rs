//! What stands before and behind a node of a graph in Q/DQ form.

use crate::graph::axes::axis_from_start;
use crate::graph::op::{MICROSOFT, Op};
use crate::graph::patch::Patch;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::{Reader, Uses};
use crate::graph::{Graph, Name, Node};

pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) uses: &'a Uses<'a>,
    pub(super) types: &'a Types,
    pub(super) microsoft: bool,
}

/// Integers and how they stand for numbers: `scale · (x - zero_point)`.
#[derive(Clone, Debug)]
pub(super) struct Quantized<'a> {
    /// The integers.
    pub(super) name: &'a Name,
    /// Their type.
    pub(super) dtype: DType,
    /// The scale's name.
    pub(super) scale: &'a Name,
    /// The scales, one or more.
    pub(super) scales: Vec<f32>,
    /// The zero point's name; none for zero.
    pub(super) zero_point: Option<&'a Name>,
    /// The zero points; empty for zero.
    pub(super) zero_points: Vec<i64>,
    axis: i64,
    scale_shape: Vec<usize>,
}

/// Where a node's numbers go: a quantization, and the nodes up to it, itself included.
pub(super) struct Target<'a> {
    pub(super) to: Quantized<'a>,
    pub(super) absorbed: Vec<usize>,
}

impl<'a> Quantized<'a> {
    /// The one zero point; none where they differ.
    pub(super) fn one_zero_point(&self) -> Option<i64> {
        let first = self.zero_points.first().copied().unwrap_or(0);
        self.zero_points.iter().all(|&zero_point| zero_point == first).then_some(first)
    }

    /// Whether one scale is for all.
    pub(super) fn is_whole(&self) -> bool {
        self.scales.len() == 1 && self.zero_points.len() <= 1
    }

    /// Whether the scales, where there are several, stand along this axis of a tensor of this rank.
    pub(super) fn is_along(&self, axis: usize, rank: usize) -> bool {
        self.is_whole() || axis_from_start(self.axis, rank) == Some(axis)
    }

    /// Whether the same integers stand for the same numbers.
    pub(super) fn is_as(&self, other: &Quantized<'_>) -> bool {
        let scales = self.scales.iter().zip(&other.scales).all(|(a, b)| a.to_bits() == b.to_bits());
        let whole = self.is_whole() && other.is_whole();
        whole && scales && self.dtype == other.dtype && self.one_zero_point() == other.one_zero_point()
    }

    /// The integer that a number becomes.
    fn quantize(&self, number: f64) -> Option<i128> {
        let (least, greatest) = self.dtype.integer_range()?;
        let scaled = (number / f64::from(*self.scales.first()?)).round_ties_even() + self.one_zero_point()? as f64;
        Some((scaled.clamp(least as f64, greatest as f64)) as i128)
    }

    /// The name of the zero point, made where there is none.
    pub(super) fn zero_point_name(&self, patch: &mut Patch) -> Result<Name, String> {
        if let Some(name) = self.zero_point {
            return Ok(name.clone());
        }
        let zeros = Tensor::zeros(self.dtype, &self.scale_shape).map_err(|error| error.to_string())?;
        Ok(patch.add_initializer(&format!("{}_zero_point", self.name), zeros))
    }

    /// Integers, scale and zero point, as operators take them.
    pub(super) fn operands(&self, patch: &mut Patch) -> Result<[Name; 3], String> {
        Ok([self.name.clone(), self.scale.clone(), self.zero_point_name(patch)?])
    }
}

impl<'a> View<'a> {
    /// Whether the node reads a dequantized number and is not itself between numbers and integers.
    pub(super) fn is_candidate(&self, node: &Node) -> bool {
        let dequantizes = |name: &Name| {
            self.uses.producer(name).is_some_and(|producer| matches!(producer.op, Op::DequantizeLinear(_)))
        };
        let between = matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_));
        !between && node.inputs.iter().flatten().any(dequantizes)
    }

    /// The value where it is a constant.
    pub(super) fn constant(&self, name: &Name) -> Option<&'a Tensor> {
        self.graph.constant(name).or_else(|| match self.uses.producer(name).map(|node| &node.op) {
            Some(Op::Constant(constant)) => Some(&constant.value),
            Some(_) | None => None,
        })
    }

    pub(super) fn rank(&self, name: &Name) -> Option<usize> {
        self.types.tensor(name).and_then(|tensor| tensor.rank())
    }

    /// The integers behind an input of a node.
    pub(super) fn input(&self, node: &'a Node, position: usize) -> Result<Quantized<'a>, String> {
        let name = node.input(position).ok_or_else(|| format!("input {position} is left out"))?;
        self.dequantized(name)
    }

    /// The integers that a number is dequantized from.
    pub(super) fn dequantized(&self, name: &'a Name) -> Result<Quantized<'a>, String> {
        let Some((node, op)) = self.uses.producer(name).and_then(|node| match &node.op {
            Op::DequantizeLinear(op) => Some((node, op)),
            _ => None,
        }) else {
            return Err(format!("`{name}` does not come from DequantizeLinear"));
        };
        if op.block_size != 0 {
            return Err(format!("`{name}` is dequantized by blocks"));
        }
        let integers = node.input(0).ok_or("a DequantizeLinear reads nothing")?;
        let dtype = self.types.tensor(integers).map(|tensor| tensor.dtype);
        let dtype = dtype.ok_or_else(|| format!("the type of `{integers}` is not known"))?;
        self.parameters(integers, dtype, node, op.axis)
    }

    fn parameters(&self, name: &'a Name, dtype: DType, node: &'a Node, axis: i64) -> Result<Quantized<'a>, String> {
        let scale = node.input(1).ok_or_else(|| format!("`{name}` has no scale"))?;
        let tensor = self.constant(scale).ok_or_else(|| format!("the scale `{scale}` is no constant"))?;
        let scales = tensor.to_vec::<f32>().map_err(|_| format!("the scale `{scale}` is {}", tensor.dtype()))?;
        if scales.iter().any(|scale| !(scale.is_finite() && *scale > 0.0)) || tensor.rank() > 1 || scales.is_empty() {
            return Err(format!("the scale `{scale}` is not one positive number, or one for each channel"));
        }
        let zero_point = node.input(2);
        let zero_points = zero_point.map(|name| self.integers(name)).transpose()?.unwrap_or_default();
        let scale_shape = tensor.shape().to_vec();
        Ok(Quantized { name, dtype, scale, scales, zero_point, zero_points, axis, scale_shape })
    }

    fn integers(&self, name: &Name) -> Result<Vec<i64>, String> {
        let tensor = self.constant(name).ok_or_else(|| format!("the zero point `{name}` is no constant"))?;
        if let Ok(values) = tensor.as_slice::<u8>() {
            return Ok(values.iter().map(|&value| value.into()).collect());
        }
        if let Ok(values) = tensor.as_slice::<i8>() {
            return Ok(values.iter().map(|&value| value.into()).collect());
        }
        if let Ok(values) = tensor.as_slice::<i32>() {
            return Ok(values.iter().map(|&value| value.into()).collect());
        }
        Err(format!("the zero point `{name}` is {}", tensor.dtype()))
    }

    /// The quantization that alone reads a value, past a `Relu` or `Clip` that it makes superfluous where `absorbs`.
    pub(super) fn target(&self, name: &'a Name, absorbs: bool) -> Result<Target<'a>, String> {
        let (reader, node) = self.sole_reader(name)?;
        if !matches!(node.op, Op::QuantizeLinear(_)) {
            if !absorbs || !matches!(node.op, Op::Relu | Op::Clip) || reader.position != Some(0) {
                return Err(format!("its output goes to {}, not to QuantizeLinear", node.label()));
            }
            let between = node.output(0).ok_or("an activation gives nothing")?;
            let mut target = self.target(between, false)?;
            self.expect_superfluous(node, &target.to)?;
            target.absorbed.push(reader.node_idx);
            return Ok(target);
        }
        let (Op::QuantizeLinear(op), Some(output)) = (&node.op, node.output(0)) else {
            return Err("a QuantizeLinear gives nothing".to_string());
        };
        if reader.position != Some(0) || op.block_size != 0 {
            return Err(format!("{} quantizes by blocks, or takes it for a scale", node.label()));
        }
        let dtype = self.types.tensor(output).map(|tensor| tensor.dtype);
        let dtype = dtype.ok_or_else(|| format!("the type of `{output}` is not known"))?;
        let to = self.parameters(output, dtype, node, op.axis)?;
        if !to.is_whole() {
            return Err(format!("{} has a scale for each channel", node.label()));
        }
        Ok(Target { to, absorbed: vec![reader.node_idx] })
    }

    fn sole_reader(&self, name: &Name) -> Result<(Reader, &'a Node), String> {
        if self.uses.is_output(name) {
            return Err(format!("`{name}` is an output of the network"));
        }
        let readers = self.uses.readers(name);
        let [reader] = readers else {
            let labels = readers.iter().filter_map(|reader| self.graph.nodes.get(reader.node_idx)).map(Node::label);
            let labels = labels.collect::<Vec<_>>().join(", ");
            return Err(format!("`{name}` is read {} times: {labels}", readers.len()));
        };
        let node = self.graph.nodes.get(reader.node_idx).ok_or("a reader is no node")?;
        match reader.position {
            Some(_) => Ok((*reader, node)),
            None => Err(format!("a body of {} reads `{name}`", node.label())),
        }
    }

    /// Rounding and saturating must do what the activation does.
    fn expect_superfluous(&self, node: &Node, to: &Quantized<'_>) -> Result<(), String> {
        let bound = |position: usize| match node.input(position) {
            None => Ok(None),
            Some(name) => {
                let value = self.constant(name).and_then(|tensor| tensor.to_f32s().ok()?.first().copied());
                value.map(Some).ok_or_else(|| format!("a bound of {} is no constant", node.label()))
            }
        };
        let (low, high) = match node.op {
            Op::Clip => (bound(1)?, bound(2)?),
            _ => (Some(0.0), None),
        };
        let range = to.dtype.integer_range();
        let reaches =
            |bound: Option<f32>, end: Option<i128>| bound.is_none_or(|bound| to.quantize(bound.into()) == end);
        if reaches(low, range.map(|range| range.0)) && reaches(high, range.map(|range| range.1)) {
            return Ok(());
        }
        Err(format!("{} behind it cuts off within the range of `{}`", node.label(), to.name))
    }

    /// Refuses an operator of onnxruntime's own where those are not asked for.
    pub(super) fn expect_microsoft(&self, operator: &str) -> Result<(), String> {
        if self.microsoft {
            return Ok(());
        }
        Err(format!("its form on integers is {MICROSOFT}'s {operator}, which is not asked for"))
    }
}

/// Refuses activations of more than one type: no runtime computes on a mix.
pub(super) fn expect_one_type(activations: &[&Quantized<'_>]) -> Result<(), String> {
    for one in activations {
        if !matches!(one.dtype, DType::I8 | DType::U8) {
            return Err(format!("`{}` is {}, not i8 or u8", one.name, one.dtype));
        }
        if !one.is_whole() {
            return Err(format!("`{}` has a scale for each channel", one.name));
        }
    }
    let first = activations.first();
    match activations.iter().find(|one| first.is_some_and(|first| first.dtype != one.dtype)) {
        Some(other) => Err(format!("`{}` is {}, the others are not", other.name, other.dtype)),
        None => Ok(()),
    }
}

/// The node with another operator, inputs and output, its name and notes kept.
pub(super) fn renewed(node: &Node, op: Op, inputs: Vec<Name>, output: &Name) -> Node {
    Node { op, inputs: inputs.into_iter().map(Some).collect(), outputs: vec![Some(output.clone())], ..node.clone() }
}
