//! Removal on small graphs.
