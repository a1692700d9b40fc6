//! What becomes of numbers in 16 bits.

use half::{bf16, f16};

use super::HalfType;
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor, TensorError};
use crate::graph::{Graph, Name};

/// What a constant would lose beyond rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loss {
    /// Finite numbers become infinite; the greatest magnitude.
    Overflows(f32),
    /// Every number becomes zero; the greatest magnitude.
    Vanishes(f32),
}

impl Loss {
    /// The reason that a message gives.
    pub(super) fn reason(self, constant: &str, to: HalfType) -> String {
        match self {
            Loss::Overflows(magnitude) => {
                format!(
                    "the constant `{constant}` reaches {magnitude:e}, beyond the {:e} of {}",
                    to.greatest(),
                    to.dtype()
                )
            }
            Loss::Vanishes(magnitude) => {
                format!("the constant `{constant}`, at most {magnitude:e}, would be zero in {}", to.dtype())
            }
        }
    }
}

/// The number in the narrow type.
pub(super) fn rounded(x: f32, to: HalfType) -> f32 {
    match to {
        HalfType::F16 => f16::from_f32(x).to_f32(),
        HalfType::BF16 => bf16::from_f32(x).to_f32(),
    }
}

/// What an `f32` tensor would lose beyond rounding; none for one of another type.
pub(super) fn loss(tensor: &Tensor, to: HalfType) -> Option<Loss> {
    let values = tensor.as_slice::<f32>().ok()?;
    let greatest = values.iter().filter(|x| x.is_finite()).fold(0f32, |greatest, x| greatest.max(x.abs()));
    if rounded(greatest, to).is_infinite() {
        return Some(Loss::Overflows(greatest));
    }
    let remains = values.iter().any(|&x| rounded(x, to) != 0.0);
    (greatest > 0.0 && !remains).then_some(Loss::Vanishes(greatest))
}

/// The tensor in the narrow type, numbers under `least` raised to it.
///
/// # Errors
/// When it is not of `f32`.
pub(super) fn narrowed(tensor: &Tensor, to: HalfType, least: Option<f32>) -> Result<Tensor, TensorError> {
    let raised = |&x: &f32| least.filter(|&least| x.is_finite() && x < least).unwrap_or(x);
    let values = tensor.as_slice::<f32>()?.iter().map(raised);
    match to {
        HalfType::F16 => Tensor::new(tensor.shape(), values.map(f16::from_f32).collect::<Vec<_>>()),
        HalfType::BF16 => Tensor::new(tensor.shape(), values.map(bf16::from_f32).collect::<Vec<_>>()),
    }
}

/// The `f32` constants of a graph by name: initializers that no caller overrides, and what `Constant` and
/// `ConstantOfShape` hold.
pub(super) fn constants(graph: &Graph) -> Vec<(Name, Tensor)> {
    let own = graph.initializers.iter().filter(|(name, _)| !graph.overridable.contains(*name));
    let own = own.map(|(name, tensor)| (name.clone(), tensor.clone()));
    let of_nodes = graph.nodes.iter().filter_map(|node| {
        let tensor = if let Op::Constant(constant) = &node.op {
            constant.value.clone()
        } else if let Op::ConstantOfShape(constant) = &node.op {
            constant.element()
        } else {
            return None;
        };
        Some((node.output(0)?.clone(), tensor))
    });
    own.chain(of_nodes).filter(|(_, tensor)| tensor.dtype() == DType::F32).collect()
}
