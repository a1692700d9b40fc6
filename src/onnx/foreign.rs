//! Files of other kinds that are given for a model, known by how they begin.

use super::error::OnnxError;

/// How much of a file's beginning is looked at.
pub(super) const HEAD_BYTES: usize = 512;

/// (where, the bytes there, what it is, what to do about it)
const KINDS: &[(usize, &[u8], &str, &str)] = &[
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for", "run `git lfs pull`"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it; a PyTorch checkpoint must be exported to ONNX"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"BZh", "a bzip2 archive", "unpack it"),
    (0, b"\xfd7zXZ\0", "an xz archive", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"<", "a web page or XML", "fetch the file itself, not the page about it"),
    (0, b"\x89PNG", "a PNG image", IMAGE),
    (0, b"\xff\xd8\xff", "a JPEG image", IMAGE),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes", EXPORT),
    (4, b"TFL3", "a TensorFlow Lite model", EXPORT),
    (4, b"ORTM", "a model in onnxruntime's own format", "use the ONNX file that it was made from"),
    (0, b"GGUF", "a GGUF file", EXPORT),
    (0, b"\x80\x02", "a Python pickle", EXPORT),
    (0, b"\x80\x04", "a Python pickle", EXPORT),
    (0, b"\x80\x05", "a Python pickle", EXPORT),
    (8, b"{\"", "a safetensors file, which holds weights alone", EXPORT),
    (0, b"{", "JSON", "give the ONNX file itself"),
];

const IMAGE: &str = "give the model first; images belong to --data";
const EXPORT: &str = "export an ONNX file from the framework that wrote it";

/// The error of a file that is no model and begins like this: what it is instead, where that is plain to see.
pub(super) fn explained(head: &[u8], error: OnnxError) -> OnnxError {
    let is_no_model = matches!(error, OnnxError::Protobuf(_) | OnnxError::Model(_));
    if head.is_empty() {
        return OnnxError::Foreign { what: "an empty file", hint: "fetch or export it again" };
    }
    // Text may begin with a byte order mark and empty lines.
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |start: usize, magic: &[u8]| {
        let head = if matches!(magic, b"<" | b"{") { text } else { head };
        head.get(start..).is_some_and(|rest| rest.starts_with(magic))
    };
    let kind = KINDS.iter().find(|(start, magic, ..)| begins(*start, magic));
    match kind.filter(|_| is_no_model) {
        Some(&(_, _, what, hint)) => OnnxError::Foreign { what, hint },
        None => error,
    }
}
