//! Small values that are known before the network runs, wholly or in part: the arithmetic of shapes.
//!
//! Nothing is computed here: the reference interpreter does it. Elements that are symbols are carried through the
//! operators that only move elements by letting the reference move their numbers instead.

use super::fact::{Call, Fact};
use crate::graph::eval;
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor, n_elements};
use crate::graph::{Dim, Name};

/// The most elements of an integer or `bool` tensor that is carried.
pub(super) const MOST_INTEGERS: usize = 1024;

/// The most elements of a float tensor that is carried: scales of a Resize, not weights.
pub(super) const MOST_FLOATS: usize = 16;

/// One element of a value that is known in part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// This number; `bool` as 0 and 1.
    Known(i64),
    /// The size that this symbol stands for.
    Symbol(Name),
    /// Any number.
    Unknown,
}

impl Element {
    /// The number where it is known.
    pub fn known(&self) -> Option<i64> {
        match self {
            Element::Known(number) => Some(*number),
            Element::Symbol(_) | Element::Unknown => None,
        }
    }

    /// The dimension of this size; unknown for a negative number.
    pub(super) fn dim(&self) -> Dim {
        match self {
            Element::Known(number) => usize::try_from(*number).map_or(Dim::Unknown, Dim::Known),
            Element::Symbol(symbol) => Dim::Symbol(symbol.clone()),
            Element::Unknown => Dim::Unknown,
        }
    }
}

impl From<&Dim> for Element {
    fn from(dim: &Dim) -> Element {
        match dim {
            Dim::Known(size) => i64::try_from(*size).map_or(Element::Unknown, Element::Known),
            Dim::Symbol(symbol) => Element::Symbol(symbol.clone()),
            Dim::Unknown => Element::Unknown,
        }
    }
}

/// What is known of the elements of a value before the network runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// All of them.
    Known(Tensor),
    /// Some of them, of an integer or `bool` tensor.
    Partial {
        /// the dimensions
        shape: Vec<usize>,
        /// the elements, row-major
        elements: Vec<Element>,
    },
}

impl Value {
    /// The value of a constant; none where it is too large to be carried.
    pub(super) fn of(tensor: &Tensor) -> Option<Value> {
        is_small(tensor.dtype(), tensor.len()).then(|| Value::Known(tensor.clone()))
    }

    /// The tensor where every element is known.
    pub fn known(&self) -> Option<&Tensor> {
        match self {
            Value::Known(tensor) => Some(tensor),
            Value::Partial { .. } => None,
        }
    }

    /// The elements of an integer or `bool` value, row-major; none for other types and for numbers beyond `i64`.
    pub fn elements(&self) -> Option<Vec<Element>> {
        match self {
            Value::Known(tensor) => integers(tensor).map(|numbers| numbers.into_iter().map(Element::Known).collect()),
            Value::Partial { elements, .. } => Some(elements.clone()),
        }
    }

    /// The number of elements, known or not.
    pub(crate) fn len(&self) -> usize {
        match self {
            Value::Known(tensor) => tensor.len(),
            Value::Partial { elements, .. } => elements.len(),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Value::Known(tensor) => tensor.shape(),
            Value::Partial { shape, .. } => shape,
        }
    }
}

fn is_small(dtype: DType, len: usize) -> bool {
    len <= if dtype.is_integer() || dtype == DType::Bool { MOST_INTEGERS } else { MOST_FLOATS }
}

/// The elements as `i64`; none for other than integers and `bool`.
fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    fn widen<T: crate::graph::tensor::Element + Into<i64>>(tensor: &Tensor) -> Option<Vec<i64>> {
        Some(tensor.as_slice::<T>().ok()?.iter().map(|&x| x.into()).collect())
    }
    match tensor.dtype() {
        DType::I64 => tensor.to_vec::<i64>().ok(),
        DType::I32 => widen::<i32>(tensor),
        DType::I16 => widen::<i16>(tensor),
        DType::I8 => widen::<i8>(tensor),
        DType::U64 => tensor.as_slice::<u64>().ok()?.iter().map(|&x| i64::try_from(x).ok()).collect(),
        DType::U32 => widen::<u32>(tensor),
        DType::U16 => widen::<u16>(tensor),
        DType::U8 => widen::<u8>(tensor),
        DType::Bool => widen::<bool>(tensor),
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::String | DType::Complex64 | DType::Complex128 => {
            None
        }
        DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::F4E2M1 | DType::F8E8M0 => None,
        DType::F6E2M3 | DType::F6E3M2 => None,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => None,
    }
}

/// The tensor of these numbers, for the element types that shapes are computed in.
fn tensor_of(dtype: DType, shape: &[usize], numbers: &[i64]) -> Option<Tensor> {
    if dtype == DType::I64 {
        return Tensor::new(shape, numbers.to_vec()).ok();
    }
    if dtype == DType::I32 {
        let narrow: Vec<i32> = numbers.iter().map(|&x| i32::try_from(x).ok()).collect::<Option<_>>()?;
        return Tensor::new(shape, narrow).ok();
    }
    let truths = || numbers.iter().map(|&x| x != 0).collect();
    (dtype == DType::Bool).then(|| Tensor::new(shape, truths()).ok()).flatten()
}

fn value_of(dtype: DType, shape: &[usize], elements: Vec<Element>) -> Option<Value> {
    if elements.iter().all(|element| *element == Element::Unknown) && !elements.is_empty() {
        return None;
    }
    match elements.iter().map(Element::known).collect::<Option<Vec<i64>>>() {
        Some(numbers) => tensor_of(dtype, shape, &numbers).map(Value::Known),
        None => Some(Value::Partial { shape: shape.to_vec(), elements }),
    }
}

/// How an operator treats elements of which some are not known.
#[derive(Clone, Copy)]
pub(super) enum Carrying {
    /// It computes nothing from them; what is wholly known it computes.
    Whole,
    /// It moves the elements of one input, as the other inputs say.
    Moves(usize),
    /// It moves the elements of the inputs from this position on.
    MovesFrom(usize),
    /// It computes each element from those at the same place, after broadcasting.
    Pairs(fn(&Element, &Element) -> Element),
    /// Its outputs are not to be known, whatever its inputs are.
    Never,
}

/// Fills in the values of a node's outputs as far as they follow from those of its inputs.
pub(super) fn carry(call: &Call<'_>, carrying: Carrying, outputs: &mut [Fact]) {
    if outputs.iter().any(|output| output.value.is_some()) || !outputs.iter().all(fits) {
        return;
    }
    let known = call.inputs.is_empty() || call.inputs.iter().flatten().any(|fact| fact.value.is_some());
    let of_fact = |input: &Option<&'_ Fact>| input.map_or(Some(None), |fact| value_or_unknowns(fact).map(Some));
    let Some(values) = call.inputs.iter().map(of_fact).collect::<Option<Vec<Option<Value>>>>().filter(|_| known) else {
        return;
    };
    let tensor = |value: &Option<Value>| value.as_ref().map_or(Some(None), |value| value.known().cloned().map(Some));
    let tensors: Option<Vec<Option<Tensor>>> = values.iter().map(tensor).collect();
    match (carrying, tensors) {
        (Carrying::Never, _) | (Carrying::Whole, None) => {}
        (_, Some(tensors)) => evaluate(call, &tensors, outputs),
        (Carrying::Moves(only), None) => set_first(outputs, |output| moved(call, &values, only..only + 1, output)),
        (Carrying::MovesFrom(first), None) => {
            set_first(outputs, |output| moved(call, &values, first..values.len(), output));
        }
        (Carrying::Pairs(pair), None) => set_first(outputs, |output| paired(call, &values, pair, output)),
    }
}

/// The value; where nothing is known of it, as many unknown elements as a small tensor of integers has.
fn value_or_unknowns(fact: &Fact) -> Option<Value> {
    let unknowns = || {
        let is_integer = matches!(fact.dtype, Some(DType::I64 | DType::I32 | DType::Bool));
        let shape = fact.shape.as_ref().filter(|_| is_integer && fits(fact))?;
        let shape: Vec<usize> = shape.iter().map(Dim::known).collect::<Option<_>>()?;
        let elements = vec![Element::Unknown; n_elements(&shape)?];
        Some(Value::Partial { shape, elements })
    };
    fact.value.clone().or_else(unknowns)
}

fn set_first(outputs: &mut [Fact], value: impl FnOnce(&Fact) -> Option<Value>) {
    if let [output] = outputs {
        output.value = value(output);
    }
}

/// Whether an output's shape is known, and its value small enough to be carried.
fn fits(fact: &Fact) -> bool {
    let shape = fact.shape.as_ref().and_then(|dims| dims.iter().map(Dim::known).collect::<Option<Vec<usize>>>());
    let len = shape.and_then(|shape| n_elements(&shape));
    matches!((fact.dtype, len), (Some(dtype), Some(len)) if is_small(dtype, len))
}

/// The value of `Shape`, whose elements are these dimensions.
pub(super) fn of_dims(dims: &[Dim]) -> Option<Value> {
    value_of(DType::I64, &[dims.len()], dims.iter().map(Element::from).collect())
}

/// The value of `Size`.
pub(super) fn of_count(n: &Dim) -> Option<Value> {
    value_of(DType::I64, &[], vec![Element::from(n)])
}

fn evaluate(call: &Call<'_>, tensors: &[Option<Tensor>], outputs: &mut [Fact]) {
    let Ok(results) = eval::operator(call.op, tensors, call.n_outputs) else {
        return;
    };
    for (output, result) in outputs.iter_mut().zip(results) {
        output.value = result.filter(|tensor| agrees(output, tensor)).map(Value::Known);
    }
}

fn agrees(fact: &Fact, tensor: &Tensor) -> bool {
    let same = |dims: &Vec<Dim>| dims.iter().map(Dim::known).eq(tensor.shape().iter().map(|&size| Some(size)));
    fact.dtype == Some(tensor.dtype()) && fact.shape.as_ref().is_some_and(same)
}

/// Lets the reference move the elements' numbers, counted through all inputs, and puts the elements there.
fn moved(call: &Call<'_>, values: &[Option<Value>], moving: std::ops::Range<usize>, output: &Fact) -> Option<Value> {
    let to = output.dtype?;
    let is_shape_type = |dtype| matches!(dtype, DType::I64 | DType::I32);
    // symbols are sizes: a cast among these types keeps them
    if !is_shape_type(to) || !is_shape_type(call.dtype(moving.start)?) {
        return None;
    }
    let mut pool: Vec<Element> = Vec::new();
    let mut inputs: Vec<Option<Tensor>> = Vec::new();
    for (position, value) in values.iter().enumerate() {
        inputs.push(match value {
            Some(value) if moving.contains(&position) => {
                let elements = value.elements()?;
                let numbers = (pool.len()..pool.len() + elements.len()).map(|n| i64::try_from(n).ok());
                let numbers: Vec<i64> = numbers.collect::<Option<_>>()?;
                pool.extend(elements);
                Some(tensor_of(call.dtype(position)?, value.shape(), &numbers)?)
            }
            Some(value) => Some(value.known()?.clone()),
            None => None,
        });
    }
    let result = eval::operator(call.op, &inputs, 1).ok()?.into_iter().next()??;
    if !agrees(output, &result) {
        return None;
    }
    let place = |number: i64| usize::try_from(number).ok().and_then(|place| pool.get(place).cloned());
    let elements: Option<Vec<Element>> = integers(&result)?.into_iter().map(place).collect();
    value_of(to, result.shape(), elements?)
}

/// Lets the reference compute with 1 for what is not known, and keeps the results of what is.
fn paired(
    call: &Call<'_>,
    values: &[Option<Value>],
    pair: fn(&Element, &Element) -> Element,
    output: &Fact,
) -> Option<Value> {
    let [Some(a), Some(b)] = values else { return None };
    let stand_in = |position: usize, value: &Value| {
        let numbers: Vec<i64> = value.elements()?.iter().map(|element| element.known().unwrap_or(1)).collect();
        tensor_of(call.dtype(position)?, value.shape(), &numbers)
    };
    let result = eval::operator(call.op, &[Some(stand_in(0, a)?), Some(stand_in(1, b)?)], 1).ok()?;
    let result = result.into_iter().next()?.filter(|tensor| agrees(output, tensor))?;
    let (a, b) = (expanded(a, result.shape())?, expanded(b, result.shape())?);
    let elements = integers(&result)?.into_iter().zip(a.iter().zip(&b)).map(|(number, (a, b))| {
        if a.known().is_some() && b.known().is_some() { Element::Known(number) } else { pair(a, b) }
    });
    value_of(result.dtype(), result.shape(), elements.collect())
}

/// The elements repeated as broadcasting to this shape has it.
fn expanded(value: &Value, shape: &[usize]) -> Option<Vec<Element>> {
    let elements = value.elements()?;
    let numbers: Vec<i64> = (0..elements.len()).map(|n| i64::try_from(n).ok()).collect::<Option<_>>()?;
    let target = shape.iter().map(|&size| i64::try_from(size).ok()).collect::<Option<Vec<i64>>>()?;
    let inputs = [tensor_of(DType::I64, value.shape(), &numbers), Some(Tensor::vector(target))];
    let places = eval::operator(&Op::Expand, &inputs, 1).ok()?.into_iter().next()??;
    integers(&places)?.into_iter().map(|place| elements.get(usize::try_from(place).ok()?).cloned()).collect()
}

pub(super) fn added(a: &Element, b: &Element) -> Element {
    match (a, b) {
        (Element::Known(0), other) | (other, Element::Known(0)) => other.clone(),
        _ => Element::Unknown,
    }
}

pub(super) fn subtracted(a: &Element, b: &Element) -> Element {
    match (a, b) {
        (other, Element::Known(0)) => other.clone(),
        (Element::Symbol(x), Element::Symbol(y)) if x == y => Element::Known(0),
        _ => Element::Unknown,
    }
}

pub(super) fn multiplied(a: &Element, b: &Element) -> Element {
    match (a, b) {
        (Element::Known(1), other) | (other, Element::Known(1)) => other.clone(),
        (Element::Known(0), _) | (_, Element::Known(0)) => Element::Known(0),
        _ => Element::Unknown,
    }
}

pub(super) fn divided(a: &Element, b: &Element) -> Element {
    match (a, b) {
        (other, Element::Known(1)) => other.clone(),
        _ => Element::Unknown,
    }
}

/// Sizes are never negative.
pub(super) fn compared(a: &Element, b: &Element) -> Element {
    match (a, b) {
        (Element::Symbol(x), Element::Symbol(y)) if x == y => Element::Known(1),
        (Element::Symbol(_), Element::Known(number)) | (Element::Known(number), Element::Symbol(_)) if *number < 0 => {
            Element::Known(0)
        }
        _ => Element::Unknown,
    }
}

pub(super) fn same(a: &Element, b: &Element) -> Element {
    if a == b { a.clone() } else { Element::Unknown }
}
