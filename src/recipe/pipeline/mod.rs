//! Recipes of several steps: a teacher is had, students are made, and each goes through the steps. Every step writes its
//! network and a line of the ledger; one whose inputs have not changed is not done again.

mod grammar;
mod ledger;
mod matter;
mod prune;
mod quantize;
mod run;
mod schema;
mod steps;
mod teacher;
mod teachers;
mod worth;

pub use grammar::{
    DistillOptions, Pipeline, QuantizeStep, Step, StepPart, Student, StudentNetwork, TeacherOptions, TeacherPart,
};
pub use ledger::{Ledger, Line, Speed};
pub use run::{RunOptions, Watcher, run};
pub use schema::schema;
