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
    let data = check(&files, all, Ok("x f32[2]; ids i64[1]; label i64[]; 0,1; 2/0/0/0")).expect("data");
    let batch = data.batch(&[0, 1]).expect("two samples");
    assert_eq!(floats(&batch["x"]), [-1.0, -1.0, 1.0, 1.0]);
    assert_eq!(batch["ids"].to_vec::<i64>(), Ok(vec![7, 8]));
    check(&files, "kind = 'npz'\ntrain = { x = 'x.npy', label = 'w.npy' }", Err("array `label` of shape [3]"));
    check(&files, "kind = 'npz'\ntrain = { x = 'cut.npy' }", Err("array `cut`: claims 16 bytes"));
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
