//! A message as pieces whose sequence is its encoding: weights stay in the buffers that they are in, so that writing a file
//! does not need the memory of another one.

use std::mem::take;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::wire::{GraphProto, ModelProto, TensorProto};

/// Raw data of fewer bytes is copied: that is as quick as keeping track of it.
const LEAST_SHARED_BYTES: usize = 4096;

/// The pieces, byte for byte what `encode_to_vec` gives.
pub(super) fn pieces(mut proto: ModelProto) -> Vec<Bytes> {
    let mut pieces = Pieces::default();
    let graph = proto.graph.take();
    // What stands behind the graph in the order of the fields' numbers, in which prost writes them.
    let behind = ModelProto {
        opset_import: take(&mut proto.opset_import),
        metadata_props: take(&mut proto.metadata_props),
        training_info: take(&mut proto.training_info),
        functions: take(&mut proto.functions),
        configuration: take(&mut proto.configuration),
        ..ModelProto::default()
    };
    pieces.whole(&proto);
    if let Some(graph) = graph {
        pieces.field(7, graph.encoded_len());
        pieces.graph(graph);
    }
    pieces.whole(&behind);
    pieces.finish()
}

#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    open: Vec<u8>,
}

impl Pieces {
    fn field(&mut self, number: u32, n_bytes: usize) {
        encode_key(number, WireType::LengthDelimited, &mut self.open);
        // A length of more than 64 bits is no length of anything in memory.
        encode_varint(u64::try_from(n_bytes).unwrap_or(u64::MAX), &mut self.open);
    }

    fn whole(&mut self, message: &impl Message) {
        message.encode_raw(&mut self.open);
    }

    fn shared(&mut self, bytes: Bytes) {
        self.done.push(take(&mut self.open).into());
        self.done.push(bytes);
    }

    fn graph(&mut self, mut graph: GraphProto) {
        let initializers = take(&mut graph.initializer);
        let behind = GraphProto {
            doc_string: take(&mut graph.doc_string),
            input: take(&mut graph.input),
            output: take(&mut graph.output),
            value_info: take(&mut graph.value_info),
            quantization_annotation: take(&mut graph.quantization_annotation),
            sparse_initializer: take(&mut graph.sparse_initializer),
            metadata_props: take(&mut graph.metadata_props),
            ..GraphProto::default()
        };
        self.whole(&graph);
        for tensor in initializers {
            self.field(5, tensor.encoded_len());
            self.tensor(tensor);
        }
        self.whole(&behind);
    }

    fn tensor(&mut self, mut tensor: TensorProto) {
        let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= LEAST_SHARED_BYTES) else {
            return self.whole(&tensor);
        };
        let behind = TensorProto {
            double_data: take(&mut tensor.double_data),
            uint64_data: take(&mut tensor.uint64_data),
            doc_string: take(&mut tensor.doc_string),
            external_data: take(&mut tensor.external_data),
            data_location: take(&mut tensor.data_location),
            metadata_props: take(&mut tensor.metadata_props),
            ..TensorProto::default()
        };
        self.whole(&tensor);
        self.field(9, raw.len());
        self.shared(raw);
        self.whole(&behind);
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.done.push(self.open.into());
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{NodeProto, OperatorSetIdProto, StringStringEntryProto, ValueInfoProto};
    use super::*;

    fn pair(key: &str) -> StringStringEntryProto {
        StringStringEntryProto { key: key.to_string(), value: "value".to_string() }
    }

    /// Every field that stands beside one that is taken out has something in it.
    fn model(n_raw: usize) -> ModelProto {
        let tensor = TensorProto {
            dims: vec![2, 3],
            data_type: 1,
            name: "weight".to_string(),
            raw_data: Some(vec![7; n_raw].into()),
            double_data: vec![1.5],
            doc_string: "doc".to_string(),
            external_data: vec![pair("location")],
            data_location: 1,
            metadata_props: vec![pair("tensor")],
            ..TensorProto::default()
        };
        let value = ValueInfoProto { name: "x".to_string(), ..ValueInfoProto::default() };
        let graph = GraphProto {
            node: vec![NodeProto { op_type: "Relu".to_string(), ..NodeProto::default() }],
            name: "graph".to_string(),
            initializer: vec![tensor.clone(), TensorProto::default(), tensor],
            doc_string: "doc".to_string(),
            input: vec![value.clone()],
            output: vec![value.clone()],
            value_info: vec![value],
            quantization_annotation: vec![Bytes::from_static(&[8, 1])],
            metadata_props: vec![pair("graph")],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: Some(10),
            producer_name: "producer".to_string(),
            doc_string: "doc".to_string(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 21 }],
            metadata_props: vec![pair("model")],
            training_info: vec![Bytes::from_static(&[8, 1])],
            configuration: vec![Bytes::from_static(&[8, 2])],
            ..ModelProto::default()
        }
    }

    #[test]
    fn the_pieces_are_the_encoding() {
        for (n_raw, n_pieces) in [(0, 1), (24, 1), (LEAST_SHARED_BYTES, 5), (100_000, 5)] {
            let proto = model(n_raw);
            let pieces = pieces(proto.clone());
            assert_eq!(pieces.len(), n_pieces);
            assert!(pieces.concat() == proto.encode_to_vec(), "{n_raw} bytes of raw data");
        }
        assert_eq!(pieces(ModelProto::default()).concat(), ModelProto::default().encode_to_vec());
    }
}
