//! Convolutions, poolings, and linear maps along an axis.

use super::Run;
use super::memory::Memory;
use super::shapes::Shapes;
use crate::learn::exec::program::Primitive;
use crate::learn::kernels::conv::{self, Activation};
use crate::learn::kernels::{linear_map, pool};

impl Run<'_> {
    /// Whether the step is one of these, and computed.
    pub(super) fn window(&self, memory: &mut Memory<'_>) -> bool {
        let inputs = self.step.inputs.as_slice();
        let y = self.step.outputs[0];
        match (&self.step.primitive, self.shapes) {
            (Primitive::Conv(_), Shapes::Conv(shape)) => memory.write([y], |memory, [y]| {
                let bias = inputs.get(2).map(|&bias| memory.read(bias));
                conv::forward(shape, memory.read(inputs[0]), memory.read(inputs[1]), bias, Activation::None, y);
            }),
            (Primitive::ConvInputGradient(_), Shapes::Conv(shape)) => memory.write([y], |memory, [dx]| {
                conv::input_gradient(shape, memory.read(inputs[0]), memory.read(inputs[1]), dx);
            }),
            (Primitive::ConvWeightGradient(_), Shapes::Conv(shape)) => memory.write([y], |memory, [dw]| {
                conv::weight_gradient(shape, memory.read(inputs[0]), memory.read(inputs[1]), dw);
            }),
            (Primitive::MaxPool(_), Shapes::Pool(shape)) => {
                memory.write_with_indices([y, self.step.outputs[1]], |memory, y, positions| {
                    pool::max_forward(shape, memory.read(inputs[0]), y, positions);
                });
            }
            (Primitive::MaxPoolGradient(_), Shapes::Pool(shape)) => memory.write([y], |memory, [dx]| {
                pool::max_backward(shape, memory.read(inputs[0]), memory.read_indices(inputs[1]), dx);
            }),
            (Primitive::AveragePool { count_padding, .. }, Shapes::Pool(shape)) => memory.write([y], |memory, [y]| {
                pool::average_forward(shape, *count_padding, memory.read(inputs[0]), y);
            }),
            (Primitive::AveragePoolGradient { count_padding, .. }, Shapes::Pool(shape)) => {
                memory.write([y], |memory, [dx]| {
                    pool::average_backward(shape, *count_padding, memory.read(inputs[0]), dx);
                });
            }
            (Primitive::MapAxis(axis, _), Shapes::Axis(table)) => memory.write([y], |memory, [to]| {
                let inner = memory.shape(y)[*axis + 1..].iter().product();
                linear_map::map_axis(table, inner, memory.read(inputs[0]), to);
            }),
            _ => return false,
        }
        true
    }
}
