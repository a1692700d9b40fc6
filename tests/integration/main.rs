//! Every integration test, in one binary: linking the runtimes once is enough.

mod arrows;
mod audit;
mod blocks;
mod cli;
mod conformance;
mod distill;
mod emulation;
mod gate;
mod graph;
mod groups;
mod hostile;
mod learn;
mod measure;
mod models;
mod prune;
mod quantize;
mod random_graphs;
mod real;
mod recipe;
mod round_trip;
mod rounding;
mod schema;
mod simplify;
mod support;
mod unroll;
mod zoo;
