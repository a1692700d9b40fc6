//! The keys of a descriptor's table as types, for its JSON Schema. [`Descriptor::from_table`](super::Descriptor::from_table)
//! takes them one after the other; a test holds the two together.
#![expect(dead_code, reason = "only the schema of these types is asked for")]

use indexmap::IndexMap;
use schemars::JsonSchema;

use super::augment::Augmentation;
use super::cifar::LabelByte;
use super::clean::Clean;
use super::normalize::Normalize;
use super::sources::{ArrayKeys, IdxKeys};
use super::split::Shares;
use super::table::Role;
use super::text::TokenKeys;
use super::tree::FieldValue;
use super::wav::Features;

/// Where data is and what to make of it. Paths are relative to the file's folder; they may begin with `${ALUDEL_DATA}`.
#[derive(JsonSchema)]
#[schemars(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Data {
    /// Arrays in the format of MNIST.
    Idx(Idx),
    /// NumPy's arrays, those of whole numbers given on as they are.
    Npz(Npz),
    /// A table, each column with a role.
    Csv(Table),
    /// A table with tabs between its cells and no header.
    Text(Table),
    /// CIFAR's binary layout.
    Cifar(Cifar),
    /// PNG and JPEG files.
    Images(Images),
    /// Recordings.
    Wav(Wav),
    /// The text format of the UCR and UEA archives.
    Ts(Series),
    /// 1,797 pictures of handwritten digits that come with aludel.
    Digits(Common),
}

/// The keys of every kind.
#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Common {
    /// The name of the only input; `x`, or `input_ids` for text, where it is not given.
    input: Option<String>,
    /// The shape of a sample of the only input in batches, with as many elements as it is read with.
    shape: Option<Vec<usize>>,
    /// The names of the classes, in the order of their numbers.
    classes: Option<Vec<String>>,
    /// What the training files give to the other splits.
    split: Option<Shares>,
    /// How quantities are brought to a common scale.
    normalize: Option<Normalize>,
    /// Which samples and columns are looked for and left out.
    clean: Option<Vec<Clean>>,
    /// What is done to training samples, in this order.
    augment: Option<Vec<Augmentation>>,
}

/// What each split is read from.
#[derive(JsonSchema)]
struct Files<T> {
    /// Where training samples are.
    train: T,
    /// Where validation samples are.
    validation: Option<T>,
    /// Where calibration samples are.
    calibration: Option<T>,
    /// Where test samples are.
    test: Option<T>,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Idx {
    #[schemars(flatten)]
    files: Files<IdxKeys>,
    #[schemars(flatten)]
    common: Common,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Npz {
    #[schemars(flatten)]
    files: Files<ArrayKeys>,
    /// The array with the labels; `label` where it is not given.
    label: Option<String>,
    #[schemars(flatten)]
    common: Common,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Table {
    #[schemars(flatten)]
    files: Files<String>,
    /// The role of a column by its name in the header, or by its number from 0; `*` for the columns not named.
    columns: IndexMap<String, Role>,
    /// What is between two cells, one ASCII character.
    delimiter: Option<String>,
    /// Whether the first line names the columns.
    header: Option<bool>,
    /// Whether a cell may stand in double quotes.
    quotes: Option<bool>,
    /// How text becomes numbers.
    tokens: Option<TokenKeys>,
    #[schemars(flatten)]
    common: Common,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Cifar {
    #[schemars(flatten)]
    files: Files<String>,
    /// Which byte before a picture is its label.
    label_byte: Option<LabelByte>,
    #[schemars(flatten)]
    common: Common,
}

/// Files in a folder or an archive.
#[derive(JsonSchema)]
struct Tree {
    /// The folder, or the `.tar` or `.tar.gz` archive.
    path: String,
    /// How the end of a file's path is made, `{label}/{name}` where it is not given. A name in braces stands for one letter or
    /// more without a slash; `label` is the class.
    names: Option<String>,
    /// The values that fields of the names have in the files of the validation.
    validation: Option<IndexMap<String, Vec<FieldValue>>>,
    /// The values that fields of the names have in the files of the calibration.
    calibration: Option<IndexMap<String, Vec<FieldValue>>>,
    /// The values that fields of the names have in the files of the test.
    test: Option<IndexMap<String, Vec<FieldValue>>>,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Images {
    #[schemars(flatten)]
    tree: Tree,
    /// The height and width that pictures are brought to.
    size: Option<[u32; 2]>,
    /// 1 makes them grey, 3 red, green, blue.
    channels: Option<u8>,
    #[schemars(flatten)]
    common: Common,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Wav {
    #[schemars(flatten)]
    tree: Tree,
    /// Samples a second; all recordings must have it.
    rate: u32,
    /// What becomes of a recording.
    features: Features,
    #[schemars(flatten)]
    common: Common,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub(super) struct Series {
    #[schemars(flatten)]
    files: Files<String>,
    #[schemars(flatten)]
    common: Common,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::Descriptor;

    /// The parser names the keys of a kind where it meets one that it does not know.
    #[test]
    fn the_schema_has_the_keys_that_the_parser_takes() {
        let needed = |kind: &str| match kind {
            "idx" => "train = { inputs = 'a' }",
            "csv" | "text" => "train = 'a'\ncolumns = {}",
            "npz" | "cifar" | "ts" => "train = 'a'",
            "images" => "path = 'a'",
            "wav" => "path = 'a'\nrate = 8000\nfeatures = { samples = 1 }",
            _ => "",
        };
        let schema = schemars::schema_for!(Descriptor);
        let forms = schema.get("oneOf").and_then(|forms| forms.as_array()).expect("a form a kind");
        let mut kinds = Vec::new();
        for keys in forms.iter().map(|form| form["properties"].as_object().expect("a table")) {
            let kind = keys["kind"]["const"].as_str().expect("each has its name");
            let text = format!("kind = '{kind}'\n{}\nno_key = 1", needed(kind));
            let error = Descriptor::parse(&text, Path::new("")).expect_err("there is no such key").to_string();
            let (_, taken) = error.split_once("which has ").expect("it names those that there are");
            assert_eq!(keys.keys().map(String::as_str).collect::<BTreeSet<_>>(), taken.split(", ").collect(), "{kind}");
            kinds.push(kind);
        }
        assert_eq!(super::super::descriptor::KINDS, format!("one of {}", kinds.join(", ")));
    }
}
