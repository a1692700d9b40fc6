//! Operators that are linear in their first input, and what is done to each of their channels folded into their weights.

use super::constants::{floats, is_computable, rounded};
use super::{Edits, View};
use crate::graph::op::{AutoPad, Gemm, Op};
use crate::graph::patch::Patch;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Node};

/// What is done to each channel of a value: `scale · x + shift`; none where there is nothing to multiply with or to add.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Option<Vec<f64>>,
    pub(super) shift: Option<Vec<f64>>,
}

/// A `Conv`, `ConvTranspose`, `Gemm` or `MatMul` by a matrix.
pub(super) struct Linear<'a> {
    node_idx: usize,
    node: &'a Node,
    weight: &'a Name,
    layout: Layout,
}

/// How a weight `[first, second, …]` lies: `first` counts all input or output channels, `second` the others of one group.
struct Layout {
    shape: Vec<usize>,
    out_first: bool,
    n_groups: usize,
}

/// What becomes of an operator's constants.
pub(super) struct Change {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

/// The most channels of a weight that is looked at: the sizes of one that is not in the file may be anything.
const MOST_CHANNELS: usize = 1 << 20;

impl Layout {
    fn n_first(&self) -> usize {
        self.shape[0]
    }

    /// Input and output channel of a place in the weight.
    fn channels(&self, idx: usize) -> (usize, usize) {
        let n_second = self.shape[1];
        let n_plane: usize = self.shape[2..].iter().product();
        let first = idx / n_plane / n_second;
        let group = first / (self.n_first() / self.n_groups);
        let second = group * n_second + idx / n_plane % n_second;
        if self.out_first { (second, first) } else { (first, second) }
    }

    fn n_out(&self) -> usize {
        if self.out_first { self.n_first() } else { self.n_groups * self.shape[1] }
    }

    fn n_in(&self) -> usize {
        if self.out_first { self.n_groups * self.shape[1] } else { self.n_first() }
    }
}

impl<'a> Linear<'a> {
    /// The node at this position as such an operator; none where it is another, or computes on other than floats.
    pub(super) fn at(view: &View<'a>, node_idx: usize) -> Option<Linear<'a>> {
        let node = view.graph.nodes.get(node_idx)?;
        let (out_first, group, least_rank) = match &node.op {
            Op::Conv(conv) => (true, conv.group, 3),
            Op::ConvTranspose(conv) => (false, conv.group, 3),
            Op::Gemm(gemm) => (gemm.trans_b, 1, 2),
            Op::MatMul => (false, 1, 2),
            _ => return None,
        };
        let weight = node.input(1)?;
        is_computable(view.types.tensor(weight)?.dtype).then_some(())?;
        let shape = view.types.known_shape(weight)?;
        let ranked = if least_rank == 2 { shape.len() == 2 } else { shape.len() >= least_rank };
        let n_groups = usize::try_from(group).ok().filter(|&n| n > 0)?;
        let whole = ranked && !shape.contains(&0) && shape[0].is_multiple_of(n_groups);
        let n_second = shape.get(1).and_then(|second| second.checked_mul(n_groups))?;
        let few = whole && shape[0].max(n_second) <= MOST_CHANNELS;
        few.then_some(Linear { node_idx, node, weight, layout: Layout { shape, out_first, n_groups } })
    }

    /// The node's position.
    pub(super) fn node_idx(&self) -> usize {
        self.node_idx
    }

    /// How many channels come out.
    pub(super) fn n_out(&self) -> usize {
        self.layout.n_out()
    }

    /// The number of dimensions of input and output; none where it is not known.
    pub(super) fn rank(&self, view: &View<'_>) -> Option<usize> {
        match self.node.op {
            Op::MatMul => view.types.tensor(self.node.input(0)?)?.rank(),
            _ => Some(self.layout.shape.len()),
        }
    }

    /// The axis of the channels in a value of this many dimensions.
    pub(super) fn channel_axis(&self, rank: usize) -> Option<usize> {
        match self.node.op {
            Op::MatMul => rank.checked_sub(1),
            _ => Some(1),
        }
    }

    /// The constants that let the node compute `scale · y + shift` of what it computes now.
    ///
    /// # Errors
    /// Says why that is not done.
    pub(super) fn after(&self, view: &View<'_>, affine: &Affine) -> Result<Change, String> {
        self.expect_fit(view, affine, self.n_out())?;
        let mut bias = self.bias(view)?;
        let mut weight = None;
        if let Some(scale) = &affine.scale {
            let mut numbers = self.own_weight(view)?;
            for (idx, number) in numbers.iter_mut().enumerate() {
                *number *= scale[self.layout.channels(idx).1];
            }
            weight = Some(self.rounded_weight(view, numbers)?);
            bias.iter_mut().flatten().zip(scale).for_each(|(bias, scale)| *bias *= scale);
        }
        self.change(view, weight, added(bias, affine.shift.clone()))
    }

    /// The constants that let the node compute from `x` what it computes from `scale · x + shift` now.
    ///
    /// # Errors
    /// Says why that is not done.
    pub(super) fn before(&self, view: &View<'_>, affine: &Affine) -> Result<Change, String> {
        self.expect_fit(view, affine, self.layout.n_in())?;
        let mut numbers = self.own_weight(view)?;
        let mut shifted = None;
        if let Some(shift) = affine.shift.as_ref().filter(|shift| shift.iter().any(|&shift| shift != 0.0)) {
            if !self.is_unpadded() {
                return Err(format!("{} pads its input with zeros, which the shift would change", self.node.label()));
            }
            let alpha = if let Op::Gemm(gemm) = &self.node.op { f64::from(gemm.alpha) } else { 1.0 };
            let mut sums = vec![0.0; self.n_out()];
            for (idx, number) in numbers.iter().enumerate() {
                let (input, output) = self.layout.channels(idx);
                sums[output] += alpha * number * shift[input];
            }
            shifted = Some(sums);
        }
        if let Some(scale) = &affine.scale {
            for (idx, number) in numbers.iter_mut().enumerate() {
                *number *= scale[self.layout.channels(idx).0];
            }
        }
        let weight = self.rounded_weight(view, numbers)?;
        self.change(view, Some(weight), added(self.bias(view)?, shifted))
    }

    /// Puts the node with its new constants in its place; it reads `input` and computes `output`.
    pub(super) fn write(&self, view: &View<'_>, change: Change, input: &Name, output: &Name, patch: &mut Patch) {
        let mut node = self.node.clone();
        if let Some(weight) = change.weight {
            patch.replace_initializer(self.weight, weight);
        }
        node.inputs.truncate(2);
        node.inputs[0] = Some(input.clone());
        node.outputs = vec![Some(output.clone())];
        if let Some(bias) = change.bias {
            node.inputs.push(Some(self.write_bias(view, bias, patch)));
            match &mut node.op {
                Op::Gemm(gemm) => gemm.beta = 1.0,
                op @ Op::MatMul => *op = Op::Gemm(Gemm::default()),
                _ => {}
            }
        }
        patch.replace(self.node_idx, vec![node]);
    }

    fn write_bias(&self, view: &View<'_>, bias: Tensor, patch: &mut Patch) -> Name {
        match self.node.input(2) {
            Some(name) if is_own(view, name) && view.constant(name).map(Tensor::shape) == Some(bias.shape()) => {
                patch.replace_initializer(name, bias);
                name.clone()
            }
            Some(name) => patch.add_initializer(name, bias),
            None => patch.add_initializer(&format!("{}_bias", self.weight), bias),
        }
    }

    /// Whether every place of its window lies over the input.
    fn is_unpadded(&self) -> bool {
        match &self.node.op {
            Op::Conv(conv) => match conv.auto_pad {
                AutoPad::Valid => true,
                AutoPad::NotSet => conv.pads.iter().all(|&pad| pad == 0),
                AutoPad::SameUpper | AutoPad::SameLower => false,
            },
            // at the borders fewer taps meet
            Op::ConvTranspose(_) => false,
            _ => true,
        }
    }

    fn expect_fit(&self, view: &View<'_>, affine: &Affine, n_channels: usize) -> Result<(), String> {
        if affine.scale.iter().chain(&affine.shift).any(|numbers| numbers.len() != n_channels) {
            return Err(format!("its parameters are not those of {n_channels} channels"));
        }
        let quantized =
            || view.uses.producer(self.weight).is_some_and(|node| matches!(node.op, Op::DequantizeLinear(_)));
        if affine.shift.is_some() && quantized() {
            return Err(format!("the weight `{}` is quantized, and so would have to be the bias", self.weight));
        }
        Ok(())
    }

    /// The elements of a weight that this node alone reads.
    fn own_weight(&self, view: &View<'_>) -> Result<Vec<f64>, String> {
        let weight = self.weight;
        let tensor = view.graph.initializers.get(weight).and_then(|_| view.constant(weight));
        let numbers = tensor.and_then(floats).ok_or_else(|| format!("the weight `{weight}` is not constant"))?;
        if !is_own(view, weight) {
            return Err(format!("the weight `{weight}` is read elsewhere, too"));
        }
        Ok(numbers)
    }

    fn rounded_weight(&self, view: &View<'_>, numbers: Vec<f64>) -> Result<Tensor, String> {
        let dtype = self.dtype(view);
        rounded(dtype, &self.layout.shape, numbers)
            .ok_or_else(|| format!("the folded weight `{}` does not fit the range of {dtype}", self.weight))
    }

    fn dtype(&self, view: &View<'_>) -> DType {
        view.types.tensor(self.weight).expect("a linear operator's weight has a type").dtype
    }

    /// What it adds to each output channel; none where it adds nothing.
    fn bias(&self, view: &View<'_>) -> Result<Option<Vec<f64>>, String> {
        let Some(name) = self.node.input(2) else { return Ok(None) };
        let tensor = view.constant(name).ok_or_else(|| format!("the bias `{name}` is not constant"))?;
        let beta = if let Op::Gemm(gemm) = &self.node.op { f64::from(gemm.beta) } else { 1.0 };
        let bias = per_channel(tensor, 2, 1, self.n_out())
            .ok_or_else(|| format!("the bias `{name}` is not one number a channel"))?;
        Ok(Some(bias.into_iter().map(|bias| beta * bias).collect()))
    }

    fn change(&self, view: &View<'_>, weight: Option<Tensor>, bias: Option<Vec<f64>>) -> Result<Change, String> {
        let dtype = self.dtype(view);
        let too_large = || format!("the folded bias of {} does not fit the range of {dtype}", self.node.label());
        let round = |bias: Vec<f64>| rounded(dtype, &[bias.len()], bias).ok_or_else(too_large);
        Ok(Change { weight, bias: bias.map(round).transpose()? })
    }
}

/// Lets the operator that computes the node's input do what the node does: it becomes `linear`'s, and the node goes.
pub(super) fn fold_into_producer(
    view: &View<'_>,
    node_idx: usize,
    linear: &Linear<'_>,
    affine: &Affine,
    edits: &mut Edits,
) -> Result<(), String> {
    let produced = linear.node.output(0).ok_or("the operator before has no output")?;
    if view.uses.sole_reader(produced).is_none() {
        return Err(format!("`{produced}` is read elsewhere, too"));
    }
    let change = linear.after(view, affine)?;
    let (Some(input), Some(output)) = (linear.node.input(0), view.graph.nodes[node_idx].output(0)) else {
        return Ok(());
    };
    if let Some(patch) = edits.take(&[node_idx, linear.node_idx]) {
        patch.remove(node_idx);
        linear.write(view, change, input, output, patch);
    }
    Ok(())
}

/// The numbers that a constant has for the channels along `axis`, where it broadcasts to `rank` dimensions and is the same
/// along all the others.
pub(super) fn per_channel(tensor: &Tensor, rank: usize, axis: usize, n_channels: usize) -> Option<Vec<f64>> {
    let n_leading = rank.checked_sub(tensor.rank())?;
    let fits = |(position, &dim): (usize, &usize)| dim == 1 || (position + n_leading == axis && dim == n_channels);
    tensor.shape().iter().enumerate().all(fits).then_some(())?;
    let numbers = floats(tensor)?;
    match numbers[..] {
        [only] => Some(vec![only; n_channels]),
        _ => Some(numbers),
    }
}

/// Whether a constant is an initializer that just one node reads, so that changing it changes nothing else.
fn is_own(view: &View<'_>, name: &Name) -> bool {
    view.graph.initializers.contains_key(name) && view.uses.sole_reader(name).is_some()
}

fn added(a: Option<Vec<f64>>, b: Option<Vec<f64>>) -> Option<Vec<f64>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(a, b)| a + b).collect()),
        (one, None) | (None, one) => one,
    }
}
