//! Messages of ONNX files byte by byte, field numbers as in `onnx.proto`: what a well-behaved writer would not write.

use super::mutate::varint;

/// A number of this field.
pub(crate) fn int(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value.cast_unsigned())].concat()
}

/// A text, bytes or message of this field.
pub(crate) fn field(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// This content in a message of the field, in one more around it, and so on.
pub(crate) fn nested(path: &[u64], n_times: usize, content: &[u8]) -> Vec<u8> {
    // From the inside out, backwards, so that each level costs only its own tag and length.
    let mut reversed: Vec<u8> = content.iter().rev().copied().collect();
    for _ in 0..n_times {
        for &number in path.iter().rev() {
            let head = [varint(number << 3 | 2), varint(reversed.len() as u64)].concat();
            reversed.extend(head.iter().rev());
        }
    }
    reversed.reverse();
    reversed
}

/// A node of one operator.
pub(crate) fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let names = inputs.iter().map(|name| field(1, name)).chain(outputs.iter().map(|name| field(2, name)));
    let attributes = attributes.iter().map(|attribute| field(5, attribute));
    field(1, names.chain([field(4, op_type)]).chain(attributes).collect::<Vec<_>>().concat())
}

/// An attribute that is a number.
pub(crate) fn int_attribute(name: &str, value: i64) -> Vec<u8> {
    [field(1, name), int(3, value), int(20, 2)].concat()
}

/// An attribute that is a list of numbers.
pub(crate) fn ints_attribute(name: &str, values: &[i64]) -> Vec<u8> {
    let values = values.iter().map(|&value| int(8, value)).collect::<Vec<_>>().concat();
    [field(1, name), values, int(20, 7)].concat()
}

/// An attribute that is a text.
pub(crate) fn text_attribute(name: &str, value: &str) -> Vec<u8> {
    [field(1, name), field(4, value), int(20, 3)].concat()
}

/// An attribute that is a graph.
pub(crate) fn graph_attribute(name: &str, graph: &[u8]) -> Vec<u8> {
    [field(1, name), field(6, graph), int(20, 5)].concat()
}

/// An initializer of a graph: a list of `i64`.
pub(crate) fn list(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    field(5, [int(1, values.len() as i64), int(2, 7), field(8, name), field(9, raw)].concat())
}

/// An initializer of a graph: one number.
pub(crate) fn number(name: &str, value: i64) -> Vec<u8> {
    field(5, [int(2, 7), field(8, name), field(9, value.to_le_bytes())].concat())
}

/// An initializer of a graph: one truth.
pub(crate) fn truth(name: &str) -> Vec<u8> {
    field(5, [int(2, 9), field(8, name), field(9, [1])].concat())
}

/// An initializer of a graph: a list of `f32`.
pub(crate) fn floats(name: &str, shape: &[i64], values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dims = shape.iter().map(|&dim| int(1, dim)).collect::<Vec<_>>().concat();
    field(5, [dims, int(2, 1), field(8, name), field(9, raw)].concat())
}

/// What a graph states of a value: 11 of an input, 12 of an output, 13 of another. A negative dimension is a symbol.
pub(crate) fn value(kind: u64, name: &str, dtype: i64, dims: &[i64]) -> Vec<u8> {
    let dim = |&size: &i64| field(1, if size < 0 { field(2, format!("symbol{size}")) } else { int(1, size) });
    let dims = dims.iter().map(dim).collect::<Vec<_>>().concat();
    field(kind, [field(1, name), field(2, field(1, [int(1, dtype), field(2, dims)].concat()))].concat())
}

/// An output of which nothing is stated.
pub(crate) fn output(name: &str) -> Vec<u8> {
    field(12, field(1, name))
}

/// A file of this operator set.
pub(crate) fn model(opset: i64, graph: &[Vec<u8>]) -> Vec<u8> {
    [int(1, 10), field(7, graph.concat()), field(8, int(2, opset)), field(8, [field(1, "local"), int(2, 1)].concat())]
        .concat()
}
