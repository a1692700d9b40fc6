//! Fake quantization.

use super::Run;
use super::memory::Memory;
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{Id, Primitive};
use crate::learn::exec::quantization::{self, check_scales};
use crate::learn::kernels::quantize::{self, Quantization};

impl Run<'_> {
    /// Whether the step is one of these, and computed.
    ///
    /// # Errors
    /// When a scale is zero or below.
    pub(super) fn quantize(&self, memory: &mut Memory<'_>) -> Result<bool, ExecError> {
        let inputs = self.step.inputs.as_slice();
        let y_id = self.step.outputs[0];
        match self.step.primitive {
            Primitive::FakeQuantize(quantization) => {
                check_scales(memory.program.origin(self.step), memory.read(inputs[1]).iter().copied())?;
                memory.write([y_id], |memory, [y]| {
                    let quantization = kernel(memory, inputs, quantization);
                    match self.in_place {
                        Some(_) => quantize::fake_quantize_in_place(quantization, y),
                        None => quantize::fake_quantize(quantization, memory.read(inputs[0]), y),
                    }
                });
            }
            Primitive::FakeQuantizeGradient(quantization) => memory.write([y_id], |memory, [dx]| {
                let (quantization, x) = (kernel(memory, inputs, quantization), memory.read(inputs[0]));
                match self.in_place {
                    Some(_) => quantize::input_gradient_in_place(quantization, x, dx),
                    None => quantize::input_gradient(quantization, x, memory.read(inputs[3]), dx),
                }
            }),
            Primitive::FakeQuantizeScaleGradient(quantization) => memory.write([y_id], |memory, [d]| {
                let (quantization, x) = (kernel(memory, inputs, quantization), memory.read(inputs[0]));
                match self.in_place {
                    Some(_) => quantize::scale_gradient_in_place(quantization, x, d),
                    None => quantize::scale_gradient(quantization, x, memory.read(inputs[3]), d),
                }
            }),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What the kernel is told, from `x`, scale and zero point.
fn kernel<'a>(memory: &'a Memory<'_>, inputs: &[Id], quantization: quantization::Quantization) -> Quantization<'a> {
    let shape = memory.shape(inputs[0]);
    let inner = quantization.axis.map_or(shape, |axis| &shape[axis + 1..]).iter().product();
    Quantization {
        scale: memory.read(inputs[1]),
        zero_point: memory.read(inputs[2]),
        inner,
        range: (quantization.least as f32, quantization.greatest as f32),
    }
}
