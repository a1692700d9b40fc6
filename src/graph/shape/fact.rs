//! What the rules work with: what is known of a value, a node's inputs, and the way to say that they do not fit.

use std::fmt;

use super::dims::Shape;
use super::value::{Element, Value};
use crate::graph::op::Op;
use crate::graph::tensor::DType;
use crate::graph::{Dim, TensorType, ValueType};

/// What is known of one value; every part may be unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fact {
    pub(super) dtype: Option<DType>,
    pub(super) shape: Shape,
    pub(super) value: Option<Value>,
    /// The type of a value that is no dense tensor; the other parts are then empty.
    pub(super) other: Option<ValueType>,
}

impl Fact {
    pub(super) fn new(dtype: Option<DType>, shape: Shape) -> Fact {
        Fact { dtype, shape, ..Fact::default() }
    }

    pub(super) fn of(value_type: &ValueType) -> Fact {
        match value_type.tensor() {
            Some(tensor) => Fact::new(Some(tensor.dtype), tensor.shape.clone()),
            None => Fact { other: Some(value_type.clone()), ..Fact::default() },
        }
    }

    /// The type; none where not even the element type is known.
    pub(super) fn value_type(&self) -> Option<ValueType> {
        let tensor = self.dtype.map(|dtype| ValueType::Tensor(TensorType { dtype, shape: self.shape.clone() }));
        self.other.clone().or(tensor)
    }

    /// The same type, of which no element is known.
    pub(super) fn without_value(&self) -> Fact {
        Fact { value: None, ..self.clone() }
    }
}

/// What does not fit: it should have been something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) expected: String,
    pub(super) got: String,
}

pub(super) fn problem(what: impl fmt::Display, expected: impl fmt::Display, got: impl fmt::Display) -> Problem {
    Problem { what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
}

/// What a rule returns: a fact for each output.
pub(super) type Outputs = Result<Vec<Fact>, Problem>;

/// One output of this type.
pub(super) fn one(dtype: Option<DType>, shape: Shape) -> Outputs {
    Ok(vec![Fact::new(dtype, shape)])
}

/// A node's operator and what is known of its inputs.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) op: &'a Op,
    pub(super) inputs: &'a [Option<&'a Fact>],
    pub(super) n_outputs: usize,
}

impl<'a> Call<'a> {
    pub(super) fn input(&self, position: usize) -> Option<&'a Fact> {
        self.inputs.get(position).copied().flatten()
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.input(position).is_some()
    }

    pub(super) fn dtype(&self, position: usize) -> Option<DType> {
        self.input(position)?.dtype
    }

    /// The dimensions of an input; none where it is left out or has an unknown number of them.
    pub(super) fn dims(&self, position: usize) -> Option<&'a [Dim]> {
        self.input(position)?.shape.as_deref()
    }

    /// The shape of an input, to be an output's.
    pub(super) fn shape(&self, position: usize) -> Shape {
        self.dims(position).map(<[Dim]>::to_vec)
    }

    /// The one dimension at an axis counted from the start; unknown where the input is.
    pub(super) fn dim(&self, position: usize, axis: usize) -> Dim {
        self.dims(position).and_then(|dims| dims.get(axis)).cloned().unwrap_or(Dim::Unknown)
    }

    /// The elements of a small integer input.
    pub(super) fn elements(&self, position: usize) -> Option<Vec<Element>> {
        self.input(position)?.value.as_ref()?.elements()
    }

    /// The elements of a small integer input of which all are known.
    pub(super) fn integers(&self, position: usize) -> Option<Vec<i64>> {
        self.elements(position)?.iter().map(Element::known).collect()
    }

    /// The one known element of a small integer input.
    pub(super) fn integer(&self, position: usize) -> Option<i64> {
        match self.integers(position)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// How many elements an input of one dimension has.
    pub(super) fn length(&self, position: usize) -> Option<usize> {
        match self.dims(position)? {
            [only] => only.known(),
            _ => None,
        }
    }

    /// The shape that a small integer input spells out; as many unknown dimensions as it has elements where those are
    /// unknown, nothing where their number is.
    pub(super) fn spelled_shape(&self, position: usize) -> Shape {
        match self.elements(position) {
            Some(elements) => Some(elements.iter().map(Element::dim).collect()),
            None => self.length(position).filter(|&n| n <= super::MOST_DIMS).map(|n| vec![Dim::Unknown; n]),
        }
    }

    /// The element type that these inputs share.
    ///
    /// # Errors
    /// When two differ.
    pub(super) fn same_dtype(&self, positions: impl IntoIterator<Item = usize>) -> Result<Option<DType>, Problem> {
        let mut shared = None;
        for position in positions {
            match (shared, self.dtype(position)) {
                (Some(first), Some(dtype)) if first != dtype => {
                    return Err(problem(format!("the type of input {position}"), first, dtype));
                }
                (_, dtype) => shared = shared.or(dtype),
            }
        }
        Ok(shared)
    }

    /// The number of dimensions of an input must be this, where it is known.
    pub(super) fn expect_rank(&self, position: usize, rank: usize) -> Result<(), Problem> {
        match self.dims(position) {
            Some(dims) if dims.len() != rank => {
                Err(problem(format!("the number of dimensions of input {position}"), rank, dims.len()))
            }
            _ => Ok(()),
        }
    }
}
