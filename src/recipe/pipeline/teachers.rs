//! The teachers of a recipe: each is had, and of several the mean.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::TeacherPart;
use super::matter::Matter;
use super::run::{Book, Course, Fitted, Made, Watcher};
use crate::compress::distill::teachers::{self, Member};
use crate::recipe::probe::columns;
use crate::recipe::train::{network, output};
use crate::recipe::{RecipeError, normalization};
use crate::store;

impl Book<'_> {
    /// Every teacher by its step's name; of several `teacher` is the mean.
    pub(super) fn teachers(
        &mut self,
        matter: &Matter,
        watcher: &mut dyn Watcher,
    ) -> Result<BTreeMap<String, Made>, RecipeError> {
        let parts = &self.pipeline.teachers;
        let mut made = BTreeMap::new();
        // no teacher needs another
        let only = self.options.only.filter(|only| parts.iter().any(|part| part.label == *only));
        for part in parts.iter().filter(|part| only.is_none_or(|only| part.label == only)) {
            let own = self.teacher(part, matter, watcher)?;
            made.insert(part.label.clone(), own);
            if self.is_done() {
                return Ok(made);
            }
        }
        if !made.contains_key("teacher") {
            let mean = self.mean(&made, matter, watcher)?;
            made.insert("teacher".to_string(), mean);
        }
        Ok(made)
    }

    fn teacher(&mut self, part: &TeacherPart, matter: &Matter, watcher: &mut dyn Watcher) -> Result<Made, RecipeError> {
        let pipeline = self.pipeline;
        let source = part.model.onnx.as_ref().map(|path| pipeline.folder.join(path));
        let file = source.as_deref().map(store::sha256_of_file).transpose()?.unwrap_or_default();
        let due = self.due(&part.label, part.seed, matter, &[&part.label, &part.text, &file]);
        self.step(&due, matter, None, watcher, |book, line, watcher| {
            let model = network(&pipeline.name, &part.model, &pipeline.folder, &matter.data, part.seed)?;
            let output = output(&part.model, &model)?;
            match &part.train {
                None => Ok(Fitted { model, output, line }),
                Some(train) => {
                    let augment = part.augment.as_deref().unwrap_or_else(|| book.augment());
                    let (data, seed) = (&matter.data, part.seed);
                    let course =
                        Course { model: &model, output: &output, data, augment, train, seed, sparsifier: None };
                    book.fit(line, &course, None, watcher)
                }
            }
        })
    }

    /// The mean of several teachers as one network.
    fn mean(
        &mut self,
        made: &BTreeMap<String, Made>,
        matter: &Matter,
        watcher: &mut dyn Watcher,
    ) -> Result<Made, RecipeError> {
        let parts = &self.pipeline.teachers;
        let key: Vec<String> =
            parts.iter().map(|part| format!("{} {} {}", part.label, part.weight, made[&part.label].sha256)).collect();
        let due = self.due("teacher", self.pipeline.seed, matter, &["mean", &key.join("\n")]);
        self.step(&due, matter, None, watcher, |_, line, _| {
            let members = parts.iter().map(|part| (part, &made[&part.label]));
            let first = members.clone().next().map(|(_, made)| made).expect("there are several");
            let reads = |made: &Made| -> Result<_, RecipeError> {
                let columns = columns(&made.model, &matter.data).into_iter().map(|(column, _)| column);
                Ok((columns.collect::<BTreeSet<_>>(), normalization::by_column(&made.model, &matter.data)?))
            };
            for (part, made) in members.clone() {
                if reads(made)? != reads(first)? {
                    let problem =
                        format!("reads other columns than `{}`, or normalises them otherwise", parts[0].label);
                    return Err(RecipeError::Part { part: part.label.clone(), problem });
                }
            }
            let members: Vec<Member<'_>> = members
                .map(|(part, made)| {
                    let name = part.label.strip_prefix("teacher.").unwrap_or(&part.label);
                    Member { name, graph: &made.model.graph, output: &made.output, weight: part.weight }
                })
                .collect();
            let (graph, output) = teachers::mean(&members)?;
            let mut model = first.model.with_graph(graph);
            for part in parts {
                let other = &made[&part.label].model;
                (model.opset, model.ir_version) =
                    (model.opset.max(other.opset), model.ir_version.max(other.ir_version));
                model.domains.extend(other.domains.clone());
            }
            Ok(Fitted { model, output, line })
        })
    }
}
