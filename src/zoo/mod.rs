//! Architectures by a few parameters, built as graphs.
