//! Spans of a text, as in question answering: exact match and F1 of the words, as SQuAD's script counts them, and of
//! token places.
//!
//! Scores are of one sample, from 0 to 1; where several answers are right, the best of them counts. A question without
//! an answer is answered by the empty text, or by no place.

use std::collections::HashMap;

/// 1 where the normalised text is one of the answers', else 0. No answers mean that the question has none.
pub fn exact_match<T: AsRef<str>>(prediction: &str, answers: &[T]) -> f64 {
    let prediction = normalized(prediction);
    best(answers, |answer| f64::from(normalized(answer) == prediction))
}

/// The harmonic mean of precision and recall over the words that prediction and answer share, each as often as both
/// have it (Rajpurkar et al. 2016). Where either has no words, 1 if neither has any, else 0.
pub fn f1<T: AsRef<str>>(prediction: &str, answers: &[T]) -> f64 {
    let prediction = normalized(prediction);
    best(answers, |answer| words_f1(&prediction, &normalized(answer)))
}

fn best<T: AsRef<str>>(answers: &[T], score: impl Fn(&str) -> f64) -> f64 {
    if answers.is_empty() {
        return score("");
    }
    answers.iter().map(|answer| score(answer.as_ref())).fold(0.0, f64::max)
}

fn words_f1(prediction: &str, answer: &str) -> f64 {
    let predicted: Vec<&str> = prediction.split(' ').filter(|word| !word.is_empty()).collect();
    let mut left: HashMap<&str, usize> = HashMap::new();
    let mut n_answer = 0;
    for word in answer.split(' ').filter(|word| !word.is_empty()) {
        *left.entry(word).or_default() += 1;
        n_answer += 1;
    }
    let mut n_shared = 0;
    for word in &predicted {
        if let Some(n) = left.get_mut(word).filter(|n| **n > 0) {
            *n -= 1;
            n_shared += 1;
        }
    }
    overlap_f1(n_shared, predicted.len(), n_answer)
}

fn overlap_f1(n_shared: usize, n_predicted: usize, n_answer: usize) -> f64 {
    if n_predicted == 0 || n_answer == 0 {
        return f64::from(n_predicted == n_answer);
    }
    2.0 * n_shared as f64 / (n_predicted + n_answer) as f64
}

/// A text as SQuAD's script compares it: in lower case, without ASCII punctuation, without the words a, an and the,
/// with one space between words.
pub fn normalized(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().filter(|letter| !letter.is_ascii_punctuation()).collect();
    let is_of_word = |letter: char| letter.is_alphanumeric();
    let mut without_articles = String::with_capacity(kept.len());
    let mut rest = kept.as_str();
    while let Some(first) = rest.chars().next() {
        let is_word = is_of_word(first);
        let end = rest.find(|letter| is_of_word(letter) != is_word).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        without_articles.push_str(if matches!(part, "a" | "an" | "the") { " " } else { part });
        rest = after;
    }
    without_articles.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first and the last token of an answer; none for no answer.
pub type Places = Option<(usize, usize)>;

/// 1 where both are the same places, or both none, else 0. A span that ends before it begins is none.
pub fn exact_match_of_places(prediction: Places, answer: Places) -> f64 {
    f64::from(forward(prediction) == forward(answer))
}

/// F1 of the tokens that both spans hold. Where either is none, 1 if both are, else 0. A span that ends before it
/// begins is none.
pub fn f1_of_places(prediction: Places, answer: Places) -> f64 {
    let n_tokens = |places: Places| places.map_or(0.0, |(first, last)| (last - first) as f64 + 1.0);
    let (prediction, answer) = (forward(prediction), forward(answer));
    match (prediction, answer) {
        (Some((first, last)), Some((other_first, other_last))) => {
            let shared = (first.max(other_first), last.min(other_last));
            2.0 * n_tokens(forward(Some(shared))) / (n_tokens(prediction) + n_tokens(answer))
        }
        (None, None) => 1.0,
        (Some(_), None) | (None, Some(_)) => 0.0,
    }
}

fn forward(places: Places) -> Places {
    places.filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `normalize_answer` of SQuAD's `evaluate-v2.0.py`.
    #[test]
    fn texts_are_normalised_as_by_squad() {
        let check = |text: &str, expected: &str| assert_eq!(normalized(text), expected, "{text}");
        check("The  Quick, brown-fox!", "quick brownfox");
        check("a–b the end", "–b end");
        check("An apple’s THE", "apple’s");
        check("the", "");
        check("Ünïted a Stätes", "ünïted stätes");
        check("U.S.A. an 42%", "usa 42");
        check("theatre an_d", "theatre and");
    }

    /// `compute_exact` and `compute_f1` of SQuAD's `evaluate-v2.0.py`.
    #[test]
    fn scores_are_squad_s() {
        let check = |answers: &[&str], prediction: &str, exact: f64, expected: f64| {
            let got = f1(prediction, answers);
            assert!((got - expected).abs() < 1e-15, "{prediction}: {got}");
            assert_eq!(exact_match(prediction, answers), exact, "{prediction}");
        };
        check(&["the Battle of Hastings"], "Battle of Hastings in 1066", 0.0, 0.75);
        check(&["in in the house"], "house in", 0.0, 0.8);
        check(&["in in the house"], "in house in", 0.0, 1.0);
        check(&[""], "the", 1.0, 1.0);
        check(&[], "", 1.0, 1.0);
        check(&[], "1066", 0.0, 0.0);
        check(&["1066"], "", 0.0, 0.0);
        check(&["1067", "in 1066"], "1066", 0.0, 2.0 / 3.0);
        check(&["Denver Broncos"], "Denver Broncos!", 1.0, 1.0);
    }

    #[test]
    fn places_overlap() {
        let check = |prediction: Places, answer: Places, exact: f64, expected: f64| {
            assert_eq!(f1_of_places(prediction, answer), expected, "{prediction:?} {answer:?}");
            assert_eq!(exact_match_of_places(prediction, answer), exact, "{prediction:?} {answer:?}");
        };
        check(Some((3, 5)), Some((3, 5)), 1.0, 1.0);
        check(Some((3, 5)), Some((5, 5)), 0.0, 0.5);
        check(Some((3, 5)), Some((6, 7)), 0.0, 0.0);
        check(Some((5, 3)), None, 1.0, 1.0);
        check(None, Some((0, 0)), 0.0, 0.0);
        check(Some((0, usize::MAX)), Some((0, usize::MAX)), 1.0, 1.0);
    }

    proptest! {
        #[test]
        fn sides_do_not_matter(a in "[a-d ]{0,12}", b in "[a-d ]{0,12}") {
            prop_assert_eq!(f1(&a, &[&b]), f1(&b, &[&a]));
            prop_assert!(exact_match(&a, &[&b]) <= f1(&a, &[&b]));
            prop_assert_eq!(normalized(&normalized(&a)), normalized(&a));
        }
    }
}
