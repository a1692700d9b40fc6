//! `ValueInfoProto` and `TypeProto` to what the graph says of a value, and back.

use super::error::OnnxError;
use super::wire::{
    Dimension, DimensionValue, ItemTypeProto, MapTypeProto, OpaqueTypeProto, TensorShapeProto, TensorTypeProto,
    TypeProto, TypeValue, ValueInfoProto, entries, pairs,
};
use crate::graph::shape::MOST_DIMS;
use crate::graph::tensor::DType;
use crate::graph::{Denotation, Dim, Name, TensorType, ValueInfo, ValueType};

/// What a message says of the value that is called `name` in the graph.
///
/// # Errors
/// When an element type is unknown or a dimension too large.
pub(super) fn decode_value(proto: ValueInfoProto, name: Name) -> Result<ValueInfo, OnnxError> {
    let type_proto = proto.r#type.unwrap_or_default();
    let mut denotation = Denotation { value: type_proto.denotation.clone(), dims: dim_denotations(&type_proto) };
    let value_type =
        decode_type(type_proto).map_err(|problem| OnnxError::Value { value: name.to_string(), problem })?;
    if value_type.is_none() {
        denotation.dims.clear();
    }
    Ok(ValueInfo { name, value_type, doc: proto.doc_string, metadata: pairs(proto.metadata_props), denotation })
}

/// The message that says this of a value.
pub(super) fn encode_value(info: &ValueInfo) -> ValueInfoProto {
    let mut type_proto = info.value_type.as_ref().map(encode_type);
    if info.denotation != Denotation::default() {
        let type_proto = type_proto.get_or_insert_default();
        type_proto.denotation = info.denotation.value.clone();
        if let Some(shape) = shape_mut(type_proto) {
            for (dim, denotation) in shape.dim.iter_mut().zip(&info.denotation.dims) {
                dim.denotation = denotation.clone();
            }
        }
    }
    ValueInfoProto {
        name: info.name.to_string(),
        r#type: type_proto,
        doc_string: info.doc.clone(),
        metadata_props: entries(info.metadata.iter().map(|(key, value)| (key, value))),
    }
}

/// The type in a message; none where it says nothing, or leaves the element type of a tensor undefined.
///
/// # Errors
/// Describes the element type that is unknown or the dimension that is too large.
pub(super) fn decode_type(proto: TypeProto) -> Result<Option<ValueType>, String> {
    let item = |item: Option<Box<TypeProto>>| -> Result<Option<Box<ValueType>>, String> {
        Ok(decode_type(item.map(|item| *item).unwrap_or_default())?.map(Box::new))
    };
    Ok(match proto.value {
        None => None,
        Some(TypeValue::Tensor(tensor)) => decode_tensor_type(tensor)?.map(ValueType::Tensor),
        Some(TypeValue::SparseTensor(tensor)) => decode_tensor_type(tensor)?.map(ValueType::SparseTensor),
        Some(TypeValue::Sequence(sequence)) => item(sequence.elem_type)?.map(ValueType::Sequence),
        Some(TypeValue::Optional(optional)) => item(optional.elem_type)?.map(ValueType::Optional),
        Some(TypeValue::Map(map)) => match (dtype(map.key_type)?, item(map.value_type)?) {
            (Some(key), Some(value)) => Some(ValueType::Map { key, value }),
            _ => None,
        },
        Some(TypeValue::Opaque(opaque)) => Some(ValueType::Opaque { domain: opaque.domain, name: opaque.name }),
    })
}

/// The message of a type.
pub(super) fn encode_type(value_type: &ValueType) -> TypeProto {
    let item = |item: &ValueType| Some(Box::new(encode_type(item)));
    let value = match value_type {
        ValueType::Tensor(tensor) => TypeValue::Tensor(encode_tensor_type(tensor)),
        ValueType::SparseTensor(tensor) => TypeValue::SparseTensor(encode_tensor_type(tensor)),
        ValueType::Sequence(inner) => TypeValue::Sequence(Box::new(ItemTypeProto { elem_type: item(inner) })),
        ValueType::Optional(inner) => TypeValue::Optional(Box::new(ItemTypeProto { elem_type: item(inner) })),
        ValueType::Map { key, value } => {
            TypeValue::Map(Box::new(MapTypeProto { key_type: key.onnx(), value_type: item(value) }))
        }
        ValueType::Opaque { domain, name } => {
            TypeValue::Opaque(OpaqueTypeProto { domain: domain.clone(), name: name.clone() })
        }
    };
    TypeProto { value: Some(value), denotation: String::new() }
}

fn dtype(number: i32) -> Result<Option<DType>, String> {
    if number == 0 {
        return Ok(None);
    }
    DType::from_onnx(number).map(Some).ok_or_else(|| format!("element type {number} is unknown"))
}

fn decode_tensor_type(proto: TensorTypeProto) -> Result<Option<TensorType>, String> {
    let Some(dtype) = dtype(proto.elem_type)? else {
        return Ok(None);
    };
    let n_dims = proto.shape.as_ref().map_or(0, |shape| shape.dim.len());
    if n_dims > MOST_DIMS {
        return Err(format!("it has {n_dims} dimensions, and at most {MOST_DIMS} are read"));
    }
    let shape = proto.shape.map(|shape| shape.dim.into_iter().map(decode_dim).collect()).transpose()?;
    Ok(Some(TensorType { dtype, shape }))
}

/// Exporters write -1, or an empty symbol, for a size that they do not know.
fn decode_dim(proto: Dimension) -> Result<Dim, String> {
    Ok(match proto.value {
        None => Dim::Unknown,
        Some(DimensionValue::Size(size)) if size < 0 => Dim::Unknown,
        Some(DimensionValue::Size(size)) => {
            Dim::Known(usize::try_from(size).map_err(|_| format!("dimension {size} is too large"))?)
        }
        Some(DimensionValue::Symbol(symbol)) if symbol.is_empty() => Dim::Unknown,
        Some(DimensionValue::Symbol(symbol)) => Dim::Symbol(symbol.into()),
    })
}

fn encode_tensor_type(tensor: &TensorType) -> TensorTypeProto {
    let shape = tensor.shape.as_ref().map(|dims| TensorShapeProto { dim: dims.iter().map(encode_dim).collect() });
    TensorTypeProto { elem_type: tensor.dtype.onnx(), shape }
}

fn encode_dim(dim: &Dim) -> Dimension {
    let value = match dim {
        // A size of 2^63 or more is no size a file can state.
        Dim::Known(size) => i64::try_from(*size).ok().map(DimensionValue::Size),
        Dim::Symbol(symbol) => Some(DimensionValue::Symbol(symbol.to_string())),
        Dim::Unknown => None,
    };
    Dimension { value, denotation: String::new() }
}

fn dim_denotations(proto: &TypeProto) -> Vec<String> {
    let shape = match &proto.value {
        Some(TypeValue::Tensor(tensor) | TypeValue::SparseTensor(tensor)) => tensor.shape.as_ref(),
        _ => None,
    };
    let denotations: Vec<String> =
        shape.iter().flat_map(|shape| shape.dim.iter().map(|dim| dim.denotation.clone())).collect();
    if denotations.iter().all(String::is_empty) { Vec::new() } else { denotations }
}

fn shape_mut(proto: &mut TypeProto) -> Option<&mut TensorShapeProto> {
    match &mut proto.value {
        Some(TypeValue::Tensor(tensor) | TypeValue::SparseTensor(tensor)) => tensor.shape.as_mut(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_type_comes_back() {
        let tensor = TensorType::new(DType::F16, [Dim::Known(2), Dim::from("batch"), Dim::Unknown]);
        let strings = ValueType::from(TensorType::unranked(DType::String));
        let kinds = [
            ValueType::from(tensor.clone()),
            ValueType::SparseTensor(tensor.clone()),
            ValueType::Sequence(Box::new(strings.clone())),
            ValueType::Optional(Box::new(ValueType::Sequence(Box::new(tensor.into())))),
            ValueType::Map { key: DType::I64, value: Box::new(strings) },
            ValueType::Opaque { domain: "d".into(), name: "n".into() },
        ];
        for kind in kinds {
            let mut info = ValueInfo::new("x", kind);
            info.doc = "what x is".into();
            info.metadata = vec![("k".into(), "v".into())];
            info.denotation.value = "IMAGE".into();
            assert_eq!(decode_value(encode_value(&info), "x".into()).expect("known types"), info);
        }
    }

    #[test]
    fn denotations_of_dimensions_come_back() {
        let mut info = ValueInfo::new("x", TensorType::new(DType::F32, [1usize, 3]));
        info.denotation.dims = vec!["DATA_BATCH".into(), String::new()];
        assert_eq!(decode_value(encode_value(&info), "x".into()).expect("known types"), info);
    }

    #[test]
    fn sizes_that_are_none_are_unknown_and_types_that_are_none_refused() {
        let dim = |value| Dimension { value: Some(value), denotation: String::new() };
        assert_eq!(decode_dim(dim(DimensionValue::Size(-1))), Ok(Dim::Unknown));
        assert_eq!(decode_dim(dim(DimensionValue::Symbol(String::new()))), Ok(Dim::Unknown));
        assert_eq!(decode_dim(dim(DimensionValue::Size(0))), Ok(Dim::Known(0)));
        let elements = |number| {
            let tensor = TensorTypeProto { elem_type: number, shape: None };
            let proto = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: String::new() };
            let proto = ValueInfoProto { r#type: Some(proto), ..ValueInfoProto::default() };
            decode_value(proto, "x".into()).map(|info| info.value_type).map_err(|error| error.to_string())
        };
        assert_eq!(elements(0), Ok(None));
        assert_eq!(elements(29), Err("value `x`: element type 29 is unknown".to_string()));
    }
}
