//! Which nodes multiply 8-bit integers, and how one of them is computed.

use std::borrow::Cow;

use super::conv::{self, Filters};
use super::matrix::{self, Stack, Sums};
use super::operands::{Becomes, Bytes, integers};
use super::weights::Packed;
use super::{Arithmetic, Pairs, Rounding};
use crate::graph::axes::axis_from_start;
use crate::graph::op::{self, Op};
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor, turned};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, TensorType};

/// Three names: integers, their scale, their zero point. The scale is left out where the sums are the result.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) integers: Name,
    scale: Option<Name>,
    zero_point: Option<Name>,
}

#[derive(Clone, Debug)]
enum Kind {
    Conv(op::Conv),
    Matrix { trans_a: bool, trans_b: bool, alpha: f32 },
}

/// What the sums become, by name.
#[derive(Clone, Debug)]
enum Gives {
    Sums,
    Floats,
    Bytes { scale: Name, zero_point: Option<Name> },
}

/// A node that multiplies 8-bit integers.
#[derive(Clone, Debug)]
pub(super) struct Product {
    kind: Kind,
    x: Operand,
    w: Operand,
    bias: Option<Name>,
    gives: Gives,
    /// Of constant weights, made once.
    packed: Option<Weights>,
    rounding: Rounding,
    /// Whether pairs of products saturate where the weights are signed.
    saturates: bool,
}

#[derive(Clone, Debug)]
enum Weights {
    Filters(Filters),
    Matrices { matrices: Vec<Packed>, dims: Vec<usize> },
}

/// How a product gets a value by name.
pub(super) trait Values {
    /// The value; in words, where it is not there.
    fn get(&self, name: &Name) -> Result<&Tensor, String>;
}

impl Product {
    /// The product that a node is; none where it is no product of integers.
    ///
    /// # Errors
    /// In words, when its constant weights do not fit it.
    pub(super) fn of(view: &View<'_>, node: &Node, arithmetic: Arithmetic) -> Result<Option<Product>, String> {
        let input = |position: usize| node.input(position).cloned();
        let triple = |position: usize| {
            Some(Operand { integers: input(position)?, scale: input(position + 1), zero_point: input(position + 2) })
        };
        let plain = |position: usize, zero_point: usize| {
            Some(Operand { integers: input(position)?, scale: None, zero_point: input(zero_point) })
        };
        let bytes = |position: usize| Some(Gives::Bytes { scale: input(position)?, zero_point: input(position + 1) });
        let matrix = Kind::Matrix { trans_a: false, trans_b: false, alpha: 1.0 };
        let parts = match &node.op {
            Op::QLinearConv(op) => (Kind::Conv(op.clone()), triple(0), triple(3), input(8), bytes(6)),
            Op::QLinearMatMul => (matrix, triple(0), triple(3), None, bytes(6)),
            Op::QGemm(op) => {
                let kind = Kind::Matrix { trans_a: op.trans_a, trans_b: op.trans_b, alpha: op.alpha };
                let gives = if input(7).is_some() { bytes(7) } else { Some(Gives::Floats) };
                (kind, triple(0), triple(3), input(6), gives)
            }
            Op::MatMulInteger => (matrix, plain(0, 2), plain(1, 3), None, Some(Gives::Sums)),
            Op::MatMul => {
                let [a, b] = [0, 1].map(|position| view.dequantized(node, position, None));
                (matrix, a, b, None, Some(Gives::Floats))
            }
            Op::Gemm(op) if op.beta == 1.0 => {
                let along = usize::from(!op.trans_b);
                let (a, b) = (view.dequantized(node, 0, None), view.dequantized(node, 1, Some(along)));
                let bias = match node.input(2) {
                    Some(name) => match view.quantized_bias(name) {
                        Some(bias) => Some(bias),
                        None => return Ok(None),
                    },
                    None => None,
                };
                let kind = Kind::Matrix { trans_a: op.trans_a, trans_b: op.trans_b, alpha: op.alpha };
                (kind, a, b, bias, Some(Gives::Floats))
            }
            _ => return Ok(None),
        };
        let (kind, Some(x), Some(w), bias, Some(gives)) = parts else { return Ok(None) };
        let saturates = arithmetic.pairs == Pairs::Saturating16 && view.is_unsigned(&x.integers);
        let rounding = arithmetic.rounding;
        let mut product = Product { kind, x, w, bias, gives, packed: None, rounding, saturates };
        let constants = Constants(view.graph);
        if constants.get(&product.w.integers).is_ok() {
            product.packed = Some(product.pack(&constants)?);
        }
        Ok(Some(product))
    }

    /// Every value that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = &Name> {
        let operands = [&self.x, &self.w].into_iter();
        let operands =
            operands.flat_map(|operand| [Some(&operand.integers), operand.scale.as_ref(), operand.zero_point.as_ref()]);
        let made = match &self.gives {
            Gives::Sums | Gives::Floats => [None, None],
            Gives::Bytes { scale, zero_point } => [Some(scale), zero_point.as_ref()],
        };
        operands.chain(made).chain([self.bias.as_ref()]).flatten()
    }

    /// Pairs of weights that can saturate, of all that there are; both zero where the weights are not constant or nothing can.
    pub(super) fn n_saturable(&self) -> (usize, usize) {
        match &self.packed {
            Some(Weights::Filters(filters)) => filters.n_saturable(),
            Some(Weights::Matrices { matrices, .. }) => {
                let of = |packed: &Packed| (packed.saturable.len(), packed.saturable.n_all);
                matrices.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            }
            None => (0, 0),
        }
    }

    /// Computes it. How many pairs saturated, and how many there were, come with the result.
    pub(super) fn compute(&self, values: &dyn Values) -> Result<(Tensor, [u64; 2]), String> {
        let x = values.get(&self.x.integers)?;
        let x = Bytes::of(x, optional(values, self.x.zero_point.as_ref())?)?;
        let packed = match &self.packed {
            Some(packed) => Cow::Borrowed(packed),
            None => Cow::Owned(self.pack(values)?),
        };
        let bias = optional(values, self.bias.as_ref())?.map(integers).transpose()?;
        let sums = match (&self.kind, packed.as_ref()) {
            (Kind::Conv(op), Weights::Filters(filters)) => conv::sums(&x, filters, op, bias.as_deref())?,
            (Kind::Matrix { trans_a, .. }, Weights::Matrices { matrices, dims }) => {
                let x = if *trans_a { transposed(&x)? } else { x };
                let mut sums = matrix::product(&x, &Stack { matrices, dims })?;
                add(&mut sums, bias.as_deref())?;
                sums
            }
            _ => return Err("weights of another kind of product".to_string()),
        };
        let counts = [sums.n_saturated, sums.n_pairs];
        Ok((self.finished(sums, values)?, counts))
    }

    fn pack(&self, values: &dyn Values) -> Result<Weights, String> {
        let tensor = values.get(&self.w.integers)?;
        let zero_points = optional(values, self.w.zero_point.as_ref())?.map(integers).transpose()?.unwrap_or_default();
        let weights = integers(tensor)?;
        let saturating = tensor.dtype() == DType::I8 && self.saturates;
        match &self.kind {
            Kind::Conv(op) => {
                let filters = Filters::new(&weights, tensor.shape(), op.group, &zero_points, saturating)?;
                Ok(Weights::Filters(filters))
            }
            Kind::Matrix { trans_b, .. } => {
                let matrices = matrix::pack(&weights, tensor.shape(), *trans_b, &zero_points, saturating)?;
                let dims = tensor.shape()[..tensor.rank().saturating_sub(2)].to_vec();
                Ok(Weights::Matrices { matrices, dims })
            }
        }
    }

    fn finished(&self, sums: Sums, values: &dyn Values) -> Result<Tensor, String> {
        let becomes = match &self.gives {
            Gives::Sums => Becomes::Sums,
            Gives::Floats => Becomes::Floats { factors: self.factors(values, None)? },
            Gives::Bytes { scale, zero_point } => {
                let zero_point = optional(values, zero_point.as_ref())?;
                let dtype = zero_point.map_or(DType::U8, Tensor::dtype);
                let zero_point = zero_point.map(integers).transpose()?.and_then(|it| it.first().copied()).unwrap_or(0);
                let factors = self.factors(values, Some(scale))?;
                Becomes::Bytes { factors, zero_point, dtype, rounding: self.rounding }
            }
        };
        let Sums { sums, shape, .. } = sums;
        let tensor = match (&self.kind, &shape[..]) {
            (Kind::Conv(_), [_, n_channels, spatial @ ..]) => {
                let results = becomes.of(&sums, *n_channels);
                results.channels_first(*n_channels, spatial.iter().product()).into_tensor(&shape)
            }
            _ => becomes.of(&sums, shape.last().copied().unwrap_or(1)).into_tensor(&shape),
        };
        tensor.map_err(|error| error.to_string())
    }

    /// `alpha · x_scale · w_scale / y_scale` for all outputs or for each.
    fn factors(&self, values: &dyn Values, y_scale: Option<&Name>) -> Result<Vec<f32>, String> {
        let scales = |name: Option<&Name>| match optional(values, name)? {
            Some(tensor) => tensor.to_vec::<f32>().map_err(|error| error.to_string()),
            None => Ok(vec![1.0]),
        };
        let one = |name: Option<&Name>| match scales(name)?[..] {
            [scale] => Ok(scale),
            ref more => Err(format!("{} scales where one should be", more.len())),
        };
        let alpha = match self.kind {
            Kind::Conv(_) => 1.0,
            Kind::Matrix { alpha, .. } => alpha,
        };
        let (x_scale, y_scale) = (alpha * one(self.x.scale.as_ref())?, one(y_scale)?);
        Ok(scales(self.w.scale.as_ref())?.into_iter().map(|w_scale| x_scale * w_scale / y_scale).collect())
    }
}

/// The constants of a graph.
struct Constants<'a>(&'a Graph);

impl Values for Constants<'_> {
    fn get(&self, name: &Name) -> Result<&Tensor, String> {
        self.0.constant(name).ok_or_else(|| format!("`{name}` is no constant"))
    }
}

fn optional<'a>(values: &'a dyn Values, name: Option<&Name>) -> Result<Option<&'a Tensor>, String> {
    name.map(|name| values.get(name)).transpose()
}

/// What is known of a graph around its products.
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) uses: &'a Uses<'a>,
    /// None where its types do not fit together.
    pub(super) types: Option<&'a Types>,
    /// Whether the machine takes signed activations as unsigned ones.
    pub(super) shifts: bool,
}

impl View<'_> {
    fn known(&self, name: &Name) -> Option<&TensorType> {
        self.types?.tensor(name)
    }

    /// Whether the kernel sees activations as unsigned bytes.
    fn is_unsigned(&self, name: &Name) -> bool {
        self.shifts || self.known(name).is_none_or(|known| known.dtype != DType::I8)
    }

    /// The bytes that a node reads through a DequantizeLinear with one scale for all, or with one for each index of the axis
    /// `along` (the last where it is not given).
    fn dequantized(&self, node: &Node, position: usize, along: Option<usize>) -> Option<Operand> {
        let producer = self.uses.producer(node.input(position)?)?;
        let Op::DequantizeLinear(op) = &producer.op else { return None };
        let (integers, scale) = (producer.input(0)?, producer.input(1)?);
        let (bytes, scales) = (self.known(integers)?, self.known(scale)?);
        let rank = bytes.rank()?;
        let is_whole = scales.known_shape()?.iter().product::<usize>() == 1;
        let is_along = axis_from_start(op.axis, rank) == Some(along.unwrap_or(rank.checked_sub(1)?));
        let fits = matches!(bytes.dtype, DType::U8 | DType::I8) && scales.dtype == DType::F32 && op.block_size == 0;
        let fits = fits && (is_whole || (position == 1 && rank == 2 && is_along));
        let zero_point = producer.input(2).cloned();
        fits.then(|| Operand { integers: integers.clone(), scale: Some(scale.clone()), zero_point })
    }

    /// The integers of a bias behind a DequantizeLinear; their scale is the product's.
    fn quantized_bias(&self, name: &Name) -> Option<Name> {
        let producer = self.uses.producer(name)?;
        let integers = producer.input(0).filter(|_| matches!(producer.op, Op::DequantizeLinear(_)))?;
        self.known(integers).filter(|known| known.dtype == DType::I32).map(|_| integers.clone())
    }
}

fn transposed(x: &Bytes) -> Result<Bytes, String> {
    let [rows, columns] = x.shape[..] else { return Err(format!("a transposed matrix of shape {:?}", x.shape)) };
    let bytes = turned(&x.bytes, rows, columns);
    Ok(Bytes { bytes, zero_point: x.zero_point, shape: vec![columns, rows] })
}

/// Adds to each row what is for its outputs, or to all one number.
fn add(sums: &mut Sums, bias: Option<&[i32]>) -> Result<(), String> {
    let n_outputs = sums.shape.last().copied().unwrap_or(1);
    match bias {
        None | Some([]) => Ok(()),
        Some([one]) => {
            sums.sums.iter_mut().for_each(|sum| *sum = sum.wrapping_add(*one));
            Ok(())
        }
        Some(row) if row.len() == n_outputs => {
            for sums in sums.sums.chunks_exact_mut(n_outputs) {
                sums.iter_mut().zip(row).for_each(|(sum, bias)| *sum = sum.wrapping_add(*bias));
            }
            Ok(())
        }
        Some(more) => Err(format!("a bias of {} elements for {n_outputs} outputs", more.len())),
    }
}
