//! Every integration test, in one binary: linking the runtimes once is enough.

mod arrows;
mod cli;
mod conformance;
mod graph;
mod measure;
mod models;
mod random_graphs;
mod real;
mod round_trip;
mod structure;
mod support;
