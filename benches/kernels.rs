//! The training kernels on the shapes of small convolutional networks.

fn main() {}
