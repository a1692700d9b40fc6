//! What a rewrite sees: a graph, what is known of its values, and of the graphs around it.

use super::Options;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Dim, Graph, Node};

/// A graph as a rewrite sees it.
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) types: &'a Types,
    pub(super) uses: Uses<'a>,
    pub(super) options: &'a Options,
    /// The graph that this one is a body in.
    pub(super) around: Option<&'a View<'a>>,
}

impl<'a> View<'a> {
    pub(super) fn node(&self, node_idx: usize) -> Option<&'a Node> {
        self.graph.nodes.get(node_idx)
    }

    /// The value before the network runs: of an initializer that no caller can override, here or in a graph around, or of
    /// anything small that follows from such.
    pub(super) fn constant(&self, name: &str) -> Option<&'a Tensor> {
        if self.graph.overridable.contains(name) {
            return None;
        }
        let own = self.graph.initializers.get(name);
        let captured = || self.around.filter(|_| self.graph.captures().contains(name))?.constant(name);
        own.or_else(|| self.types.constant(name)).or_else(captured)
    }

    /// The integers of a constant.
    pub(super) fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.constant(name)?;
        let narrow = || Some(tensor.as_slice::<i32>().ok()?.iter().map(|&x| i64::from(x)).collect());
        tensor.to_vec::<i64>().ok().or_else(narrow)
    }

    /// Whether every element of a constant is this number.
    pub(super) fn is_all(&self, name: &str, number: f64) -> bool {
        self.constant(name).is_some_and(|tensor| is_all(tensor, number))
    }

    pub(super) fn dims(&self, name: &str) -> Option<&'a [Dim]> {
        self.types.tensor(name)?.shape.as_deref()
    }

    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        Some(self.types.tensor(name)?.dtype)
    }

    pub(super) fn rank(&self, name: &str) -> Option<usize> {
        self.dims(name).map(<[Dim]>::len)
    }

    /// Whether everything that reads `old` can read `new` without another node: an output of the graph keeps its name, and
    /// only a value that a node produces, and that is no output itself, can take it.
    pub(super) fn can_become(&self, old: &str, new: &str) -> bool {
        !self.uses.is_output(old) || (self.uses.producer_idx(new).is_some() && !self.uses.is_output(new))
    }

    /// Whether two values are known to have the same type and, whatever the network is given, the same shape.
    pub(super) fn same_type(&self, a: &str, b: &str) -> bool {
        let (Some(a_dims), Some(b_dims)) = (self.dims(a), self.dims(b)) else { return false };
        self.dtype(a) == self.dtype(b) && a_dims.len() == b_dims.len() && a_dims.iter().zip(b_dims).all(same_dim)
    }
}

/// Whether two dimensions are known to be the same.
pub(super) fn same_dim((a, b): (&Dim, &Dim)) -> bool {
    a == b && *a != Dim::Unknown
}

/// Whether every element is this number; false where there is none.
pub(super) fn is_all(tensor: &Tensor, number: f64) -> bool {
    if tensor.is_empty() {
        return false;
    }
    // the first element settles most: conversions of whole weights are to be spared
    macro_rules! all {
        ($($rust:ty => $convert:expr),*) => {
            $(if let Ok(elements) = tensor.as_slice::<$rust>() {
                #[allow(clippy::redundant_closure_call)]
                return elements.iter().all(|&x| $convert(x) == number);
            })*
        };
    }
    all!(
        f32 => f64::from, f64 => |x: f64| x, half::f16 => f64::from, half::bf16 => f64::from, i64 => |x: i64| x as f64,
        i32 => f64::from, i16 => f64::from, i8 => f64::from, u8 => f64::from, u16 => f64::from, u32 => f64::from,
        bool => |x: bool| f64::from(u8::from(x))
    );
    false
}
