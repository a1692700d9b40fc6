//! Labels: names of classes, numbers to be met, or flags of which several may be set.

use std::collections::HashMap;

use crate::graph::tensor::{Tensor, TensorError};

/// What the column `label` holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// There is no such column.
    None,
    /// `i64 [n]`: each sample's class, a place in these names.
    Classes(Vec<String>),
    /// `f32 [n, k]`: the numbers with these names.
    Numbers(Vec<String>),
    /// `f32 [n, k]`: 1 where a sample has what is named, else 0.
    Flags(Vec<String>),
}

/// Labels as a file has them.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Names(Vec<String>),
    Ids(Vec<i64>),
    /// Row-major, as many numbers a sample as there are names.
    Numbers(Vec<f32>, Vec<String>),
    Flags(Vec<f32>, Vec<String>),
}

/// Labels in their final form, and the samples that have none that they could have.
pub(super) struct Encoded {
    pub(super) labels: Labels,
    pub(super) tensor: Tensor,
    pub(super) wrong: Vec<(usize, String)>,
}

/// Ids that a file may hold where the descriptor does not say how many classes there are.
const MOST_CLASSES: i64 = 65_536;

/// Labels in their final form. Where no classes are declared, they are those of the first `n_training` samples: names in
/// the order of their numbers if all are whole numbers, else in that of their letters.
pub(super) fn encode(raw: &Raw, declared: Option<&[String]>, n_training: usize) -> Result<Encoded, TensorError> {
    match raw {
        Raw::Names(names) => {
            let classes = declared.map_or_else(|| classes_of(names.iter().take(n_training)), <[String]>::to_vec);
            let places: HashMap<&str, usize> =
                classes.iter().enumerate().map(|(idx, name)| (name.as_str(), idx)).collect();
            let ids = names.iter().map(|name| places.get(name.as_str()).copied().ok_or_else(|| format!("`{name}`")));
            Ok(classified(ids, &classes))
        }
        Raw::Ids(ids) => {
            let known = |id: &&i64| (0..MOST_CLASSES).contains(*id);
            let greatest = ids.iter().take(n_training).filter(known).max();
            let numbered = || (0..greatest.map_or(0, |id| id + 1)).map(|id| id.to_string()).collect();
            let classes: Vec<String> = declared.map_or_else(numbered, <[String]>::to_vec);
            let place = |id: &i64| usize::try_from(*id).ok().filter(|&id| id < classes.len());
            Ok(classified(ids.iter().map(|id| place(id).ok_or_else(|| id.to_string())), &classes))
        }
        Raw::Numbers(numbers, names) => {
            let (tensor, wrong) = rows(numbers, names, f32::is_finite, "holds no finite number")?;
            Ok(Encoded { labels: Labels::Numbers(names.clone()), tensor, wrong })
        }
        Raw::Flags(flags, names) => {
            let is_flag = |flag: f32| flag == 0.0 || flag == 1.0;
            let (tensor, wrong) = rows(flags, names, is_flag, "holds a flag that is neither 0 nor 1")?;
            Ok(Encoded { labels: Labels::Flags(names.clone()), tensor, wrong })
        }
    }
}

fn classified(places: impl Iterator<Item = Result<usize, String>>, classes: &[String]) -> Encoded {
    let mut wrong = Vec::new();
    let mut ids = Vec::new();
    for (sample, place) in places.enumerate() {
        let id = place.and_then(|place| i64::try_from(place).map_err(|error| error.to_string()));
        ids.push(id.unwrap_or_else(|label| {
            wrong.push((sample, format!("label {label} is not among the {} classes: {}", classes.len(), few(classes))));
            0
        }));
    }
    Encoded { labels: Labels::Classes(classes.to_vec()), tensor: Tensor::vector(ids), wrong }
}

type Rows = (Tensor, Vec<(usize, String)>);

fn rows(numbers: &[f32], names: &[String], right: impl Fn(f32) -> bool, problem: &str) -> Result<Rows, TensorError> {
    let width = names.len().max(1);
    let is_wrong = |row: &&[f32]| !row.iter().all(|&number| right(number));
    let indexed = numbers.chunks(width).enumerate().filter(|(_, row)| is_wrong(row));
    let wrong = indexed.map(|(sample, _)| (sample, format!("label {problem}"))).collect();
    Ok((Tensor::new(&[numbers.len() / width, width], numbers.to_vec())?, wrong))
}

fn classes_of<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut classes: Vec<String> = names.cloned().collect();
    classes.sort_unstable();
    classes.dedup();
    if let Ok(mut numbered) = classes
        .iter()
        .map(|name| Ok((name.parse::<i64>()?, name.clone())))
        .collect::<Result<Vec<_>, std::num::ParseIntError>>()
    {
        numbered.sort_unstable();
        return numbered.into_iter().map(|(_, name)| name).collect();
    }
    classes
}

/// The first names of a list.
pub(super) fn few(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &Raw, declared: Option<&[&str]>, n_training: usize, expected: &str) {
        let declared: Option<Vec<String>> = declared.map(|names| names.iter().map(|name| name.to_string()).collect());
        let encoded = encode(raw, declared.as_deref(), n_training).expect("lengths fit");
        let Labels::Classes(classes) = &encoded.labels else { panic!("classes are expected") };
        let ids = encoded.tensor.to_vec::<i64>().expect("ids");
        let wrong: Vec<usize> = encoded.wrong.iter().map(|row| row.0).collect();
        assert_eq!(format!("{} {ids:?} {wrong:?}", classes.join(",")), expected);
    }

    #[test]
    fn classes_are_those_of_the_training_samples_or_the_declared_ones() {
        let names = |text: &str| Raw::Names(text.split(' ').map(str::to_owned).collect());
        check(&names("spam ham spam"), None, 3, "ham,spam [1, 0, 1] []");
        check(&names("10 9 10"), None, 3, "9,10 [1, 0, 1] []");
        check(&names("ham eggs"), None, 1, "ham [0, 0] [1]");
        check(&names("ham eggs"), Some(&["eggs", "ham"]), 1, "eggs,ham [1, 0] []");
        check(&Raw::Ids(vec![2, 0, 3]), None, 2, "0,1,2 [2, 0, 0] [2]");
        check(&Raw::Ids(vec![-1, 1 << 40, 1]), None, 3, "0,1 [0, 0, 1] [0, 1]");
        check(&Raw::Ids(vec![0, 2]), Some(&["a", "b"]), 2, "a,b [0, 0] [1]");
    }

    #[test]
    fn numbers_and_flags_keep_their_rows() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let numbers = encode(&Raw::Numbers(vec![1.0, 2.0, f32::NAN, 0.5], names.clone()), None, 2).expect("two rows");
        assert_eq!((numbers.tensor.shape(), numbers.wrong.len()), (&[2, 2][..], 1));
        let flags = encode(&Raw::Flags(vec![1.0, 0.0, 1.0, 2.0], names), None, 2).expect("two rows");
        assert_eq!(flags.wrong.first().map(|row| row.0), Some(1));
    }
}
