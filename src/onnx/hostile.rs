//! Files that nobody's exporter wrote: what is said of each.

use bytes::Bytes;
use prost::Message;

use super::tests::{
    body, branches, condition, graph, import, int, load, model, network, node, reference, refusal, strings, value, with,
};
use super::wire::{
    AttributeProto, EXTERNAL, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, attribute_type, entry,
};
use super::{OnnxError, read, read_bytes, tensor, to_bytes_at};
use crate::graph::tensor::{DType, Tensor};
use crate::store;

fn check(proto: &ModelProto, expected: &str) {
    assert_eq!(refusal(proto), expected);
}

/// `x -> y` by one node, with this initializer.
fn holding(tensor: TensorProto) -> ModelProto {
    let mut proto = network(vec![node("Neg", &["x"], &["y"])], vec![]);
    proto.graph.get_or_insert_default().initializer.push(tensor);
    proto
}

fn weight(dtype: DType, dims: &[i64]) -> TensorProto {
    TensorProto { name: "w".into(), data_type: dtype.onnx(), dims: dims.to_vec(), ..TensorProto::default() }
}

fn raw(dtype: DType, dims: &[i64], n_bytes: usize) -> TensorProto {
    TensorProto { raw_data: Some(vec![0; n_bytes].into()), ..weight(dtype, dims) }
}

#[test]
fn other_files_are_told_by_name() {
    let check = |bytes: &[u8], message: &str, hint: &str| {
        let error = read_bytes(Bytes::copy_from_slice(bytes), None).expect_err("no model");
        assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)));
    };
    check(b"", "this is an empty file, no ONNX model", "fetch or export it again");
    for page in [&b"<!DOCTYPE html><html>"[..], b"\xef\xbb\xbf\n\n  <!DOCTYPE html>"] {
        check(page, "this is a web page or XML, no ONNX model", "fetch the file itself, not the page about it");
    }
    check(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "this is a Git LFS pointer, not the file that it stands for, no ONNX model",
        "run `git lfs pull`",
    );
    check(b"\x1f\x8b\x08\0\0\0\0\0", "this is a gzip archive, no ONNX model", "unpack it");
    check(
        b"PK\x03\x04\x14\0\0\0",
        "this is a zip archive, no ONNX model",
        "unpack it; a PyTorch checkpoint must be exported to ONNX",
    );
    check(
        b"\x40\0\0\0\0\0\0\0{\"weight\":{\"dtype\":\"F32\"",
        "this is a safetensors file, which holds weights alone, no ONNX model",
        "export an ONNX file from the framework that wrote it",
    );
    let image = "give the model first; images belong to --data";
    check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "this is a PNG image, no ONNX model", image);
}

#[test]
fn a_folder_is_no_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let message = read(folder.path()).expect_err("no file").to_string();
    assert!(message.starts_with(&format!("cannot read {}: ", folder.path().display())), "{message}");
}

#[test]
fn sizes_that_overflow_are_refused() {
    let most = i64::MAX;
    check(&holding(raw(DType::F32, &[-1], 4)), "tensor `w`: dimension -1 is no size");
    check(&holding(raw(DType::F32, &[i64::MIN, 2], 4)), "tensor `w`: dimension -9223372036854775808 is no size");
    let too_large = |dims: &str, dtype: &str| {
        format!("tensor `w`: {dtype} tensor of shape [{dims}] does not fit this machine's memory")
    };
    check(&holding(raw(DType::U8, &[most, most], 4)), &too_large("9223372036854775807, 9223372036854775807", "u8"));
    // so many elements there are, but not so many bytes
    check(&holding(raw(DType::F64, &[most, 2], 4)), &too_large("9223372036854775807, 2", "f64"));
    check(&holding(raw(DType::I4, &[most, 2], 4)), &too_large("9223372036854775807, 2", "i4"));
    let none = "tensor `w`: f32 tensor of shape [9223372036854775807, 0, 3] takes 0 bytes, got 4";
    check(&holding(raw(DType::F32, &[most, 0, 3], 4)), none);
    check(
        &holding(TensorProto { string_data: vec![Bytes::new()], ..weight(DType::String, &[most, most]) }),
        &too_large("9223372036854775807, 9223372036854775807", "string"),
    );
    check(&holding(weight(DType::F32, &[1; 65])), "tensor `w`: it has 65 dimensions, and at most 64 are read");
}

#[test]
fn data_of_another_length_is_refused() {
    let length = |expected: &str| format!("tensor `w`: {expected}");
    check(&holding(raw(DType::F32, &[3], 11)), &length("f32 tensor of shape [3] takes 12 bytes, got 11"));
    check(&holding(raw(DType::F32, &[3], 13)), &length("f32 tensor of shape [3] takes 12 bytes, got 13"));
    check(&holding(raw(DType::I4, &[3], 1)), &length("i4 tensor of shape [3] takes 2 bytes, got 1"));
    check(&holding(raw(DType::U2, &[5], 1)), &length("u2 tensor of shape [5] takes 2 bytes, got 1"));
    check(&holding(raw(DType::Complex128, &[1], 8)), &length("complex128 tensor of shape [1] takes 16 bytes, got 8"));
    let floats = TensorProto { float_data: vec![0.0; 3], ..weight(DType::F32, &[2]) };
    check(&holding(floats.clone()), &length("f32 tensor of shape [2] takes 2 elements, got 3"));
    let both = TensorProto { raw_data: Some(Bytes::from_static(&[0; 8])), ..floats };
    check(&holding(both), &length("it has data in raw_data and in float_data"));
    let packed = TensorProto { int32_data: vec![1, 2], ..weight(DType::U4, &[5]) };
    check(&holding(packed), &length("u4 tensor of shape [5] takes 3 bytes, got 2"));
    let texts = TensorProto { string_data: vec![Bytes::new(); 2], ..weight(DType::String, &[3]) };
    check(&holding(texts), &length("string tensor of shape [3] takes 3 elements, got 2"));
    check(&holding(TensorProto { data_type: 29, ..raw(DType::F32, &[1], 4) }), &length("element type 29 is unknown"));
    check(&holding(TensorProto { data_type: -1, ..raw(DType::F32, &[1], 4) }), &length("element type -1 is unknown"));
}

#[test]
fn sparse_places_outside_are_refused() {
    let check = |indices: Tensor, dims: &[i64], expected: &str| {
        let mut proto = network(vec![node("Neg", &["x"], &["y"])], vec![]);
        let values = Some(tensor::encode("s", &Tensor::vector(vec![1f32, 2.0])));
        let indices = Some(tensor::encode("", &indices));
        let sparse = SparseTensorProto { values, indices, dims: dims.to_vec() };
        proto.graph.get_or_insert_default().sparse_initializer.push(sparse);
        assert_eq!(refusal(&proto), format!("tensor `s`: {expected}"));
    };
    check(Tensor::vector(vec![0i64, 6]), &[2, 3], "index 6 is outside 0 to 6");
    check(Tensor::vector(vec![-1i64, 0]), &[2, 3], "index -1 is outside 0 to 6");
    check(Tensor::vector(vec![0i64, 1]), &[i64::MAX, i64::MAX], "its dimensions are too large");
    check(Tensor::vector(vec![0i64, 1]), &[-2], "dimension -2 is no size");
    let three = "2 kept values of 2 dimensions cannot have indices of shape [3]";
    check(Tensor::vector(vec![0i64, 1, 2]), &[2, 3], three);
    check(Tensor::vector(vec![0i32, 1]), &[2, 3], "expected a tensor of i64, got i32");
}

#[test]
fn external_data_stays_in_its_folder() {
    let outer = tempfile::tempdir().expect("a temporary folder");
    let folder = outer.path().join("model");
    let path = folder.join("m.onnx");
    store::write_atomic(&outer.path().join("secret"), &[9; 64]).expect("a file");
    store::write_atomic(&folder.join("w.data"), &[7; 64]).expect("a file");
    let check = |entries: &[(&str, &str)], expected: &str| {
        let external_data = entries.iter().map(|&(key, value)| entry(key, value)).collect();
        let tensor = TensorProto { data_location: EXTERNAL, external_data, ..weight(DType::F32, &[2]) };
        store::write_atomic(&path, &holding(tensor).encode_to_vec()).expect("a file");
        let error = read(&path).expect_err("refused");
        assert_eq!(error.to_string(), format!("{}: tensor `w`: external data: {expected}", path.display()));
        let hint = "keep the data files beside the model, under the names that the model gives them";
        assert_eq!(error.hint(), Some(hint));
    };
    let outside = |location: &str| format!("`{location}` is no path inside the model's folder");
    let absolute = outer.path().join("secret").display().to_string();
    for location in [absolute.as_str(), "../secret", "./../secret", "a/../../secret", "/etc/passwd", "..", ""] {
        check(&[("location", location)], &outside(location));
    }
    let beyond = |from: &str| format!("8 bytes from {from} on leave `w.data`, which has 64");
    check(&[("location", "w.data"), ("offset", "57")], &beyond("57"));
    check(&[("location", "w.data"), ("offset", "18446744073709551615")], &beyond("18446744073709551615"));
    for offset in ["-1", "0x10", "18446744073709551616", "1e3", ""] {
        let problem = format!("offset `{offset}` is no number of bytes");
        check(&[("location", "w.data"), ("offset", offset)], &problem);
    }
    let stated = |length: &str| format!("a f32 tensor of shape [2] takes 8 bytes, `length` says {length}");
    for length in ["7", "9", "0", "18446744073709551615"] {
        check(&[("location", "w.data"), ("length", length)], &stated(length));
    }
    check(&[("location", ".")], "`.` is no file");
}

#[cfg(unix)]
#[test]
fn external_data_is_a_file_in_its_folder_whatever_links_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("m.onnx");
    let check = |location: &str, expected: &str| {
        let external_data = vec![entry("location", location)];
        let tensor = TensorProto { data_location: EXTERNAL, external_data, ..weight(DType::F32, &[2]) };
        store::write_atomic(&path, &holding(tensor).encode_to_vec()).expect("a file");
        let message = read(&path).expect_err("refused").to_string();
        assert!(message.ends_with(expected), "{message}");
    };
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, folder.path().join(name)).expect("a link");
    };
    link("/etc/passwd", "passwords");
    link("/dev/zero", "zeros");
    link("..", "up");
    link("itself", "itself");
    check("passwords", "external data: `passwords` is a link that leaves the model's folder");
    check("zeros", "external data: `zeros` is a link that leaves the model's folder");
    check("up/anything", "No such file or directory (os error 2)");
    check("up", "external data: `up` is a link that leaves the model's folder");
    check("itself", "Too many levels of symbolic links (os error 40)");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("a socket");
    check("socket", "external data: `socket` is no file");
}

#[test]
fn nodes_that_wait_for_themselves_are_refused() {
    let cycle = |label: &str| format!("{label} depends on its own output: the graph has a cycle");
    let itself = vec![node("Add", &["x", "y"], &["y"])];
    check(&network(itself, vec![]), &cycle("Add `y`"));
    let two = vec![node("Add", &["x", "b"], &["a"]), node("Neg", &["a"], &["b"]), node("Neg", &["b"], &["y"])];
    check(&network(two, vec![]), &cycle("Add `a`"));
    let branch = || graph(&[], vec![node("Neg", &["y"], &["n"])], &["n"]);
    check(&network(vec![condition(), branches(branch(), branch())], vec![]), &cycle("If `y`"));
    let inside = || graph(&[], vec![node("Neg", &["n"], &["n"])], &["n"]);
    check(
        &network(vec![condition(), branches(inside(), inside())], vec![]),
        &format!("If `y`: attribute `then_branch`: {}", cycle("Neg `n`")),
    );
}

#[test]
fn names_must_stand_for_one_thing() {
    let neg = |from: &str, to: &str| node("Neg", &[from], &[to]);
    check(&network(vec![neg("x", "y"), neg("x", "y")], vec![]), "`y` is produced twice: by Neg `y` and by Neg `y`");
    check(&network(vec![neg("x", "x")], vec![]), "`x` is produced twice: by an input or initializer and by Neg `x`");
    check(
        &network(vec![node("Split", &["x"], &["y", "y"])], vec![]),
        "`y` is produced twice: by Split `y` and by Split `y`",
    );
    let mut inputs = network(vec![neg("x", "y")], vec![]);
    inputs.graph.get_or_insert_default().input.push(value("x"));
    check(&inputs, "`x` is produced twice: by an input or initializer and by an input or initializer");
    check(
        &network(vec![neg("nowhere", "y")], vec![]),
        "Neg `y` reads `nowhere`, which no input, initializer or node produces",
    );
    check(&network(vec![], vec![]), "the list of outputs reads `y`, which no input, initializer or node produces");
    let branch = || graph(&[], vec![neg("nowhere", "n")], &["n"]);
    check(
        &network(vec![condition(), branches(branch(), branch())], vec![]),
        "If `y` reads `nowhere`, which no input, initializer or node produces",
    );
    check(&network(vec![node("Neg", &[""], &["y"])], vec![]), "Neg `y`: input `X` is missing");
    check(&network(vec![node("Neg", &["x"], &[""])], vec![]), "Neg: output `Y` is missing");
}

#[test]
fn operator_sets_of_no_release_are_refused() {
    let check = |version: i64, expected: &str| {
        let proto = ModelProto { opset_import: vec![import("", version)], ..network(vec![], vec![]) };
        assert_eq!(refusal(&proto), expected);
    };
    check(0, "ai.onnx operator set 0 is outside 1 to 28");
    check(-1, "ai.onnx operator set -1 is outside 1 to 28");
    check(i64::MAX, "ai.onnx operator set 9223372036854775807 is outside 1 to 28");
    let good = load(&network(vec![node("Neg", &["x"], &["y"])], vec![])).expect("a good file");
    for opset in [0, 6, 29, u32::MAX] {
        let message = to_bytes_at(&good, opset).expect_err("no such operator set").to_string();
        let expected = format!("ONNX's operator set {opset} cannot be written: choose one from 7 to 28");
        assert_eq!(message, expected);
    }
}

/// Found by the fuzzer: it asked for the memory of 2^53 axes.
#[test]
fn an_axis_far_below_zero_is_not_spelled_out() {
    for op_type in ["LayerNormalization", "RMSNormalization"] {
        let far = with(node(op_type, &["x", "x"], &["y"]), &[int("axis", -9_007_199_254_740_994)]);
        let mut proto = network(vec![far], vec![]);
        proto.opset_import[0].version = 23;
        let model = load(&proto).expect("an axis is no affair of reading");
        let message = to_bytes_at(&model, 11).expect_err("there is no such axis").to_string();
        assert!(message.starts_with(&format!("{op_type} `y` needs opset ")), "{message}");
    }
}

#[test]
fn attributes_that_hold_nothing_good_are_refused() {
    let check = |attribute: AttributeProto, expected: &str| {
        let proto = network(vec![with(node("Neg", &["x"], &["y"]), &[attribute])], vec![]);
        assert_eq!(refusal(&proto), format!("Neg `y`: attribute `a`: {expected}"));
    };
    let of = |number: i32| AttributeProto { name: "a".into(), r#type: number, ..AttributeProto::default() };
    check(of(attribute_type::GRAPH), "has no value");
    check(of(15), "is of an unknown type");
    check(of(-1), "is of an unknown type");
    check(reference("a", "elsewhere"), "refers to a function's, outside any function");
    let tensor = AttributeProto { t: Some(Box::new(raw(DType::F32, &[2], 7))), ..of(attribute_type::TENSOR) };
    check(tensor, "tensor `w`: f32 tensor of shape [2] takes 8 bytes, got 7");
    check(body("a", graph(&[""], vec![], &[])), "an input, output or initializer has no name");
    let sparse = AttributeProto { sparse_tensor: Some(Box::default()), ..of(attribute_type::SPARSE_TENSOR) };
    check(sparse, "tensor ``: element type 0 is unknown");
    let empty = AttributeProto { name: "kernel_shape".into(), ..of(attribute_type::INTS) };
    let pool = network(vec![with(node("MaxPool", &["x"], &["y"]), &[empty])], vec![]);
    assert_eq!(refusal(&pool), "MaxPool `y`: attribute `kernel_shape` is missing");
}

/// Every length of a model, and every bit of it changed.
#[test]
fn cut_off_and_flipped_files_are_an_error_or_a_graph() {
    let mut proto = network(
        vec![
            condition(),
            branches(graph(&[], vec![node("Neg", &["x"], &["n"])], &["n"]), graph(&[], vec![], &["x"])),
            NodeProto { domain: "theirs".into(), ..node("Odd", &["y", "w"], &["z"]) },
        ],
        vec![],
    );
    proto.opset_import.push(import("theirs", 1));
    let held: &mut GraphProto = proto.graph.get_or_insert_default();
    held.initializer.push(tensor::encode("w", &Tensor::vector(vec![1f32; 4])));
    held.input.push(value("unused"));
    held.doc_string = strings(&["a graph"]).concat();
    let whole = Bytes::from(proto.encode_to_vec());
    assert!(read_bytes(whole.clone(), None).is_ok());
    let sound = |bytes: Bytes| match read_bytes(bytes, None) {
        Ok(model) => model.graph.check().expect("what is read is a graph"),
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    (0..whole.len()).for_each(|n_bytes| sound(whole.slice(..n_bytes)));
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        sound(flipped.into());
    }
    let strange = ModelProto { ir_version: Some(i64::MIN), ..model(GraphProto::default()) };
    assert!(matches!(load(&strange), Err(OnnxError::Model(_))));
}
