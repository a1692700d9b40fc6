//! aludel compresses a trained ONNX network for edge devices and proves on the written file what that cost and won.
//!
//! A file becomes a [`graph::Graph`] once. What is done to a network is a function from graph to graph; what it costs is
//! measured on the bytes that are written, never on the graph. The flow, from nothing to a measured file:
//!
//! ```
//! # #[cfg(feature = "full")] {
//! use aludel::graph::tensor::{DType, Tensor};
//! use aludel::graph::{Dim, GraphBuilder, Model, Op, TensorType, cost, shape};
//! use aludel::measure::runtime::{ModelBytes, Options, Runtime as _, tract::Tract};
//! use aludel::onnx;
//!
//! // A network: built here, usually `onnx::read("model.onnx")?`.
//! let mut builder = GraphBuilder::new("tour");
//! let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into()]));
//! let weight = builder.initializer("weight", Tensor::new(&[3, 2], vec![1f32, 0.0, 0.0, 1.0, 1.0, 1.0])?);
//! let product = builder.node(Op::MatMul, &[&x, &weight]);
//! let y = builder.node(Op::Relu, &[&product]);
//! builder.output(&y);
//! let model = Model::new(builder.finish()?);
//!
//! // What is in it, with the symbol `batch` bound to a number.
//! let types = shape::infer(&model.graph, &shape::Bindings::of([("batch", 4)]))?;
//! assert_eq!(cost::cost(&model.graph, &types).total.macs, 4 * 3 * 2);
//!
//! // What it does, on the bytes that ship.
//! let bytes = onnx::to_bytes(&model)?;
//! let mut session = Tract.load(&ModelBytes::new(bytes), &Options::default())?;
//! let input = Tensor::new(&[1, 3], vec![1f32, -2.0, 0.5])?;
//! let outputs = session.run(&[("x".to_string(), input)])?;
//! assert_eq!(outputs[0].1.as_slice::<f32>()?, [1.5, 0.0]);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The main job, a student that learns from its teacher, is a recipe carried out:
//!
//! ```
//! # #[cfg(feature = "full")] {
//! use std::path::Path;
//!
//! use aludel::measure::runtime::tract::Tract;
//! use aludel::recipe::pipeline::{Pipeline, RunOptions, run};
//!
//! let recipe = r#"
//!     name = "digits"
//!     data = { kind = "digits", shape = [64], normalize = "unit", split = { validation = 0.1, test = 0.2 } }
//!     student = { from = "teacher", width = 0.25 }
//!     step = [{ distill = { loss = ["kd"], temperature = 4.0, alpha = 0.9, epochs = 3, lr = 1e-2 } }]
//!     [teacher]
//!     arch = { mlp = { hidden = [128] } }
//!     train = { epochs = 3, lr = 1e-2 }
//! "#;
//! let folder = tempfile::tempdir()?;
//! let options = RunOptions {
//!     folder: folder.path(),
//!     resume: false,
//!     only: None,
//!     runtimes: &[&Tract],
//!     replay: None,
//!     latency: Default::default(),
//! };
//! let ledger = run(&Pipeline::parse(recipe, Path::new(""), &[])?, &options, &mut ())?;
//! let (teacher, student) = (&ledger.lines[0], &ledger.lines[2]);
//! assert!(student.bytes < teacher.bytes / 2);
//! assert!(student.test[0].accuracy > 0.8);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | room | what | sees |
//! |---|---|---|
//! | [`graph`] | networks: tensors, operators, shapes, cost, patches, the reference interpreter | nothing |
//! | [`onnx`] | bytes to graph and back, every opset from 7 on | graph, store |
//! | [`measure`] | runtimes over bytes: latency, memory, differences | tensors, store |
//! | [`audit`] | which operators run in int8, and which go wrong, on each runtime | onnx, measure |
//! | [`zoo`] | architectures by a few parameters | graph |
//! | [`data`] | batches of named tensors from files | tensors, store |
//! | [`learn`] | how a graph runs and trains: kernels, programs, the loop | graph, data, store |
//! | [`compress`] | what is done to a network: students made out of teachers, distillation, pruning, quantization | learn |
//! | [`store`] | atomic writes, hashes, mapped files | nothing |
//! | [`report`] | what a student is worth beside its teacher, and the gate that it must pass | measure |
//! | [`recipe`] | a recipe file, carried out | all before |
//! | [`cli`] | the program; the only room that prints | all |

// The random networks of the tests are built by one file, here and in tests/.
#[cfg(test)]
extern crate self as aludel;

#[cfg(feature = "full")]
pub mod audit;
#[cfg(feature = "full")]
pub mod cli;
#[cfg(feature = "learn")]
pub mod compress;
#[cfg(feature = "learn")]
pub mod data;
pub mod graph;
#[cfg(feature = "learn")]
pub mod learn;
#[cfg(feature = "edge")]
pub mod measure;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "full")]
pub mod recipe;
#[cfg(feature = "full")]
pub mod report;
#[cfg(feature = "onnx")]
pub mod store;
#[cfg(feature = "learn")]
pub mod zoo;
