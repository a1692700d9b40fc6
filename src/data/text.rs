//! Text cut into tokens: words with a vocabulary built on the training samples, words by a hash, or by a Hugging Face
//! `tokenizer.json`.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use indexmap::IndexMap;
use tokenizers::{Tokenizer, TruncationParams};

use super::column::{Column, Kind, Values};
use super::descriptor::Keys;
use super::error::DataError;
use crate::graph::tensor::Tensor;

/// How text is cut into words: runs of letters and digits as Unicode has them, in lower case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// whether any other character that is no space is a word too
    pub symbols: bool,
    /// whether words have shapes: letters and digits are words apart; of a run of digits the number of digits counts, up to
    /// six; and a word of two or more letters, all of them capitals, comes after the word `<capitals>`
    pub shapes: bool,
    /// the most words of a text; what follows is cut off
    pub max_length: Option<usize>,
}

/// How text becomes numbers. Those of the first two stand for words; text without any is one unknown word. Number 0 is
/// padding.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// The most frequent words of the training samples; 1 is any other.
    Vocabulary {
        /// how many numbers there are, padding and the unknown word included
        size: usize,
        /// how often a word must occur
        least_count: usize,
        /// what a word is
        cut: Cut,
    },
    /// A word's number is 1 + (its FNV-1a hash of 64 bits modulo `size` - 1).
    Hash {
        /// how many numbers there are, padding included
        size: usize,
        /// what a word is
        cut: Cut,
    },
    /// As this file has it, with its special tokens; gives `token_type_ids` too.
    Tokenizer {
        /// `tokenizer.json`
        path: PathBuf,
        /// the most tokens of a text, special ones included; what follows is cut off
        max_length: Option<usize>,
    },
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum TokenKeys {
    Vocabulary {
        size: usize,
        #[serde(default)]
        least_count: usize,
        #[serde(default)]
        symbols: bool,
        #[serde(default)]
        shapes: bool,
        max_length: Option<usize>,
    },
    Hash {
        size: usize,
        #[serde(default)]
        symbols: bool,
        #[serde(default)]
        shapes: bool,
        max_length: Option<usize>,
    },
    Tokenizer {
        path: String,
        max_length: Option<usize>,
    },
}

/// Texts as numbers.
pub(super) struct Encoded {
    /// by name
    pub(super) columns: IndexMap<String, Column>,
    /// what there is of tokens
    pub(super) known: Known,
}

/// What is known of tokens.
pub(super) struct Known {
    /// every number is less
    pub(super) n_tokens: usize,
    /// the words of a vocabulary that was built
    pub(super) vocabulary: Option<Vec<String>>,
}

const PADDING: i64 = 0;
const UNKNOWN: i64 = 1;

impl Tokens {
    pub(super) fn from_keys(keys: &mut Keys) -> Result<Option<Tokens>, DataError> {
        let Some(tokens) = keys.take("tokens")? else { return Ok(None) };
        let tokens = match tokens {
            TokenKeys::Vocabulary { size, least_count, symbols, shapes, max_length } => {
                Tokens::Vocabulary { size, least_count, cut: Cut { symbols, shapes, max_length } }
            }
            TokenKeys::Hash { size, symbols, shapes, max_length } => {
                Tokens::Hash { size, cut: Cut { symbols, shapes, max_length } }
            }
            TokenKeys::Tokenizer { path, max_length } => {
                Tokens::Tokenizer { path: keys.path("tokens", &path)?, max_length }
            }
        };
        let (size, max_length) = match &tokens {
            Tokens::Vocabulary { size, cut, .. } | Tokens::Hash { size, cut } => (*size, cut.max_length),
            Tokens::Tokenizer { max_length, .. } => (usize::MAX, *max_length),
        };
        if size < 3 || i64::try_from(size).is_err() && size != usize::MAX {
            return Err(DataError::key(
                "tokens",
                format!("`size` is {size}; give 3 or more, padding and unknown included"),
            ));
        }
        if max_length == Some(0) {
            return Err(DataError::key("tokens", "`max_length` is 0; give 1 or more, or leave it out"));
        }
        Ok(Some(tokens))
    }

    /// These texts, their first column of this name.
    pub(super) fn encode(&self, texts: &[Bytes], training: &[usize], input: &str) -> Result<Encoded, DataError> {
        let texts: Vec<&str> = texts.iter().map(|text| std::str::from_utf8(text).unwrap_or("")).collect();
        match self {
            Tokens::Vocabulary { size, least_count, cut } => {
                let training = training.iter().filter_map(|&sample| texts.get(sample).copied());
                let vocabulary = vocabulary(training, *size, *least_count, *cut);
                let numbered = vocabulary.iter().zip(0i64..);
                let numbers: HashMap<&str, i64> = numbered.map(|(word, number)| (word.as_str(), number)).collect();
                let number = |word: &str| numbers.get(word).copied().unwrap_or(UNKNOWN);
                let ids = texts.iter().map(|text| word_ids(text, *cut, number)).collect();
                let n_tokens = vocabulary.len();
                Ok(Encoded { columns: columns(input, ids), known: Known { n_tokens, vocabulary: Some(vocabulary) } })
            }
            Tokens::Hash { size, cut } => {
                let n_buckets = super::number::wide(size.saturating_sub(1)).max(1);
                let number = |word: &str| i64::try_from(1 + fnv1a(word.as_bytes()) % n_buckets).unwrap_or(UNKNOWN);
                let ids = texts.iter().map(|text| word_ids(text, *cut, number)).collect();
                Ok(Encoded { columns: columns(input, ids), known: Known { n_tokens: *size, vocabulary: None } })
            }
            Tokens::Tokenizer { path, max_length } => {
                let problem = |error: tokenizers::Error| DataError::file(path, error.to_string());
                let tokenizer = tokenizer(path, *max_length)?;
                let encodings = texts.iter().map(|text| tokenizer.encode(*text, true)).collect::<Result<Vec<_>, _>>();
                let encodings = encodings.map_err(problem)?;
                let of = |numbers: fn(&tokenizers::Encoding) -> &[u32]| -> Vec<Vec<i64>> {
                    encodings.iter().map(|it| numbers(it).iter().copied().map(i64::from).collect()).collect()
                };
                let mut columns = columns(input, of(tokenizers::Encoding::get_ids));
                if let Some(column) = columns.get_mut(input) {
                    column.kind = Kind::Codes { pad: padding(&tokenizer) };
                }
                columns.insert("token_type_ids".to_owned(), ragged(of(tokenizers::Encoding::get_type_ids)));
                let last = tokenizer.get_vocab(true).into_values().max().map_or(0, i64::from);
                let n_tokens = usize::try_from(last).map_or(usize::MAX, |last| last.saturating_add(1));
                Ok(Encoded { columns, known: Known { n_tokens, vocabulary: None } })
            }
        }
    }
}

/// Words in the order of their frequency, then of their letters, after `<pad>` and `<unknown>`.
fn vocabulary<'a>(texts: impl Iterator<Item = &'a str>, size: usize, least_count: usize, cut: Cut) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for text in texts {
        words(text, cut, |word| {
            if let Some(count) = counts.get_mut(word) {
                *count += 1;
            } else {
                counts.insert(word.to_owned(), 1);
            }
            true
        });
    }
    let mut counted: Vec<(String, usize)> = counts.into_iter().filter(|row| row.1 >= least_count).collect();
    counted.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let special = ["<pad>", "<unknown>"].map(str::to_owned);
    special.into_iter().chain(counted.into_iter().map(|row| row.0)).take(size).collect()
}

/// Visits words until one is refused.
fn words(text: &str, cut: Cut, mut visit: impl FnMut(&str) -> bool) {
    let lower = (!cut.shapes).then(|| text.to_lowercase());
    let mut rest = lower.as_deref().unwrap_or(text);
    while let Some(first) = rest.chars().next() {
        let is_word = first.is_alphanumeric();
        let belongs =
            |letter: char| letter.is_alphanumeric() && (!cut.shapes || letter.is_numeric() == first.is_numeric());
        let end = if is_word { rest.find(|letter| !belongs(letter)) } else { Some(first.len_utf8()) };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        let is_refused = match (is_word, cut.shapes) {
            (true, true) => !visit_shaped(word, &mut visit),
            (true, false) => !visit(word),
            (false, _) => cut.symbols && !first.is_whitespace() && !visit(word),
        };
        if is_refused {
            return;
        }
    }
}

/// Visits a run of letters or of digits as words with shapes have it; whether to go on.
fn visit_shaped(word: &str, visit: &mut impl FnMut(&str) -> bool) -> bool {
    let n_characters = word.chars().take(DIGITS.len()).count();
    if word.starts_with(char::is_numeric) {
        return visit(&DIGITS[..n_characters]);
    }
    let is_loud = n_characters > 1 && word.chars().all(char::is_uppercase);
    (!is_loud || visit(CAPITALS)) && visit(&word.to_lowercase())
}

/// The words that stand for numbers of one to so many digits.
const DIGITS: &str = "000000";

const CAPITALS: &str = "<capitals>";

fn word_ids(text: &str, cut: Cut, number: impl Fn(&str) -> i64) -> Vec<i64> {
    let mut ids = Vec::new();
    words(text, cut, |word| {
        ids.push(number(word));
        cut.max_length.is_none_or(|most| ids.len() < most)
    });
    if ids.is_empty() {
        ids.push(number(""));
    }
    ids
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn columns(input: &str, ids: Vec<Vec<i64>>) -> IndexMap<String, Column> {
    let masks = ids.iter().map(|ids| vec![1; ids.len()]).collect();
    IndexMap::from([(input.to_owned(), ragged(ids)), ("attention_mask".to_owned(), ragged(masks))])
}

fn ragged(rows: Vec<Vec<i64>>) -> Column {
    let tensors = rows.into_iter().map(Tensor::vector).collect();
    Column::new(Values::Ragged(tensors), Kind::Codes { pad: PADDING })
}

fn tokenizer(path: &std::path::Path, max_length: Option<usize>) -> Result<Tokenizer, DataError> {
    let bytes = super::file::read(path)?;
    let problem =
        |error: tokenizers::Error| DataError::file(path, format!("is no tokenizer.json that is understood: {error}"));
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(problem)?;
    // Batches are padded when they are made, and cut as the descriptor says.
    tokenizer.with_padding(None);
    let truncation = max_length.map(|max_length| TruncationParams { max_length, ..TruncationParams::default() });
    tokenizer.with_truncation(truncation).map_err(problem)?;
    Ok(tokenizer)
}

fn padding(tokenizer: &Tokenizer) -> i64 {
    let names = ["[PAD]", "<pad>", "<|pad|>"];
    names.into_iter().find_map(|name| tokenizer.token_to_id(name)).map_or(PADDING, i64::from)
}

/// The error for text without a word on how to cut it.
pub(super) fn missing() -> DataError {
    DataError::key("tokens", "is missing, but a column is text; give { kind = \"vocabulary\", size = 8000 }")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &Tokens, texts: &[&str], expected: &[&[i64]]) -> Option<Vec<String>> {
        let texts: Vec<Bytes> = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        let Encoded { columns, known: Known { n_tokens, vocabulary } } =
            tokens.encode(&texts, &[0, 1], "ids").expect("text");
        let rows: Vec<&[i64]> = (0..texts.len()).map(|idx| columns["ids"].values.sample(idx).expect("i64")).collect();
        assert_eq!(rows, expected);
        assert!(rows.iter().all(|row| row.iter().all(|&id| usize::try_from(id).is_ok_and(|id| id < n_tokens))));
        vocabulary
    }

    #[test]
    fn words_are_numbered_by_frequency_in_training() {
        let tokens = |size, symbols, max_length| {
            let cut = Cut { symbols, max_length, ..Cut::default() };
            Tokens::Vocabulary { size, least_count: 0, cut }
        };
        let texts = ["The cat, the Äpfel!", "the cat 2", "unseen the", "..."];
        let words = check(&tokens(9, false, None), &texts, &[&[2, 3, 2, 5], &[2, 3, 4], &[1, 2], &[1]]);
        let expected = ["<pad>", "<unknown>", "the", "cat", "2", "äpfel"].map(str::to_owned);
        assert_eq!(words.as_deref(), Some(&expected[..]));
        check(&tokens(3, false, Some(2)), &texts, &[&[2, 1], &[2, 1], &[1, 2], &[1]]);
        let rows: [&[i64]; 4] = [&[2, 3, 5, 2, 7, 4], &[2, 3, 6], &[1, 2], &[1, 1, 1]];
        check(&tokens(20, true, None), &texts, &rows);
    }

    #[test]
    fn words_have_shapes() {
        let tokens = |symbols, max_length| Tokens::Vocabulary {
            size: 30,
            least_count: 0,
            cut: Cut { symbols, shapes: true, max_length },
        };
        let texts = ["WIN £500 now2day", "Win I 08701234567 ÄB", "FREE", "12 NOW"];
        let words = check(&tokens(false, None), &texts, &[&[2, 3, 5, 9, 4, 7], &[3, 8, 6, 2, 10], &[2, 1], &[1, 2, 9]]);
        let expected = "<pad> <unknown> <capitals> win 0 000 000000 day i now äb";
        assert_eq!(words.map(|words| words.join(" ")).as_deref(), Some(expected));
        check(&tokens(true, Some(3)), &texts, &[&[2, 3, 10], &[3, 8, 6], &[2, 1], &[1, 2, 9]]);
    }

    #[test]
    fn hashed_words_need_no_vocabulary() {
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        let tokens = Tokens::Hash { size: 11, cut: Cut::default() };
        let id = |word: &str| 1 + i64::try_from(fnv1a(word.as_bytes()) % 10).expect("small");
        check(&tokens, &["A b", "", "b"], &[&[id("a"), id("b")], &[id("")], &[id("b")]]);
    }
}
