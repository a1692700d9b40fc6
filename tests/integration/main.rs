//! Every integration test, in one binary: linking the runtimes once is enough.

mod arrows;
mod graph;
mod measure;
mod support;
