//! Open dimensions of a network's inputs given numbers for good, where a runtime or rewrite needs them.

use crate::graph::{CheckError, Dim, Graph, Name, ValueInfo, ValueType};

/// The network with this size wherever the symbol stands in what it states of its values.
///
/// # Errors
/// When the result is no graph.
pub fn fix_symbol(graph: &Graph, symbol: &Name, size: usize) -> Result<Graph, CheckError> {
    let mut parts = graph.to_parts();
    let infos = parts.inputs.iter_mut().chain(&mut parts.outputs).chain(parts.value_info.values_mut());
    let is_meant = |dim: &&mut Dim| matches!(dim, Dim::Symbol(other) if other == symbol);
    infos.flat_map(dims_mut).filter(is_meant).for_each(|dim| *dim = Dim::Known(size));
    Graph::new(parts)
}

/// The network with this size at an axis of an input.
///
/// # Errors
/// When the result is no graph.
pub fn fix_axis(graph: &Graph, input: &Name, axis: usize, size: usize) -> Result<Graph, CheckError> {
    let mut parts = graph.to_parts();
    let input = parts.inputs.iter_mut().find(|info| info.name == *input);
    if let Some(dim) = input.and_then(|info| dims_mut(info).nth(axis)) {
        *dim = Dim::Known(size);
    }
    Graph::new(parts)
}

fn dims_mut(info: &mut ValueInfo) -> impl Iterator<Item = &mut Dim> {
    let shape = match &mut info.value_type {
        Some(ValueType::Tensor(tensor)) => tensor.shape.as_mut(),
        _ => None,
    };
    shape.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tensor::DType;
    use crate::graph::{GraphBuilder, Op, TensorType};

    #[test]
    fn a_dimension_gets_its_number_wherever_it_stands() {
        let mut builder = GraphBuilder::new("net");
        let of = |first: Dim| TensorType::new(DType::F32, [first, Dim::Unknown]);
        let (a, b) = (builder.input("a", of(Dim::from("time"))), builder.input("b", of(Dim::from("batch"))));
        let (y, z) = (builder.node(Op::Relu, &[&a]), builder.node(Op::Relu, &[&b]));
        builder.typed_output(&y, of(Dim::from("time")));
        builder.output(&z);
        let graph = builder.finish().expect("a graph");
        let graph = fix_symbol(&graph, &"time".into(), 7).expect("a graph");
        let graph = fix_axis(&graph, &"b".into(), 1, 3).expect("a graph");
        let shown = |info: &ValueInfo| info.tensor_type().map(ToString::to_string).unwrap_or_default();
        assert_eq!(graph.inputs.iter().map(shown).collect::<Vec<_>>(), ["f32[7, ?]", "f32[batch, 3]"]);
        assert_eq!(graph.outputs.iter().map(shown).collect::<Vec<_>>(), ["f32[7, ?]", ""]);
    }
}
