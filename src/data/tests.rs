//! Whole ways: from small files that are made here, and from the real ones, to batches.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::graph::tensor::Tensor;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("the disk has room");
        fs::write(path, bytes).expect("the disk has room");
    }
    folder
}

fn load(folder: &Path, descriptor: &str) -> Result<Arc<Dataset>, String> {
    let descriptor = Descriptor::parse(descriptor, folder).map_err(|error| error.to_string())?;
    Dataset::load(&descriptor).map(Arc::new).map_err(|error| error.to_string())
}

/// What a descriptor makes of these files, or a part of the error that it makes.
fn check(files: &[(&str, &[u8])], descriptor: &str, expected: Result<&str, &str>) -> Option<Arc<Dataset>> {
    let folder = folder(files);
    match (load(folder.path(), descriptor), expected) {
        (Ok(data), Ok(text)) => {
            assert_eq!(summary(&data), text);
            Some(data)
        }
        (Err(error), Err(part)) => {
            assert!(error.contains(part), "{error}");
            None
        }
        (got, expected) => panic!("{descriptor}: expected {expected:?}, got {got:?}"),
    }
}

/// `x f32 [1, 2, 2]; label i64 []; classes a,b; 3/1/0/0`
fn summary(data: &Dataset) -> String {
    let columns = data.columns().iter().map(|(name, column)| {
        let dims: Vec<String> =
            column.sample_shape().iter().map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string())).collect();
        format!("{name} {}[{}]; ", column.dtype(), dims.join(", "))
    });
    let columns: String = columns.collect();
    let sizes: Vec<String> = Split::ALL.iter().map(|&split| data.samples(split).len().to_string()).collect();
    let labels = match data.labels() {
        Labels::None => "none".to_owned(),
        Labels::Classes(names) => names.join(","),
        Labels::Numbers(names) => format!("numbers {}", names.join(",")),
        Labels::Flags(names) => format!("flags {}", names.join(",")),
    };
    format!("{columns}{labels}; {}", sizes.join("/"))
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().expect("f32")
}

const TWO_PICTURES: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255, 51, 102];
const TWO_LABELS: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 1, 0];

#[test]
fn idx_pictures_become_batches() {
    let files = [("x", TWO_PICTURES), ("y", TWO_LABELS), ("z", &TWO_LABELS[..9])];
    let descriptor = "kind = 'idx'\ntrain = { inputs = 'x', labels = 'y' }\nnormalize = 'unit'\n";
    let data = check(&files, descriptor, Ok("x f32[1, 1, 2]; label i64[]; 0,1; 2/0/0/0")).expect("data");
    let batch = data.batch(&[1, 0]).expect("two samples");
    assert_eq!(floats(&batch["x"]), [0.2, 0.4, 0.0, 1.0]);
    assert_eq!(batch["label"].to_vec::<i64>(), Ok(vec![0, 1]));
    let flat = format!("{descriptor}shape = [2]\nclasses = ['no', 'yes']\ninput = 'pixels'");
    check(&files, &flat, Ok("pixels f32[2]; label i64[]; no,yes; 2/0/0/0"));
    check(&files, "kind = 'idx'\ntrain = { inputs = 'x' }", Ok("x f32[1, 1, 2]; none; 2/0/0/0"));
    check(&files, &format!("{descriptor}shape = [3]"), Err("`shape`: a sample has the shape [1, 1, 2]"));
    check(
        &files,
        &format!("{descriptor}classes = ['one']"),
        Err("x, sample 0: label 1 is not among the 1 classes: one; mend"),
    );
    check(&files, "kind = 'idx'\ntrain = { inputs = 'x', labels = 'z' }", Err("z: says its shape is [2]"));
    check(
        &files,
        "kind = 'idx'\ntrain = { inputs = 'x', labels = 'x' }",
        Err("labels of shape [2, 1, 2] for 2 samples"),
    );
    check(&files, "kind = 'idx'\ntrain = { inputs = 'none' }", Err("none: No such file"));
    check(&files, "kind = 'idx'\ntrain = { input = 'x' }", Err("`train`: unknown field `input`"));
}

const TABLE: &str = "a,b,colour,kind\n1,2,red,cat\n3,,blue,dog\n1,2,red,cat\n5,2,green,cow\n";

#[test]
fn tables_become_rows_of_numbers() {
    let table = [("t.csv", TABLE.as_bytes()), ("short.csv", &TABLE.as_bytes()[..24]), ("u.csv", b"a,b\n1,x\n2,3,4\n")];
    let base = "kind = 'csv'\ntrain = 't.csv'\ncolumns = { a = 'number', b = 'number', colour = 'category', kind = 'class' }\n";
    check(&table, base, Err("t.csv, line 3: element 1 of `x` is missing"));
    let clean = format!("{base}clean = ['nan', 'duplicates', 'constant-columns']");
    let data = check(&table, &clean, Ok("x f32[3]; label i64[]; cat,cow,dog; 2/0/0/0")).expect("data");
    let found: Vec<Found> = data.findings().iter().map(|finding| finding.found).collect();
    assert_eq!(found, [Found::Nan, Found::Duplicate, Found::ConstantColumn, Found::ConstantColumn]);
    assert!(data.findings()[1].to_string().contains("line 4: has the inputs of"), "{:?}", data.findings());
    assert_eq!(floats(&data.batch(&[3]).expect("a sample")["x"]), [5.0, 1.0, 0.0]);
    let targets =
        "kind = 'csv'\ntrain = 't.csv'\ncolumns = { b = 'ignore', colour = 'ignore', kind = 'ignore', '*' = 'target' }";
    check(&table, targets, Err("has no input"));
    let regression = "kind = 'csv'\ntrain = 'u.csv'\ncolumns = { a = 'number', b = 'target' }";
    check(&table, regression, Err("u.csv, line 2: `x` in column `b` is no number"));
    let unequal = "kind = 'csv'\ntrain = 'u.csv'\ncolumns = { a = 'number' }";
    check(&table, unequal, Err("u.csv, line 3: has 3 cells where there are 2 columns"));
    check(
        &table,
        "kind = 'csv'\ntrain = 't.csv'\ncolumns = { c = 'number' }",
        Err("names `c`, but the columns are a, b"),
    );
    check(&table, "kind = 'csv'\ntrain = 't.csv'", Err("`columns`: is missing"));
    let unseen = [("a.csv", &b"1,red\n"[..]), ("b.csv", b"1,blue\n")];
    let split =
        "kind = 'csv'\ntrain = 'a.csv'\ntest = 'b.csv'\nheader = false\ncolumns = { '0' = 'number', '1' = 'category' }";
    let data = check(&unseen, split, Ok("x f32[2]; none; 1/0/0/1")).expect("data");
    assert!(
        data.findings()[0].to_string().ends_with("b.csv, line 1: category `blue` of `1` does not occur in training")
    );
    let without = "kind = 'csv'\ntrain = 't.csv'\nheader = false\ncolumns = { '0' = 'class', '2' = 'category' }";
    check(&table, without, Ok("x f32[4]; label i64[]; 1,3,5,a; 5/0/0/0"));
}

#[test]
fn labels_of_a_test_file_must_be_known() {
    let files = [("a.csv", &b"1,x\n2,y\n"[..]), ("b.csv", b"3,x\n4,z\n")];
    let base =
        "kind = 'csv'\ntrain = 'a.csv'\ntest = 'b.csv'\nheader = false\ncolumns = { '0' = 'number', '1' = 'class' }\n";
    check(&files, base, Err("b.csv, line 2: label `z` is not among the 2 classes: x, y"));
    let data =
        check(&files, &format!("{base}clean = ['labels']"), Ok("x f32[1]; label i64[]; x,y; 2/0/0/1")).expect("data");
    assert_eq!(data.origin(data.samples(Split::Test)[0]).rsplit('/').next(), Some("b.csv, line 1"));
}

#[test]
fn arrays_of_numpy_go_in_by_their_names() {
    let npy = |kind: &str, shape: &str, bytes: &[u8]| {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        [b"\x93NUMPY\x01\x00\x76\x00", format!("{header:<117}\n").as_bytes(), bytes].concat()
    };
    let x = npy("<f4", "(2, 2)", bytemuck::cast_slice(&[1f32, 2.0, 3.0, 4.0]));
    let ids = npy("<i8", "(2, 1)", bytemuck::cast_slice(&[7i64, 8]));
    let y = npy("|u1", "(2,)", &[1, 0]);
    let wrong = npy("|u1", "(3,)", &[1, 0, 0]);
    let files = [("x.npy", &x[..]), ("ids.npy", &ids), ("y.npy", &y), ("w.npy", &wrong), ("cut.npy", &x[..130])];
    let all = "kind = 'npz'\ntrain = { x = 'x.npy', ids = 'ids.npy', label = 'y.npy' }\nnormalize = 'standard'";
    let data = check(&files, all, Ok("ids i64[1]; x f32[2]; label i64[]; 0,1; 2/0/0/0")).expect("data");
    let batch = data.batch(&[0, 1]).expect("two samples");
    assert_eq!(floats(&batch["x"]), [-1.0, -1.0, 1.0, 1.0]);
    assert_eq!(batch["ids"].to_vec::<i64>(), Ok(vec![7, 8]));
    check(
        &files,
        "kind = 'npz'\ntrain = { x = 'x.npy', label = 'w.npy' }",
        Err("x.npy: array `x` of shape [2, 2] has no row for each of the 3 of `label`"),
    );
    check(
        &files,
        "kind = 'npz'\ntrain = { x = 'cut.npy' }",
        Err("array `cut`: ends before its rows do; save it again"),
    );
}

fn digits(extra: &str) -> Arc<Dataset> {
    load(Path::new(""), &format!("kind = 'digits'\n{extra}")).expect("compiled in")
}

#[test]
fn digits_are_compiled_in() {
    let data = digits("normalize = 'unit'\nsplit = { validation = 0.1, test = 0.2 }");
    assert_eq!(summary(&data), "x f32[1, 8, 8]; label i64[]; 0,1,2,3,4,5,6,7,8,9; 1258/180/0/359");
    let all = data.batch(&(0..1797).collect::<Vec<_>>()).expect("all samples");
    let greatest = floats(&all["x"]).into_iter().fold(0.0, f32::max);
    assert_eq!(greatest, 1.0);
    assert_eq!(data.class_counts(Split::Train).iter().sum::<usize>(), 1258);
}

fn loader(data: &Arc<Dataset>, options: LoaderOptions) -> Loader {
    Loader::new(data, Split::Train, options).expect("there are training samples")
}

#[test]
fn batches_are_the_same_however_they_are_asked_for() {
    let data = digits("normalize = 'standard'");
    let augment = vec![Augmentation::Shift { pixels: 1 }, Augmentation::Mixup { alpha: 0.4 }];
    let options = LoaderOptions { batch_size: 100, shuffle: true, seed: 3, augment, ..LoaderOptions::default() };
    let ahead = loader(&data, options.clone());
    let here = loader(&data, LoaderOptions { n_ahead: 0, ..options });
    let all: Vec<Batch> = ahead.batches(2, 0).collect::<Result<_, _>>().expect("batches");
    assert_eq!(all.len(), 18);
    assert_eq!(all[17]["x"].shape(), [97, 1, 8, 8]);
    assert_eq!(all[0]["label"].shape(), [100, 10]);
    let later: Vec<Batch> = here.batches(2, 5).collect::<Result<_, _>>().expect("batches");
    assert_eq!(all[5..], later[..]);
    assert_eq!(all[9], ahead.batch(2, 9).expect("a batch"));
    assert_ne!(all[0], ahead.batch(3, 0).expect("a batch"));
    let mut order = ahead.order(2);
    assert_eq!(ahead.view(&order[..100], 2).expect("samples"), all[0]);
    order.sort_unstable();
    assert_eq!(order, data.samples(Split::Train));
    assert!(ahead.batch(0, 18).is_err());
    drop(ahead.batches(0, 0));
}

#[test]
fn what_cannot_be_given_out_is_refused() {
    let data = digits("");
    let refuse = |split, options, part: &str| {
        let error = Loader::new(&data, split, options).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    };
    refuse(Split::Test, LoaderOptions::default(), "no test samples; name its files under `test`");
    refuse(Split::Train, LoaderOptions { batch_size: 0, ..LoaderOptions::default() }, "batch of 0");
    let augment = vec![Augmentation::Mixup { alpha: 0.0 }];
    refuse(Split::Train, LoaderOptions { augment, ..LoaderOptions::default() }, "mixup: `alpha` is 0");
    let options = LoaderOptions { drop_last: true, ..LoaderOptions::default() };
    assert_eq!(loader(&data, options).n_batches(), 56);
    assert!(data.batch(&[1797]).is_err());
}

/// What is in the folder `ALUDEL_DATA`; nothing, said aloud, where it is not set.
fn real(descriptor: &str, expected: &str) {
    if std::env::var_os("ALUDEL_DATA").is_none() {
        use std::io::Write as _;
        let thread = std::thread::current();
        let text = format!("left out: {}: ALUDEL_DATA is not set\n", thread.name().unwrap_or("a test"));
        let _ = std::io::stderr().write_all(text.as_bytes());
        return;
    }
    let data = load(Path::new(""), descriptor).expect("real data is sound");
    assert_eq!(summary(&data), expected);
}

#[test]
fn real_pictures_in_idx() {
    let files = |folder: &str, test: &str| {
        let pair = |name: &str| {
            let path = format!("${{ALUDEL_DATA}}/{folder}/{name}");
            format!("{{ inputs = '{path}-images-idx3-ubyte.gz', labels = '{path}-labels-idx1-ubyte.gz' }}")
        };
        format!("kind = 'idx'\ntrain = {}\ntest = {}", pair("train"), pair(test))
    };
    let columns = "x f32[1, 28, 28]; label i64[]; 0,1,2,3,4,5,6,7,8,9";
    real(&files("mnist", "t10k"), &format!("{columns}; 12000/0/0/10000"));
    let split = "normalize = 'standard'\nsplit = { validation = 0.1, calibration = 0.01 }";
    real(&format!("{}\n{split}", files("fashion-mnist", "test")), &format!("{columns}; 26700/3000/300/5000"));
}

#[test]
fn real_pictures_in_cifar_s_layout() {
    let path = "${ALUDEL_DATA}/cifar10-subset";
    let descriptor = format!(
        "kind = 'cifar'\ntrain = '{path}/cifar10_train.bin.gz'\nvalidation = '{path}/cifar10_val.bin.gz'\n\
         normalize = 'standard'\nclean = ['duplicates']"
    );
    real(&descriptor, "x f32[3, 32, 32]; label i64[]; 0,1,2,3,4,5,6,7,8,9; 4000/1000/0/0");
}

#[test]
fn real_series() {
    let files = |name: &str| {
        let path = format!("${{ALUDEL_DATA}}/timeseries/{name}");
        format!("kind = 'ts'\ntrain = '{path}_TRAIN.ts'\ntest = '{path}_TEST.ts'\nnormalize = 'standard'")
    };
    let ragged = "x f32[?, 12]; lengths i64[]; mask f32[?]; label i64[]; 1,2,3,4,5,6,7,8,9; 270/0/0/370";
    real(&files("JapaneseVowels"), ragged);
    real(&files("BasicMotions"), "x f32[100, 6]; label i64[]; Badminton,Running,Standing,Walking; 40/0/0/40");
    real(&files("ItalyPowerDemand"), "x f32[24, 1]; label i64[]; 1,2; 67/0/0/1029");
    real(&files("OSULeaf"), "x f32[427, 1]; label i64[]; 1,2,3,4,5,6; 200/0/0/242");
}

#[test]
fn real_text() {
    let sms = "kind = 'text'\ntrain = '${ALUDEL_DATA}/sms-spam/train.tsv'\ntest = '${ALUDEL_DATA}/sms-spam/test.tsv'\n\
               columns = { '0' = 'class', '1' = 'text' }\n";
    let vocabulary = "tokens = { kind = 'vocabulary', size = 4000, max_length = 64, symbols = true }";
    let columns = "input_ids i64[?]; attention_mask i64[?]; ";
    real(&format!("{sms}{vocabulary}"), &format!("{columns}label i64[]; ham,spam; 4132/0/0/1033"));
    let sst2 = "kind = 'text'\ntrain = '${ALUDEL_DATA}/sst2/train.tsv'\nvalidation = '${ALUDEL_DATA}/sst2/dev.tsv'\n\
                test = '${ALUDEL_DATA}/sst2/test.tsv'\ncolumns = { '0' = 'text', '1' = 'class' }\n";
    let tokenizer =
        "tokens = { kind = 'tokenizer', path = '${ALUDEL_DATA}/minilm-l6/tokenizer.json', max_length = 32 }";
    real(&format!("{sst2}{tokenizer}"), &format!("{columns}token_type_ids i64[?]; label i64[]; 0,1; 6920/872/0/1821"));
}

#[test]
fn real_recordings() {
    let descriptor = "kind = 'wav'\npath = '${ALUDEL_DATA}/fsdd/recordings.tar.gz'\nrate = 8000\n\
                      names = '{label}_{speaker}_{index}.wav'\ntest = { index = [0, 1, 2, 3, 4] }\n\
                      features = { mel = { bands = 40, frames = 64, frame = 256, hop = 128 } }\nnormalize = 'standard'";
    real(descriptor, "x f32[1, 40, 64]; label i64[]; 0,1,2,3,4,5,6,7,8,9; 2700/0/0/300");
}

/// Raw batches, normalised from outside, are the batches that the data normalises: to the bit where nothing is changed.
#[test]
fn raw_batches_come_to_the_same_numbers() {
    let check = |descriptor: &str, augment: &[Augmentation], tolerance: f32| {
        let data = check_raw(descriptor);
        let column = data.columns().get("x").expect("the input");
        let normalization = column.normalization().expect("it is asked for").clone();
        let [mean, std] = column.broadcast_normalization().expect("one number of channels").expect("it is asked for");
        let raw = Arc::new(data.with_raw("x", normalization.clone()).expect("its own normalisation"));
        let batch = |data| {
            let options = LoaderOptions { augment: augment.to_vec(), ..LoaderOptions::default() };
            loader(data, options).batch(0, 0).expect("all samples")["x"].clone()
        };
        let (expected, got) = (batch(&data), batch(&raw));
        assert_eq!(got.shape(), expected.shape());
        let [mean, std] = [mean, std].map(|tensor| floats(&tensor));
        let size: usize = got.shape()[1..].iter().product();
        for (idx, (raw, expected)) in floats(&got).into_iter().zip(floats(&expected)).enumerate() {
            let channel = if mean.len() == size { idx % size } else { idx % mean.len() };
            let apart = ((raw - mean[channel]) / std[channel] - expected).abs();
            assert!(apart <= tolerance, "{descriptor}: {raw} is not {expected}");
        }
        let wrong = Normalization { mean: vec![0.0; 5], std: vec![1.0; 5], channels_last: true };
        for (input, normalization) in [("y", normalization), ("label", wrong.clone()), ("x", wrong)] {
            assert!(data.with_raw(input, normalization).is_err(), "{input}");
        }
    };
    let noise = [Augmentation::Noise { std: 0.5 }];
    for augment in [&[][..], &noise] {
        let tolerance = if augment.is_empty() { 0.0 } else { 1e-5 };
        check("kind = 'ts'\ntrain = 's.ts'\nnormalize = 'standard'", augment, tolerance);
        check("kind = 'digits'\nnormalize = 'unit'", augment, tolerance);
        check("kind = 'digits'\nnormalize = 'standard'\nshape = [64]", augment, tolerance);
        let csv = "kind = 'csv'\ntrain = 't.csv'\ncolumns = { kind = 'class', '*' = 'number' }";
        check(&format!("{csv}\nnormalize = 'standard'\nshape = [2, 1]"), augment, tolerance);
    }
}

fn check_raw(descriptor: &str) -> Arc<Dataset> {
    let folder = folder(&[("s.ts", SERIES), ("t.csv", b"a,b,kind\n1,20,p\n3,50,q\n4,10,q\n")]);
    load(folder.path(), descriptor).unwrap_or_else(|error| panic!("{descriptor}: {error}"))
}

const SERIES: &[u8] = b"@univariate true\n@classLabel true a b\n@data\n1,2,3:a\n4:b\n5,6:a\n";

#[test]
fn series_are_padded_to_the_longest_or_as_asked() {
    let files = [("s.ts", SERIES)];
    let expected = "x f32[?, 1]; lengths i64[]; mask f32[?]; label i64[]; a,b; 3/0/0/0";
    let data = check(&files, "kind = 'ts'\ntrain = 's.ts'", Ok(expected)).expect("data");
    let with = |length, buckets, samples: &[usize]| {
        let loader = loader(&data, LoaderOptions { batch_size: 2, length, buckets, ..LoaderOptions::default() });
        (loader.view(samples, 0), loader.order(0))
    };
    let (batch, _) = with(Length::Batch, false, &[1, 2]);
    let batch = batch.expect("two samples");
    assert_eq!((batch["x"].shape(), floats(&batch["x"])), (&[2, 2, 1][..], vec![4.0, 0.0, 5.0, 6.0]));
    assert_eq!(floats(&batch["mask"]), [1.0, 0.0, 1.0, 1.0]);
    assert_eq!(batch["lengths"].to_vec::<i64>(), Ok(vec![1, 2]));
    assert_eq!(batch["label"].to_vec::<i64>(), Ok(vec![1, 0]));
    let shape =
        |length| with(length, false, &[1]).0.map(|batch| batch["x"].shape()[1]).map_err(|error| error.to_string());
    assert_eq!(shape(Length::Longest), Ok(3));
    assert_eq!(shape(Length::Multiple(4)), Ok(4));
    assert_eq!(shape(Length::Fixed(5)), Ok(5));
    let error = with(Length::Fixed(2), false, &[0]).0.expect_err("3 are more than 2").to_string();
    assert!(error.contains("has the length 3, but batches the length 2"), "{error}");
    assert_eq!(with(Length::Batch, true, &[0]).1, [0, 2, 1]);
    let options = LoaderOptions { batch_size: 1, shuffle: true, buckets: true, ..LoaderOptions::default() };
    let orders: Vec<Vec<usize>> = (0..20).map(|epoch| loader(&data, options.clone()).order(epoch)).collect();
    assert!(orders.iter().any(|order| *order != orders[0]));
    for mut order in orders {
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    }
    let other = [("s.ts", SERIES), ("two.ts", b"@classLabel true a b\n@data\n1,2:3,4:a\n")];
    check(
        &other,
        "kind = 'ts'\ntrain = 's.ts'\ntest = 'two.ts'",
        Err("two.ts: a frame of `x` has the shape [2], but [1]"),
    );
    check(&files, "kind = 'ts'\ntrain = 's.ts'\nshape = [3]", Err("`shape`"));
}

#[test]
fn an_error_of_the_thread_reaches_the_reader_and_ends_the_batches() {
    let data = check(
        &[("s.ts", SERIES)],
        "kind = 'ts'\ntrain = 's.ts'",
        Ok("x f32[?, 1]; lengths i64[]; mask f32[?]; label i64[]; a,b; 3/0/0/0"),
    );
    let data = data.expect("data");
    let options = LoaderOptions { batch_size: 1, length: Length::Fixed(2), ..LoaderOptions::default() };
    for n_ahead in [0, 2] {
        let mut batches = loader(&data, LoaderOptions { n_ahead, ..options.clone() }).batches(0, 0);
        assert!(batches.next().expect("an error").is_err());
        assert!(batches.next().is_none());
    }
}

#[test]
fn text_is_cut_into_words() {
    let files = [("t.tsv", &b"spam\tbuy \"now\nham\tnow then now\n"[..])];
    let base = "kind = 'text'\ntrain = 't.tsv'\ncolumns = { '0' = 'class', '1' = 'text' }\n";
    let words = format!("{base}tokens = {{ kind = 'vocabulary', size = 10 }}\n");
    let expected = "input_ids i64[?]; attention_mask i64[?]; label i64[]; ham,spam; 2/0/0/0";
    let data = check(&files, &words, Ok(expected)).expect("data");
    assert_eq!(data.vocabulary().map(|words| words.join(" ")).as_deref(), Some("<pad> <unknown> now buy then"));
    let batch = data.batch(&[0, 1]).expect("two samples");
    assert_eq!(batch["input_ids"].to_vec::<i64>(), Ok(vec![3, 2, 0, 2, 4, 2]));
    assert_eq!(batch["attention_mask"].to_vec::<i64>(), Ok(vec![1, 1, 0, 1, 1, 1]));
    let shapes = format!("{base}tokens = {{ kind = 'hash', size = 10, symbols = true, shapes = true }}\n");
    let hashed = check(&files, &shapes, Ok(expected)).expect("data");
    assert_eq!((data.n_tokens(), hashed.n_tokens(), hashed.vocabulary()), (Some(5), Some(10), None));
    check(&files, base, Err("`tokens`: is missing"));
    check(&files, &format!("{base}tokens = {{ kind = 'hash', size = 2 }}"), Err("`size` is 2"));
    check(&files, &format!("{base}tokens = {{ kind = 'words' }}"), Err("`tokens`: unknown variant `words`"));
    check(&files, &format!("{base}tokens = {{ kind = 'tokenizer', path = 't.tsv' }}"), Err("is no tokenizer.json"));
    check(&[("t.tsv", b"\xff\xfe\t1\n")], base, Err("t.tsv, line 1: is no UTF-8"));
}

fn png(width: u32, height: u32, grey: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::GrayImage::from_pixel(width, height, image::Luma([grey]));
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("in memory");
    bytes.into_inner()
}

#[test]
fn pictures_are_classed_by_folder() {
    let (small, large) = (png(4, 2, 100), png(8, 4, 200));
    let files = [
        ("p/cat/1.png", &small[..]),
        ("p/dog/1.png", &small),
        ("p/dog/2.PNG", &large),
        ("p/dog/.hidden.png", b"x"),
        ("p/n.txt", b""),
    ];
    let base = "kind = 'images'\npath = 'p'\n";
    let sized = format!("{base}size = [2, 4]\nchannels = 1\ntest = {{ name = ['2.PNG'] }}");
    let data = check(&files, &sized, Ok("x f32[1, 2, 4]; label i64[]; cat,dog; 2/0/0/1")).expect("data");
    assert_eq!(floats(&data.batch(&[2]).expect("a sample")["x"]), [200.0; 8]);
    assert!(data.origin(2).ends_with("p, dog/2.PNG"), "{}", data.origin(2));
    check(&files, base, Err("dog/2.PNG: has the shape [3, 4, 8], where the first file has [3, 2, 4]; set `size`"));
    check(&files, &format!("{base}channels = 2"), Err("`channels`: is 2"));
    check(&files, &format!("{base}names = '{{label}}-{{name}}'"), Err("does not follow `{label}-{name}`"));
    check(&files, &format!("{base}test = {{ age = ['1'] }}"), Err("`test`: `age` is no field"));
    check(&files, &format!("{base}test = {{ label = ['cow'] }}"), Err("`test`: no file in"));
    check(&[("p/a/1.png", &small[..40])], base, Err("a/1.png: cannot be decoded"));
    check(&[("p/a/1.txt", b"")], base, Err("holds no file that ends in png, jpg, jpeg"));
    // A header that claims more pixels than the file has bytes for.
    let mut lying = small.clone();
    lying[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    lying[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let mut hash = flate2::Crc::new();
    hash.update(&lying[12..29]);
    lying[29..33].copy_from_slice(&hash.sum().to_be_bytes());
    check(&[("p/a/1.png", &lying)], base, Err("claims 60000 × 60000 pixels"));
}

#[test]
fn recordings_come_from_folders_and_archives() {
    let (one, two, fast) = (
        wav::tests::file(1, 8000, &[0, 16384]),
        wav::tests::file(1, 8000, &[-16384]),
        wav::tests::file(1, 16000, &[0]),
    );
    let files = [("w/7_ann_0.wav", &one[..]), ("w/8_bob_1.wav", &two)];
    let base = "kind = 'wav'\nrate = 8000\nnames = '{label}_{speaker}_{index}.wav'\nfeatures = { samples = 2 }\n";
    let folder_s = format!("{base}path = 'w'");
    let data = check(&files, &folder_s, Ok("x f32[1, 2]; label i64[]; 7,8; 2/0/0/0")).expect("data");
    assert_eq!(floats(&data.batch(&[0, 1]).expect("two samples")["x"]), [0.0, 0.5, -0.5, 0.0]);
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(number::wide(bytes.len()));
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).expect("in memory");
    }
    let archive = archive.into_inner().and_then(flate2::write::GzEncoder::finish).expect("in memory");
    let packed = format!("{base}path = 'w.tar.gz'\ntest = {{ speaker = ['bob'] }}\nclasses = ['7', '8']");
    let data = check(&[("w.tar.gz", &archive)], &packed, Ok("x f32[1, 2]; label i64[]; 7,8; 1/0/0/1")).expect("data");
    assert_eq!(floats(&data.batch(&[1]).expect("a sample")["x"]), [-0.5, 0.0]);
    check(&[("w.tar.gz", &archive[..archive.len() / 2])], &packed, Err("is no whole tar archive"));
    check(&[("w/7_ann_0.wav", &fast)], &folder_s, Err("has 16000 samples a second, not 8000; resample it"));
    check(&[("w/7_ann_0.wav", &one[..20])], &folder_s, Err("w, 7_ann_0.wav: is no WAV file"));
    let mel = "kind = 'wav'\nrate = 8000\nnames = '{label}_{index}.wav'\npath = 'w'\nfeatures = { mel = { bands = 4, frames = 2, frame = 64, hop = 32 } }";
    check(&[("w/a_1.wav", &one)], mel, Ok("x f32[1, 4, 2]; label i64[]; a; 1/0/0/0"));
    check(
        &files,
        "kind = 'wav'\nrate = 8000\npath = 'w'\nfeatures = { mfcc = 3 }",
        Err("`features`: unknown variant `mfcc`"),
    );
}

#[test]
fn unlabelled_samples_come_evenly_and_each_once_before_any_again() {
    let (few, all) = (digits("split = { validation = 0.1, calibration = 0.8 }"), digits(""));
    let n_labelled = few.samples(Split::Train).len();
    let joined = Arc::new(few.with_unlabelled(&all).expect("alike"));
    // what is validated here too is none of them
    assert_eq!(joined.unlabelled().len(), all.n_samples() - few.samples(Split::Validation).len());
    assert_eq!(joined.samples(Split::Train), few.samples(Split::Train));
    let options = LoaderOptions { batch_size: 40, shuffle: true, unlabelled: 3.0, ..LoaderOptions::default() };
    let loader = Loader::new(&joined, Split::Train, options).expect("there are some");
    let mut seen = std::collections::BTreeSet::new();
    for epoch in 0..2 {
        let order = loader.order(epoch);
        assert_eq!(order.len(), 4 * n_labelled);
        for batch in order.chunks_exact(40) {
            let n = batch.iter().filter(|&&sample| joined.class(sample).is_none()).count();
            assert!((29..=31).contains(&n), "{n}");
        }
        for sample in order.into_iter().filter(|&sample| joined.class(sample).is_none()) {
            assert!(seen.insert(sample), "{sample} comes a second time after {}", seen.len());
        }
    }
    let batch = loader.batch(0, 0).expect("the first");
    let labels = batch[LABEL].as_slice::<i64>().expect("classes");
    assert!(labels.iter().filter(|&&label| label == NO_CLASS).count() >= 29);
    // values of the second data are its own
    let own = all.batch(&[5]).expect("there is one");
    let other = joined.batch(&[few.n_samples() + 5]).expect("there is one");
    let (name, _) = all.inputs().next().expect("pictures");
    assert_eq!(own[name], other[name]);
}

#[test]
fn a_specialist_sees_its_classes_and_what_is_taken_for_them() {
    let data = digits("split = { validation = 0.1, test = 0.2 }");
    // somebody who takes every seventh sample for a 4
    let routed =
        data.samples(Split::Train).iter().enumerate().map(|(idx, &sample)| (sample, if idx % 7 == 0 { 4 } else { 0 }));
    let special = data.for_specialist(&[4, 9], &routed.collect()).expect("there are such");
    assert_eq!(special.classes(), ["4", "9"]);
    assert_eq!(special.samples(Split::Train).len(), data.samples(Split::Train).len().div_ceil(7));
    let of = |sample: &usize| special.class(*sample).map(|class| [4, 9][class]);
    let own = |sample: &usize| data.class(*sample).filter(|class| [4, 9].contains(class));
    for split in [Split::Train, Split::Validation, Split::Test] {
        assert!(special.samples(split).iter().all(|sample| of(sample) == own(sample)));
    }
    assert!(special.samples(Split::Test).iter().all(|sample| of(sample).is_some()));
    assert!(special.samples(Split::Train).iter().any(|sample| of(sample).is_none()));
    assert!(data.for_specialist(&[10], &Default::default()).is_err());
}
