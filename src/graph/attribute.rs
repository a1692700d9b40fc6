//! Attributes: the named constants of a node, untyped as a file holds them, and the way from and to typed fields.

use bytes::Bytes;

use super::tensor::{DType, Tensor};
use super::{Graph, ValueType};

/// An attribute's value, as `AttributeProto` has it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each variant is the `AttributeProto.AttributeType` of that name
pub enum Attribute {
    Float(f32),
    Int(i64),
    String(Bytes),
    Tensor(Tensor),
    Graph(Graph),
    SparseTensor(SparseTensor),
    Type(ValueType),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Bytes>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    SparseTensors(Vec<SparseTensor>),
    Types(Vec<ValueType>),
}

impl Attribute {
    /// The graphs that it holds.
    pub fn graphs(&self) -> Vec<&Graph> {
        match self {
            Attribute::Graph(graph) => vec![graph],
            Attribute::Graphs(graphs) => graphs.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The graphs that it holds, to change them.
    pub fn graphs_mut(&mut self) -> Vec<&mut Graph> {
        match self {
            Attribute::Graph(graph) => vec![graph],
            Attribute::Graphs(graphs) => graphs.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}

/// A tensor of which only the elements other than zero are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseTensor {
    /// The kept elements, `[n_kept]`.
    pub values: Tensor,
    /// Where they are, `i64`: `[n_kept]` linear, or `[n_kept, rank]` by coordinate.
    pub indices: Tensor,
    /// The shape of the whole.
    pub shape: Vec<usize>,
}

/// What is wrong with a node's attributes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The operator needs it and the node lacks it.
    #[error("attribute `{0}` is missing")]
    Missing(&'static str),
    /// It is there with another type, or with a value outside the operator's definition.
    #[error("attribute `{name}` should be {expected}, got {got}")]
    Value {
        /// the attribute
        name: &'static str,
        /// what the operator takes
        expected: String,
        /// what was found, shortened
        got: String,
    },
}

/// A type that a typed operator field can have.
pub trait AttributeValue: Sized {
    /// What is expected, for error messages: `an integer`.
    fn expected() -> String;
    /// The value; none where the attribute is of another type or outside the definition.
    fn read(attribute: &Attribute) -> Option<Self>;
    /// The attribute; none where the value stands for an absent attribute.
    fn write(&self) -> Option<Attribute>;
    /// The graph inside, for a field that holds one.
    fn graph(&self) -> Option<&Graph> {
        None
    }
    /// The graph inside, to change it.
    fn graph_mut(&mut self) -> Option<&mut Graph> {
        None
    }
}

macro_rules! attribute_values {
    ($($rust:ty, $expected:literal, $pattern:pat => $read:expr, $this:ident => $write:expr;)*) => {$(
        impl AttributeValue for $rust {
            fn expected() -> String {
                $expected.to_string()
            }
            fn read(attribute: &Attribute) -> Option<Self> {
                match attribute {
                    $pattern => $read,
                    _ => None,
                }
            }
            fn write(&self) -> Option<Attribute> {
                let $this = self;
                $write
            }
        }
    )*};
}

// An empty list stands for an absent attribute: no operator gives an empty one a meaning of its own.
attribute_values! {
    i64, "an integer", Attribute::Int(value) => Some(*value), this => Some(Attribute::Int(*this));
    f32, "a float", Attribute::Float(value) => Some(*value), this => Some(Attribute::Float(*this));
    bool, "0 or 1", Attribute::Int(value) => Some(*value != 0), this => Some(Attribute::Int((*this).into()));
    DType, "the number of an element type",
        Attribute::Int(value) => i32::try_from(*value).ok().and_then(DType::from_onnx),
        this => Some(Attribute::Int(this.onnx().into()));
    String, "a string in UTF-8",
        Attribute::String(value) => std::str::from_utf8(value).ok().map(str::to_string),
        this => Some(Attribute::String(this.clone().into()));
    Vec<i64>, "a list of integers", Attribute::Ints(values) => Some(values.clone()),
        this => (!this.is_empty()).then(|| Attribute::Ints(this.clone()));
    Vec<f32>, "a list of floats", Attribute::Floats(values) => Some(values.clone()),
        this => (!this.is_empty()).then(|| Attribute::Floats(this.clone()));
    Vec<String>, "a list of strings in UTF-8",
        Attribute::Strings(values) => values.iter().map(|v| std::str::from_utf8(v).ok().map(str::to_string)).collect(),
        this => (!this.is_empty()).then(|| Attribute::Strings(this.iter().map(|v| v.clone().into()).collect()));
    Tensor, "a tensor", Attribute::Tensor(value) => Some(value.clone()), this => Some(Attribute::Tensor(this.clone()));
}

impl AttributeValue for Graph {
    fn expected() -> String {
        "a graph".to_string()
    }

    fn read(attribute: &Attribute) -> Option<Self> {
        let Attribute::Graph(graph) = attribute else { return None };
        Some(graph.clone())
    }

    fn write(&self) -> Option<Attribute> {
        Some(Attribute::Graph(self.clone()))
    }

    fn graph(&self) -> Option<&Graph> {
        Some(self)
    }

    fn graph_mut(&mut self) -> Option<&mut Graph> {
        Some(self)
    }
}

impl<T: AttributeValue> AttributeValue for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn read(attribute: &Attribute) -> Option<Self> {
        T::read(attribute).map(Some)
    }

    fn write(&self) -> Option<Attribute> {
        self.as_ref().and_then(T::write)
    }
}

/// An enum whose variants are the strings that an attribute may hold.
macro_rules! attribute_enum {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] $variant),*
        }

        impl $name {
            /// The string in the file.
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl $crate::graph::attribute::AttributeValue for $name {
            fn expected() -> String {
                ["one of", $(concat!("`", $text, "`")),*].join(" ")
            }
            fn read(attribute: &$crate::graph::attribute::Attribute) -> Option<Self> {
                let text = String::read(attribute)?;
                match text.as_str() {
                    $($text => Some($name::$variant),)*
                    _ => None,
                }
            }
            fn write(&self) -> Option<$crate::graph::attribute::Attribute> {
                self.text().to_string().write()
            }
        }
    )*};
}
pub(crate) use attribute_enum;

/// The attributes of a node on their way into typed fields: each is taken once, what is left over is unknown.
#[derive(Clone, Debug)]
pub struct Unread<'a>(Vec<&'a (String, Attribute)>);

impl<'a> Unread<'a> {
    /// All of them.
    pub fn new(attributes: &'a [(String, Attribute)]) -> Unread<'a> {
        Unread(attributes.iter().collect())
    }

    /// Takes one out.
    ///
    /// # Errors
    /// When it is of another type than the field.
    pub fn take<T: AttributeValue>(&mut self, name: &'static str) -> Result<Option<T>, AttributeError> {
        let Some(position) = self.0.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, attribute) = self.0.remove(position);
        T::read(attribute).map(Some).ok_or_else(|| AttributeError::Value {
            name,
            expected: T::expected(),
            got: shortened(attribute),
        })
    }

    /// Whether every attribute has been taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn shortened(attribute: &Attribute) -> String {
    const MOST: usize = 60;
    let text = match attribute {
        Attribute::Graph(_) => "a graph".to_string(),
        Attribute::Graphs(_) => "graphs".to_string(),
        Attribute::String(value) => format!("`{}`", String::from_utf8_lossy(value)),
        other => format!("{other:?}"),
    };
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}
