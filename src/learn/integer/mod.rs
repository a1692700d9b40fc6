//! Networks in integers, computed as another machine computes them.
//!
//! ONNX says that sums of products of 8-bit integers are exact and that results are rounded half to even. Processors and
//! kernels differ: x86 without VNNI adds products of unsigned activations and signed weights in pairs that saturate at sixteen
//! bits, and microcontroller kernels round halves away from zero. An [`Arithmetic`] says what a machine does; a [`Network`]
//! runs on this machine and gives what that one would.

mod conv;
mod error;
mod matrix;
mod network;
mod operands;
pub mod pairs;
mod product;
#[cfg(test)]
mod tests;
mod weights;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use error::IntegerError;
pub use network::{Network, Ran, Saturation};

/// How a machine computes on 8-bit integers.
///
/// ```
/// use aludel::learn::integer::{Arithmetic, Pairs};
///
/// let old: Arithmetic = "x86-avx2".parse()?;
/// assert_eq!(old.pairs, Pairs::Saturating16);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Arithmetic {
    /// How products of unsigned activations and signed weights are added.
    pub pairs: Pairs,
    /// How what becomes an integer is rounded.
    pub rounding: Rounding,
}

/// How products of unsigned activations and signed weights are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pairs {
    /// In 32 bits.
    Exact,
    /// Neighbours two by two in 16 bits, which saturate, and the pairs in 32 bits: `pmaddubsw` and `pmaddwd`.
    Saturating16,
}

/// How what becomes an integer is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Halves to the even neighbour, as ONNX has it.
    HalfEven,
    /// Halves away from zero.
    HalfAway,
}

impl Arithmetic {
    /// What ONNX defines.
    pub const EXACT: Arithmetic = Arithmetic { pairs: Pairs::Exact, rounding: Rounding::HalfEven };

    /// Machines by name. `x86-avx2` is AVX2, or AVX-512 without VNNI, under onnxruntime, whose older SSE kernels are exact.
    pub const NAMED: [(&'static str, Arithmetic); 4] = [
        ("x86-avx2", Arithmetic { pairs: Pairs::Saturating16, ..Arithmetic::EXACT }),
        ("x86-vnni", Arithmetic::EXACT),
        ("arm64", Arithmetic::EXACT),
        ("microcontroller", Arithmetic { rounding: Rounding::HalfAway, ..Arithmetic::EXACT }),
    ];
}

impl FromStr for Arithmetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Arithmetic, String> {
        let named = Arithmetic::NAMED.iter().find(|(name, _)| *name == text).map(|(_, arithmetic)| *arithmetic);
        let names = Arithmetic::NAMED.map(|(name, _)| name).join(", ");
        named.ok_or_else(|| format!("`{text}` is no arithmetic; there are {names}"))
    }
}

impl Rounding {
    /// To an integer. No number comes near the ends of `f32`'s exact integers: what is rounded is clamped first.
    fn round(self, number: f32) -> f32 {
        match self {
            Rounding::HalfEven => number.round_ties_even(),
            Rounding::HalfAway => number.round(),
        }
    }
}
