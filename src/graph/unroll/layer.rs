//! What a recurrent operator is, read and checked: sizes, cell, the weights of each direction; or why it stays one node.

use std::ops::Range;

use super::MOST_STEPS;
use crate::graph::eval::{Activation, Cell, RecurrentOptions, activations};
use crate::graph::op::Direction;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor, turned};
use crate::graph::{Dim, Graph, Name, Node};

/// A recurrent operator that can be written out.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) node: &'a Node,
    pub(super) cell: Cell,
    /// At least one.
    pub(super) n_steps: usize,
    /// Hidden units, at least one.
    pub(super) hidden: usize,
    pub(super) is_batch_first: bool,
    /// What goes into a gate is brought between this and its negative.
    pub(super) clip: Option<f32>,
    pub(super) directions: Vec<Weights<'a>>,
}

/// The weights of one direction, gate after gate as ONNX orders them.
#[derive(Debug)]
pub(super) struct Weights<'a> {
    pub(super) is_backward: bool,
    pub(super) activations: Vec<Activation>,
    cell: Cell,
    hidden: usize,
    /// `[gates · hidden, input]`
    w: &'a [f32],
    /// `[gates · hidden, hidden]`
    r: &'a [f32],
    /// `[2 · gates · hidden]`: what is added to the product with `w`, and to that with `r`.
    b: Option<&'a [f32]>,
    /// `[3 · hidden]`
    p: Option<&'a [f32]>,
}

impl Weights<'_> {
    /// What the input is multiplied by for these gates: `[input, gates · hidden]`.
    pub(super) fn input_columns(&self, gates: Range<usize>) -> Tensor {
        self.columns(self.w, gates)
    }

    /// What the state is multiplied by for these gates: `[hidden, gates · hidden]`.
    pub(super) fn state_columns(&self, gates: Range<usize>) -> Tensor {
        self.columns(self.r, gates)
    }

    fn columns(&self, matrix: &[f32], gates: Range<usize>) -> Tensor {
        let n_inputs = matrix.len() / (self.cell.n_gates() * self.hidden);
        let (first, n_rows) = (gates.start * self.hidden, gates.len() * self.hidden);
        let numbers = turned(&matrix[first * n_inputs..(first + n_rows) * n_inputs], n_rows, n_inputs);
        Tensor::new(&[n_inputs, n_rows], numbers).expect("as many numbers as the shape has")
    }

    /// What is added to the product with the input, `[1, 1, gates · hidden]`; none where it is zero. The bias of the state's
    /// product is in it, but where that is reset after the product.
    pub(super) fn bias(&self) -> Option<Tensor> {
        let n_rows = self.cell.n_gates() * self.hidden;
        let (of_input, of_state) = self.b?.split_at(n_rows);
        let n_joint = if self.cell == (Cell::Gru { linear_before_reset: true }) { 2 * self.hidden } else { n_rows };
        let sum = |(row, (x, h)): (usize, (&f32, &f32))| if row < n_joint { x + h } else { *x };
        let numbers: Vec<f32> = of_input.iter().zip(of_state).enumerate().map(sum).collect();
        let shape = [1, 1, n_rows];
        // Of one dimension onnxruntime joins it with the product to a Gemm of floats, before it looks for products on integers.
        not_zero(numbers).map(|bias| bias.reshaped(&shape).expect("as many numbers as before"))
    }

    /// What a GRU that resets after the product adds to what the state brings to its last gate; none where it is zero.
    pub(super) fn reset_bias(&self) -> Option<Tensor> {
        match self.cell {
            Cell::Gru { linear_before_reset: true } => not_zero(self.b?[5 * self.hidden..].to_vec()),
            Cell::Rnn | Cell::Gru { .. } | Cell::Lstm { .. } => None,
        }
    }

    /// What the cell is multiplied by on its way to the gates input, output and forget.
    pub(super) fn peepholes(&self) -> Option<[Tensor; 3]> {
        let p = self.p?;
        Some([0, 1, 2].map(|gate| Tensor::vector(p[gate * self.hidden..][..self.hidden].to_vec())))
    }
}

fn not_zero(numbers: Vec<f32>) -> Option<Tensor> {
    numbers.iter().any(|&x| x != 0.0).then(|| Tensor::vector(numbers))
}

impl<'a> Layer<'a> {
    /// None for an operator of another kind.
    ///
    /// # Errors
    /// Says why it stays one node.
    pub(super) fn of(graph: &'a Graph, types: &Types, node: &'a Node) -> Option<Result<Layer<'a>, String>> {
        let (cell, options) = Cell::of(&node.op)?;
        Some(Reader { graph, types, node }.layer(cell, &options))
    }

    pub(super) fn n_gates(&self) -> usize {
        self.cell.n_gates()
    }

    /// What the names of its nodes begin with.
    pub(super) fn base(&self) -> &'a str {
        let made = self.node.outputs.iter().flatten().next().map_or("recurrent", Name::as_str);
        if self.node.name.is_empty() { made } else { &self.node.name }
    }
}

struct Reader<'a, 't> {
    graph: &'a Graph,
    types: &'t Types,
    node: &'a Node,
}

impl<'a> Reader<'a, '_> {
    fn layer(&self, cell: Cell, options: &RecurrentOptions<'_>) -> Result<Layer<'a>, String> {
        let is_batch_first = match options.layout {
            0 => false,
            1 => true,
            other => return Err(format!("its `layout` should be 0 or 1, got {other}")),
        };
        let n_steps = self.n_steps(is_batch_first)?;
        self.full_lengths(n_steps)?;
        let n_directions = if options.direction == Direction::Bidirectional { 2 } else { 1 };
        let (of_w, of_r) = (self.shape(1, "W")?, self.shape(2, "R")?);
        let (&[_, _, n_inputs], &[_, _, hidden]) = (of_w, of_r) else {
            return Err("its W and R should have three dimensions".to_string());
        };
        if options.hidden_size.is_some_and(|stated| usize::try_from(stated) != Ok(hidden)) || hidden == 0 {
            return Err("its R has another number of hidden units than `hidden_size`, or none".to_string());
        }
        let too_large = || "its weights are too large".to_string();
        let n_rows = cell.n_gates().checked_mul(hidden).filter(|n| n.checked_mul(2).is_some()).ok_or_else(too_large)?;
        let w = self.floats(1, "W", &[n_directions, n_rows, n_inputs])?;
        let r = self.floats(2, "R", &[n_directions, n_rows, hidden])?;
        let b = self.optional_floats(3, "B", &[n_directions, 2 * n_rows])?;
        let p = match cell {
            Cell::Lstm { .. } => self.optional_floats(7, "P", &[n_directions, 3 * hidden])?,
            Cell::Rnn | Cell::Gru { .. } => None,
        };
        let each = activations(options, cell.default_activations(), n_directions).map_err(|error| error.to_string())?;
        let part = |of: &'a [f32], idx: usize| &of[idx * of.len() / n_directions..][..of.len() / n_directions];
        let weights = |idx: usize| Weights {
            is_backward: idx == 1 || options.direction == Direction::Reverse,
            activations: each[idx * each.len() / n_directions..][..each.len() / n_directions].to_vec(),
            cell,
            hidden,
            w: part(w, idx),
            r: part(r, idx),
            b: b.map(|b| part(b, idx)),
            p: p.map(|p| part(p, idx)),
        };
        let directions = (0..n_directions).map(weights).collect();
        Ok(Layer { node: self.node, cell, n_steps, hidden, is_batch_first, clip: options.clip, directions })
    }

    /// The length of the sequence.
    fn n_steps(&self, is_batch_first: bool) -> Result<usize, String> {
        let x = self.node.input(0).and_then(|name| self.types.tensor(name));
        let x = x.ok_or_else(|| "the type of its input is not known".to_string())?;
        if x.dtype != DType::F32 {
            return Err(format!("it is of {}; only f32 is written out", x.dtype));
        }
        let dim = x.shape.as_ref().and_then(|shape| shape.get(usize::from(is_batch_first)));
        let unknown = "the length of its sequence is not known; fix it: `aludel simplify";
        match dim {
            Some(Dim::Known(0)) => Err("its sequence is empty".to_string()),
            Some(&Dim::Known(n)) if n > MOST_STEPS => {
                Err(format!("its sequence has {n} steps; at most {MOST_STEPS} are written out"))
            }
            Some(&Dim::Known(n)) => Ok(n),
            Some(Dim::Symbol(symbol)) => Err(format!("{unknown} --bind {symbol}=N`")),
            Some(Dim::Unknown) | None => Err(format!("{unknown} --bind INPUT#AXIS=N`")),
        }
    }

    /// That the sequences are as long as they can be.
    fn full_lengths(&self, n_steps: usize) -> Result<(), String> {
        let Some(name) = self.node.input(4) else { return Ok(()) };
        let lengths = self.graph.constant(name).and_then(|tensor| tensor.to_vec::<i32>().ok());
        match lengths.is_some_and(|lengths| lengths.iter().all(|&length| usize::try_from(length) == Ok(n_steps))) {
            true => Ok(()),
            false => Err("its sequences have lengths of their own (`sequence_lens`)".to_string()),
        }
    }

    fn constant(&self, position: usize, what: &str) -> Result<&'a Tensor, String> {
        let constant = self.node.input(position).and_then(|name| self.graph.constant(name));
        constant.ok_or_else(|| format!("its {what} is no constant"))
    }

    fn shape(&self, position: usize, what: &str) -> Result<&'a [usize], String> {
        Ok(self.constant(position, what)?.shape())
    }

    fn floats(&self, position: usize, what: &str, shape: &[usize]) -> Result<&'a [f32], String> {
        let tensor = self.constant(position, what)?;
        if tensor.shape() != shape {
            return Err(format!("its {what} should be {shape:?}, got {:?}", tensor.shape()));
        }
        tensor.as_slice::<f32>().map_err(|_| format!("its {what} is {}; simplify first", tensor.dtype()))
    }

    fn optional_floats(&self, position: usize, what: &str, shape: &[usize]) -> Result<Option<&'a [f32]>, String> {
        match self.node.input(position) {
            Some(_) => self.floats(position, what, shape).map(Some),
            None => Ok(None),
        }
    }
}
