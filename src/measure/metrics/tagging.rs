//! Sequence tagging: spans named by the tags of a sentence, and F1 over them, as `seqeval` counts them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricError, check_length, mean};

/// Tokens of one kind that belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// What they are, such as `PER`; `_` where the tags say only where spans are.
    pub kind: String,
    /// The first token.
    pub first: usize,
    /// The last token.
    pub last: usize,
}

/// The spans of one sentence's tags, in their order: `B-`, `I-`, and `O`, and where they are used `E-` for the last and
/// `S-` for a single token. What was never begun begins where it is met: `I-PER` after `O` or after `I-LOC` (the rules
/// of `conlleval` and of `seqeval`'s default mode).
///
/// # Errors
/// When a tag is none of these.
pub fn spans<T: AsRef<str>>(tags: &[T]) -> Result<Vec<Span>, MetricError> {
    spans_of_sentence(tags, 0)
}

fn spans_of_sentence<T: AsRef<str>>(tags: &[T], sample: usize) -> Result<Vec<Span>, MetricError> {
    let outside = ('O', "");
    let mut spans = Vec::new();
    let mut before = outside;
    let mut first = 0;
    for (token, tag) in tags.iter().map(AsRef::as_ref).chain(["O"]).enumerate() {
        let tag = parsed(tag).ok_or_else(|| MetricError::Tag { tag: tag.to_string(), sample })?;
        if before != outside && ends(before, tag) {
            spans.push(Span { kind: before.1.to_string(), first, last: token - 1 });
        }
        if begins(before, tag) {
            first = token;
        }
        before = tag;
    }
    Ok(spans)
}

/// The tag's letter and its kind.
fn parsed(tag: &str) -> Option<(char, &str)> {
    let letter = tag.chars().next().filter(|letter| "OBIES".contains(*letter))?;
    match (letter, tag.get(1..)?) {
        ('O', "") => Some(('O', "")),
        ('O', _) => None,
        (_, "") => Some((letter, "_")),
        (_, rest) => rest.strip_prefix('-').map(|kind| (letter, if kind.is_empty() { "_" } else { kind })),
    }
}

fn ends(before: (char, &str), tag: (char, &str)) -> bool {
    matches!(before.0, 'E' | 'S') || matches!(tag.0, 'B' | 'S' | 'O') || before.1 != tag.1
}

fn begins(before: (char, &str), tag: (char, &str)) -> bool {
    match tag.0 {
        'O' => false,
        'B' | 'S' => true,
        _ => matches!(before.0, 'E' | 'S' | 'O') || before.1 != tag.1,
    }
}

/// How many spans there are, were predicted, and agree in kind, first and last token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpanCounts {
    /// Spans of the labels.
    pub n_labelled: usize,
    /// Spans of the predictions.
    pub n_predicted: usize,
    /// Spans that are in both.
    pub n_right: usize,
}

impl SpanCounts {
    /// The part of the predicted spans that is right; none where none was predicted.
    pub fn precision(&self) -> Option<f64> {
        part(self.n_right, self.n_predicted)
    }

    /// The part of the labelled spans that was found; none where there is none.
    pub fn recall(&self) -> Option<f64> {
        part(self.n_right, self.n_labelled)
    }

    /// 2 · right / (labelled + predicted); none where there are neither.
    pub fn f1(&self) -> Option<f64> {
        part(2 * self.n_right, self.n_labelled + self.n_predicted)
    }

    fn add(&mut self, other: &SpanCounts) {
        self.n_labelled += other.n_labelled;
        self.n_predicted += other.n_predicted;
        self.n_right += other.n_right;
    }
}

fn part(n: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| n as f64 / of as f64)
}

/// The counts of every sentence, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagging {
    sentences: Vec<BTreeMap<String, SpanCounts>>,
}

impl Tagging {
    /// Counts over sentences of tags.
    ///
    /// # Errors
    /// When there are more or fewer predicted sentences than labelled ones, a sentence has more or fewer tags, or a tag
    /// is none that [`spans`] knows.
    pub fn of<T: AsRef<str>, U: AsRef<str>>(labels: &[Vec<T>], predictions: &[Vec<U>]) -> Result<Tagging, MetricError> {
        check_length("predicted sentences", labels.len(), predictions.len())?;
        let sentence = |(sample, (labels, predictions)): (usize, (&Vec<T>, &Vec<U>))| {
            check_length("predicted tags of a sentence", labels.len(), predictions.len())?;
            let (labels, predictions) = (spans_of_sentence(labels, sample)?, spans_of_sentence(predictions, sample)?);
            Ok(counted(&labels, &predictions))
        };
        let sentences = labels.iter().zip(predictions).enumerate().map(sentence).collect::<Result<_, _>>()?;
        Ok(Tagging { sentences })
    }

    /// How many sentences there are.
    pub fn n_sentences(&self) -> usize {
        self.sentences.len()
    }

    /// All kinds and sentences together: their F1 is the micro average.
    pub fn total(&self) -> SpanCounts {
        total(self.sentences.iter())
    }

    /// All sentences together, by kind.
    pub fn kinds(&self) -> BTreeMap<String, SpanCounts> {
        let mut kinds: BTreeMap<String, SpanCounts> = BTreeMap::new();
        for (kind, counts) in self.sentences.iter().flatten() {
            kinds.entry(kind.clone()).or_default().add(counts);
        }
        kinds
    }

    /// The mean of F1 over the kinds that occur, as a label or as a prediction; none for no spans.
    pub fn macro_f1(&self) -> Option<f64> {
        let f1: Vec<f64> = self.kinds().values().filter_map(SpanCounts::f1).collect();
        (!f1.is_empty()).then(|| mean(&f1))
    }

    /// The micro-averaged F1 of the sentences at these places, for the bootstrap; none where they have no spans.
    ///
    /// # Errors
    /// When a place is none of the sentences'.
    pub fn f1_of(&self, places: &[usize]) -> Result<Option<f64>, MetricError> {
        let n_samples = self.sentences.len();
        let sentence = |&place: &usize| self.sentences.get(place).ok_or(MetricError::Place { place, n_samples });
        let sentences = places.iter().map(sentence).collect::<Result<Vec<_>, _>>()?;
        Ok(total(sentences.into_iter()).f1())
    }
}

fn total<'a>(sentences: impl Iterator<Item = &'a BTreeMap<String, SpanCounts>>) -> SpanCounts {
    let mut total = SpanCounts::default();
    sentences.flat_map(BTreeMap::values).for_each(|counts| total.add(counts));
    total
}

fn counted(labels: &[Span], predictions: &[Span]) -> BTreeMap<String, SpanCounts> {
    let mut counts: BTreeMap<String, SpanCounts> = BTreeMap::new();
    for span in labels {
        counts.entry(span.kind.clone()).or_default().n_labelled += 1;
    }
    for span in predictions {
        let of_kind = counts.entry(span.kind.clone()).or_default();
        of_kind.n_predicted += 1;
        // Both are in the order of their first tokens, which no two share.
        let same = labels.binary_search_by_key(&span.first, |label| label.first);
        of_kind.n_right += usize::from(same.is_ok_and(|idx| labels[idx] == *span));
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sentences(text: &str) -> Vec<Vec<&str>> {
        text.split(" / ").map(|sentence| sentence.split(' ').collect()).collect()
    }

    const LABELS: &str = "B-PER I-PER O B-LOC I-LOC I-ORG / O I-PER B-PER I-LOC O / \
                          S-MISC E-MISC B-ORG I-ORG E-ORG I-ORG / O O / B I O I";
    const PREDICTIONS: &str = "B-PER I-PER O B-LOC O B-ORG / O B-PER I-PER I-LOC I-LOC / \
                               S-MISC O B-ORG I-ORG E-ORG B-ORG / B-LOC O / B I I O";

    /// `get_entities` of seqeval 1.2.2.
    #[test]
    fn spans_are_seqeval_s() {
        let check = |tags: &str, expected: &str| {
            let spans = spans(&sentences(tags)[0]).expect("tags");
            let text: Vec<String> =
                spans.iter().map(|span| format!("{} {}-{}", span.kind, span.first, span.last)).collect();
            assert_eq!(text.join(", "), expected, "{tags}");
        };
        check("B-PER I-PER O B-LOC I-LOC I-ORG", "PER 0-1, LOC 3-4, ORG 5-5");
        check("O I-PER B-PER I-LOC O", "PER 1-1, PER 2-2, LOC 3-3");
        check("S-MISC E-MISC B-ORG I-ORG E-ORG I-ORG", "MISC 0-0, MISC 1-1, ORG 2-4, ORG 5-5");
        check("O O", "");
        check("B I O I", "_ 0-1, _ 3-3");
        check("O B-PER I-PER I-LOC I-LOC", "PER 1-2, LOC 3-4");
    }

    /// `precision_score`, `recall_score`, `f1_score` and `classification_report` of seqeval 1.2.2.
    #[test]
    fn scores_are_seqeval_s() {
        let tagging = Tagging::of(&sentences(LABELS), &sentences(PREDICTIONS)).expect("tags");
        let total = tagging.total();
        assert_eq!((total.n_labelled, total.n_predicted, total.n_right), (12, 10, 5));
        assert_eq!((total.precision(), total.recall()), (Some(0.5), Some(0.4166666666666667)));
        assert_eq!(total.f1(), Some(0.45454545454545453));
        assert!(tagging.macro_f1().is_some_and(|f1| (f1 - 0.4133333333333333).abs() < 1e-15));
        let kinds = tagging.kinds();
        assert_eq!(kinds.keys().collect::<Vec<_>>(), ["LOC", "MISC", "ORG", "PER", "_"]);
        assert_eq!((kinds["PER"].f1(), kinds["PER"].n_labelled), (Some(0.4), 3));
        assert_eq!((kinds["ORG"].f1(), kinds["LOC"].f1()), (Some(1.0), Some(0.0)));
        assert_eq!(tagging.f1_of(&[0, 1, 2, 3, 4]), Ok(total.f1()));
        assert_eq!(tagging.f1_of(&[]), Ok(None));
        assert_eq!(tagging.f1_of(&[5]), Err(MetricError::Place { place: 5, n_samples: 5 }));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        let check = |tag: &str| {
            let error = Tagging::of(&sentences("O / O"), &sentences(&format!("O / {tag}"))).expect_err(tag).to_string();
            assert_eq!(error, format!("tag `{tag}` of sentence 1 is none of O, B-KIND, I-KIND, E-KIND and S-KIND"));
        };
        ["", "PER", "Ö", "OK", "BPER", "b-PER"].into_iter().for_each(check);
        assert!(Tagging::of(&sentences("O O"), &sentences("O")).is_err());
        assert!(Tagging::of(&sentences("O / O"), &sentences("O")).is_err());
    }

    proptest! {
        #[test]
        fn a_sentence_agrees_with_itself(tags in prop::collection::vec("[BIES]-[XY]|O", 0..12)) {
            let sentence = std::slice::from_ref(&tags);
            let tagging = Tagging::of(sentence, sentence).expect("tags");
            prop_assert!(tagging.macro_f1().is_none_or(|f1| f1 == 1.0));
            let inside: usize = spans(&tags).expect("tags").iter().map(|span| span.last - span.first + 1).sum();
            prop_assert_eq!(inside, tags.iter().filter(|tag| *tag != "O").count());
        }
    }
}
