//! Every integration test, in one binary: linking the runtimes once is enough.

mod arrows;
mod cli;
mod conformance;
mod graph;
mod hostile;
mod measure;
mod models;
mod real;
mod round_trip;
mod support;
