//! Constants of a graph taken out as numbers, changed, and put back in one patch.

use std::collections::BTreeMap;

pub(super) use crate::compress::observe::offset::{constant, is_constant};
use crate::compress::quantize::QuantizeError;
use crate::graph::patch::Patch;
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};

/// A constant that a node reads, in more bits than it is stored in.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) numbers: Vec<f64>,
}

impl Array {
    pub(super) fn of(tensor: &Tensor) -> Array {
        let numbers = tensor.as_slice::<f32>().unwrap_or_default().iter().map(|&x| f64::from(x)).collect();
        Array { shape: tensor.shape().to_vec(), numbers }
    }

    /// Repeats its numbers where it has but one along the axis that is so many from the last, so that it has `n`.
    pub(super) fn widen(&mut self, from_last: usize, n: usize) {
        while self.shape.len() <= from_last {
            self.shape.insert(0, 1);
        }
        let axis = self.shape.len() - 1 - from_last;
        if self.shape[axis] == 1 && n != 1 {
            let n_inner: usize = self.shape[axis + 1..].iter().product();
            self.numbers = self.numbers.chunks(n_inner.max(1)).flat_map(|row| row.repeat(n)).collect();
            self.shape[axis] = n;
        }
    }

    /// Its size along the axis that is so many from the last.
    pub(super) fn size(&self, from_last: usize) -> Option<usize> {
        self.shape.len().checked_sub(from_last + 1).map(|axis| self.shape[axis])
    }

    /// Changes each number, told its index along that axis.
    pub(super) fn change(&mut self, from_last: usize, change: impl Fn(usize, &mut f64)) {
        let axis = self.shape.len() - 1 - from_last;
        let (size, n_inner) = (self.shape[axis], self.shape[axis + 1..].iter().product::<usize>());
        for (row_idx, row) in self.numbers.chunks_mut(n_inner.max(1)).enumerate() {
            row.iter_mut().for_each(|x| change(row_idx % size, x));
        }
    }
}

/// The constants that nodes are to read instead of theirs, by node and input.
pub(super) struct Edits<'a> {
    graph: &'a Graph,
    uses: &'a Uses<'a>,
    arrays: BTreeMap<(usize, usize), Array>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(graph: &'a Graph, uses: &'a Uses<'a>) -> Edits<'a> {
        Edits { graph, uses, arrays: BTreeMap::new() }
    }

    /// The constant that a node reads there, to be changed for it alone; zeros of the shape where it reads none.
    pub(super) fn array(&mut self, node_idx: usize, position: usize, or_zeros: &[usize]) -> &mut Array {
        self.arrays.entry((node_idx, position)).or_insert_with(|| {
            let name = self.graph.nodes[node_idx].input(position);
            let zeros = || Array { shape: or_zeros.to_vec(), numbers: vec![0.0; or_zeros.iter().product()] };
            name.and_then(|name| constant(self.graph, name)).map_or_else(zeros, Array::of)
        })
    }

    /// The graph with these constants. One that others read too stays, and the node gets its own.
    ///
    /// # Errors
    /// When a number has left the range of `f32`.
    pub(super) fn apply(self) -> Result<Graph, QuantizeError> {
        let mut patch = Patch::new(self.graph);
        let mut nodes: BTreeMap<usize, Node> = BTreeMap::new();
        for ((node_idx, position), array) in self.arrays {
            let before = &self.graph.nodes[node_idx];
            let tensor = Tensor::new(&array.shape, array.numbers.iter().map(|&x| x as f32).collect())?;
            let name = before.input(position);
            if tensor.as_slice::<f32>()?.iter().any(|x| !x.is_finite()) {
                let name = name.or(before.output(0)).cloned().unwrap_or_else(|| before.label().as_str().into());
                return Err(QuantizeError::Constant { name });
            }
            let is_own = |name: &Name| self.uses.readers(name).len() == 1 && !self.uses.is_output(name);
            match name {
                Some(name) if is_own(name) && self.graph.initializers[name].shape() == tensor.shape() => {
                    patch.replace_initializer(name, tensor);
                }
                _ => {
                    let new = || format!("{}_bias", before.output(0).map_or("", Name::as_str));
                    let base = name.map_or_else(new, Name::to_string);
                    let name = patch.add_initializer(&base, tensor);
                    let node = nodes.entry(node_idx).or_insert_with(|| before.clone());
                    node.inputs.resize(node.inputs.len().max(position + 1), None);
                    node.inputs[position] = Some(name);
                }
            }
        }
        nodes.into_iter().for_each(|(node_idx, node)| patch.replace(node_idx, vec![node]));
        patch.remove_unused_initializers();
        Ok(patch.apply(None)?)
    }
}
