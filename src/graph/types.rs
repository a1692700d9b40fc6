//! Names of values, and what is known of a value before it is computed.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::tensor::{DType, Tensor};

/// A value's name, never empty in a checked graph. A clone is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Name {
        Name(text.into())
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Name {
        name.clone()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        String::deserialize(deserializer).map(Name::from)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this size.
    Known(usize),
    /// The same size wherever the symbol stands: `batch`.
    Symbol(Name),
    /// Any size.
    Unknown,
}

impl Dim {
    /// The size where it is known.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(size) => Some(*size),
            Dim::Symbol(_) | Dim::Unknown => None,
        }
    }
}

impl From<usize> for Dim {
    fn from(size: usize) -> Dim {
        Dim::Known(size)
    }
}

impl From<&str> for Dim {
    fn from(symbol: &str) -> Dim {
        Dim::Symbol(symbol.into())
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(size) => size.fmt(f),
            Dim::Symbol(symbol) => symbol.fmt(f),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// What is known of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The dimensions; none where even their number is unknown.
    pub shape: Option<Vec<Dim>>,
}

impl TensorType {
    /// A tensor with these dimensions.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> TensorType {
        TensorType { dtype, shape: Some(shape.into_iter().map(Into::into).collect()) }
    }

    /// A tensor of which not even the number of dimensions is known.
    pub fn unranked(dtype: DType) -> TensorType {
        TensorType { dtype, shape: None }
    }

    /// The type of this tensor.
    pub fn of(tensor: &Tensor) -> TensorType {
        TensorType::new(tensor.dtype(), tensor.shape().iter().copied())
    }

    /// The shape where every dimension is known.
    pub fn known_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }

    /// The number of dimensions where it is known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

impl fmt::Display for TensorType {
    /// `f32[batch, 3, 224, ?]`; `f32[..]` where the number of dimensions is unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        match &self.shape {
            None => f.write_str("..")?,
            Some(dims) => {
                for (position, dim) in dims.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}{dim}")?;
                }
            }
        }
        f.write_str("]")
    }
}

/// What kind of thing a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A dense tensor.
    Tensor(TensorType),
    /// A tensor of which only some elements are kept.
    SparseTensor(TensorType),
    /// Any number of values of one type.
    Sequence(Box<ValueType>),
    /// A value or none.
    Optional(Box<ValueType>),
    /// Values by key.
    Map {
        /// type of the keys
        key: DType,
        /// type of the values
        value: Box<ValueType>,
    },
    /// A type of somebody's own.
    Opaque {
        /// whose
        domain: String,
        /// which
        name: String,
    },
}

impl ValueType {
    /// The tensor type of a dense tensor.
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            ValueType::Tensor(tensor) => Some(tensor),
            ValueType::SparseTensor(_)
            | ValueType::Sequence(_)
            | ValueType::Optional(_)
            | ValueType::Map { .. }
            | ValueType::Opaque { .. } => None,
        }
    }
}

impl From<TensorType> for ValueType {
    fn from(tensor: TensorType) -> ValueType {
        ValueType::Tensor(tensor)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Tensor(tensor) => tensor.fmt(f),
            ValueType::SparseTensor(tensor) => write!(f, "sparse {tensor}"),
            ValueType::Sequence(item) => write!(f, "sequence({item})"),
            ValueType::Optional(item) => write!(f, "optional({item})"),
            ValueType::Map { key, value } => write!(f, "map({key} -> {value})"),
            ValueType::Opaque { domain, name } => write!(f, "opaque({domain}.{name})"),
        }
    }
}

/// A value's name and what a file states of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// The value.
    pub name: Name,
    /// Its type; none where the file does not say.
    pub value_type: Option<ValueType>,
    /// `doc_string`
    pub doc: String,
    /// `metadata_props`
    pub metadata: Vec<(String, String)>,
    /// What the file says the value and its dimensions stand for.
    pub denotation: Denotation,
}

/// What a value stands for (`IMAGE`) and what its dimensions do (`DATA_CHANNEL`), where a file says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Denotation {
    /// `TypeProto.denotation`
    pub value: String,
    /// `TensorShapeProto.Dimension.denotation` of each dimension; empty where none has one.
    pub dims: Vec<String>,
}

impl ValueInfo {
    /// A value of this type.
    pub fn new(name: impl Into<Name>, value_type: impl Into<ValueType>) -> ValueInfo {
        ValueInfo { value_type: Some(value_type.into()), ..ValueInfo::untyped(name) }
    }

    /// A value of which nothing is stated.
    pub fn untyped(name: impl Into<Name>) -> ValueInfo {
        ValueInfo {
            name: name.into(),
            value_type: None,
            doc: String::new(),
            metadata: Vec::new(),
            denotation: Denotation::default(),
        }
    }

    /// The tensor type where it is stated.
    pub fn tensor_type(&self) -> Option<&TensorType> {
        self.value_type.as_ref().and_then(ValueType::tensor)
    }
}
