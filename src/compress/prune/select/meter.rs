//! What a network costs without some of its units: foretold quickly from the sizes that are left, and counted in what is left.

use std::collections::HashMap;

use super::{PruneError, Selection};
use crate::graph::cost::{Cost, Counts, cost};
use crate::graph::shape::{Bindings, Typed, Types, infer, symbols};
use crate::graph::structure::groups::Groups;
use crate::graph::structure::removal::remove;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Graph, Name, Op, TensorType};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Macs,
    Parameters,
    Bytes,
}

impl Measure {
    fn of(self, counts: &Counts) -> u64 {
        match self {
            Measure::Macs => counts.macs,
            Measure::Parameters => counts.parameters,
            Measure::Bytes => counts.weight_bytes,
        }
    }
}

/// Counts what is left of a network.
pub(super) struct Meter<'a> {
    graph: &'a Graph,
    types: &'a Types,
    groups: &'a Groups,
    measure: Measure,
    sizes: Bindings,
    /// The types at these sizes.
    sized: Types,
    constants: HashMap<&'a Name, &'a Tensor>,
    whole: u64,
}

impl<'a> Meter<'a> {
    /// # Errors
    /// When the sizes do not fit, or what a node multiplies is not known.
    pub(super) fn new(
        graph: &'a Graph,
        types: &'a Types,
        groups: &'a Groups,
        measure: Measure,
    ) -> Result<Meter<'a>, PruneError> {
        let sizes = sizes(graph, types);
        let sized = match measure {
            Measure::Macs => infer(graph, &sizes)?,
            Measure::Parameters | Measure::Bytes => Types::default(),
        };
        let Cost { total, nodes, .. } = cost(graph, &sized);
        if let Some(node) = nodes.iter().find(|node| node.incomplete).filter(|_| measure == Measure::Macs) {
            return Err(PruneError::Uncounted { node: format!("{} `{}`", node.operator, node.output) });
        }
        let computed = graph.nodes.iter().filter_map(|node| match &node.op {
            Op::Constant(constant) => Some((node.output(0)?, &constant.value)),
            _ => None,
        });
        let constants = graph.initializers.iter().chain(computed).collect();
        Ok(Meter { graph, types, groups, measure, sizes, sized, constants, whole: measure.of(&total) })
    }

    /// What the whole network has.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// What the network has without these units.
    ///
    /// # Errors
    /// When they cannot be taken out.
    pub(super) fn left(&self, selection: &Selection) -> Result<u64, PruneError> {
        let smaller = remove(self.graph, self.types, &selection.removals(self.groups))?;
        let types = match self.measure {
            Measure::Macs => infer(&smaller, &self.sizes)?,
            Measure::Parameters | Measure::Bytes => Types::default(),
        };
        Ok(self.measure.of(&cost(&smaller, &types).total))
    }

    /// The same from the sizes that are left alone, but for the operands that spell sizes.
    pub(super) fn foretold(&self, selection: &Selection) -> u64 {
        let mut gone: HashMap<&Name, HashMap<usize, usize>> = HashMap::new();
        for (group, units) in self.groups.groups.iter().zip(&selection.units).filter(|(_, units)| !units.is_empty()) {
            for member in &group.members {
                let axes = gone.entry(&member.value).or_default();
                *axes.entry(member.axis).or_default() += units.len() * member.n_per_unit;
            }
        }
        match self.measure {
            Measure::Macs => self.macs(&gone),
            Measure::Parameters | Measure::Bytes => self.whole.saturating_sub(self.of_constants(&gone)),
        }
    }

    /// The multiplications that are left.
    fn macs(&self, gone: &HashMap<&Name, HashMap<usize, usize>>) -> u64 {
        let mut types = self.sized.clone();
        for (name, axes) in gone {
            let Some(TensorType { dtype, shape: Some(dims) }) = self.sized.tensor(name) else { continue };
            let left = dims.iter().enumerate().map(|(axis, dim)| match (dim, axes.get(&axis)) {
                (Dim::Known(size), Some(n_gone)) => Dim::Known(size.saturating_sub(*n_gone)),
                (dim, _) => dim.clone(),
            });
            let value_type = TensorType { dtype: *dtype, shape: Some(left.collect()) }.into();
            types.insert(name, Typed { value_type, value: None });
        }
        cost(self.graph, &types).total.macs
    }

    /// What goes of the constants.
    fn of_constants(&self, gone: &HashMap<&Name, HashMap<usize, usize>>) -> u64 {
        let constants = gone.iter().filter_map(|(name, axes)| Some((*self.constants.get(name)?, axes)));
        let parts = constants.map(|(tensor, axes)| {
            let n_left = |(axis, &size): (usize, &usize)| size.saturating_sub(axes.get(&axis).copied().unwrap_or(0));
            let n: usize = tensor.shape().iter().enumerate().map(n_left).product();
            let n_gone = tensor.len().saturating_sub(n) as u64;
            match self.measure {
                Measure::Parameters => n_gone,
                Measure::Macs | Measure::Bytes => {
                    let n_bytes = tensor.dtype().n_bytes(n).unwrap_or(0);
                    tensor.n_bytes().saturating_sub(n_bytes) as u64
                }
            }
        });
        parts.sum()
    }
}

/// The sizes of the symbols in the shapes of a graph's inputs: as its types have them, else one.
pub fn sizes(graph: &Graph, types: &Types) -> Bindings {
    let mut sizes = Bindings::default();
    for input in &graph.inputs {
        let stated = input.tensor_type().and_then(|tensor| tensor.shape.as_ref());
        let typed = types.tensor(&input.name).and_then(|tensor| tensor.shape.as_ref());
        for (stated, typed) in stated.into_iter().flatten().zip(typed.into_iter().flatten()) {
            if let (Dim::Symbol(symbol), Some(size)) = (stated, typed.known()) {
                sizes.symbols.insert(symbol.clone(), size);
            }
        }
    }
    for symbol in symbols(graph) {
        sizes.symbols.entry(symbol).or_insert(1);
    }
    sizes
}
