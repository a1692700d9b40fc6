//! aludel compresses a trained ONNX network for edge devices and proves on the written file what that cost and won.

pub mod graph;
#[cfg(feature = "edge")]
pub mod measure;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "onnx")]
pub mod store;
