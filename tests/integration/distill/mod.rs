//! Distillation, on files and on networks of the zoo.

mod student;
