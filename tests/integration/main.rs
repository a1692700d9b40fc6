//! Every integration test, in one binary: linking the runtimes once is enough.

mod arrows;
mod audit;
mod cli;
mod conformance;
mod graph;
mod measure;
mod models;
mod real;
mod round_trip;
mod support;
