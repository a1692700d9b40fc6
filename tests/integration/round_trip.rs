//! What a file that is read and written must keep to.

use aludel::graph::Model;
use aludel::onnx;
use bytes::Bytes;

/// The model written at its own operator set: reads back equal, says the same of itself, is written the same again.
pub(crate) fn written_back(model: &Model) -> Result<Bytes, String> {
    let bytes = onnx::to_bytes(model).map_err(|error| format!("cannot be written: {error}"))?;
    let again = onnx::read_bytes(bytes.clone(), None).map_err(|error| format!("cannot be read again: {error}"))?;
    if again.opset != model.opset.max(7) {
        return Err(format!("operator set {} has become {}", model.opset, again.opset));
    }
    if again.graph != model.graph {
        return Err("reads differently".to_string());
    }
    if again.about != model.about || again.domains != model.domains || again.ir_version != model.ir_version {
        return Err("says something else of itself".to_string());
    }
    if onnx::to_bytes(&again).ok().as_ref() != Some(&bytes) {
        return Err("is written differently the second time".to_string());
    }
    Ok(bytes)
}
