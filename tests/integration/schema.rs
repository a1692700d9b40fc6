//! The JSON Schema of recipes: what it takes and refuses is what the parser takes and refuses.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use aludel::recipe::pipeline::{Pipeline, schema};
use jsonschema::Validator;
use serde_json::Value;

/// A recipe with a table at every level.
const RECIPE: &str = r#"
name = "digits"
seed = 7
[data]
kind = "digits"
split = { validation = 0.1, test = 0.2 }
augment = [{ flip = { horizontal = true } }, { shift = { pixels = 1 } }]
[teacher]
arch = { resnet = { blocks = [1, 1], width = 16 } }
init = { scheme = { scaled = 0.5 } }
[teacher.train]
epochs = 3
optimizer = { sgd = { momentum = 0.5 } }
schedule = { decay = { step = { every = 0.5 } }, warm_up = 0.05 }
[student]
name = "small"
width = { channels = 0.5, groups = { "head.*" = 1.0 } }
depth = { layers = 1 }
inherit = { scale = 0.5 }
[[step]]
[step.distill]
loss = ["kd", { hint = { pairs = [["a", "b"]] }, weight = 0.1, schedule = { between = { to = 0.5 } } }]
label_loss = { huber = { delta = 2.0 } }
views = 2
[[step]]
train = { epochs = 1, loss = "huber" }
[[step]]
quantize = { to = "int8", calibrator = { percentile = 99.99 }, weights = { bits = 7 }, exclude = ["Softmax"] }
[[step]]
quantize = { runtime = "ort", calibrator = "mse", epochs = 1, temperature = 2.0 }
"#;

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).expect("the schema is one")
}

/// Holds a recipe against schema and parser; whether both take it.
#[track_caller]
fn both_take(validator: &Validator, text: &str) -> bool {
    let json: Value = toml::from_str(text).expect("TOML");
    let by_schema: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
    let by_parser = Pipeline::parse(text, Path::new(""), &[]);
    assert_eq!(by_schema.is_empty(), by_parser.is_ok(), "{text}\n{by_schema:#?}\n{by_parser:#?}");
    by_schema.is_empty()
}

/// `RECIPE` with one text in the place of another.
#[track_caller]
fn changed(from: &str, to: &str) -> String {
    assert!(RECIPE.contains(from), "{from}");
    RECIPE.replacen(from, to, 1)
}

#[test]
fn the_schema_is_valid() {
    jsonschema::draft202012::meta::validate(&schema()).expect("it is valid by the schema of schemas");
}

#[test]
fn the_recipes_of_the_repository_are_taken() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut n_recipes = 0;
    for folder in std::fs::read_dir(models).expect("models are there") {
        let path = folder.expect("models can be read").path().join("distill.toml");
        if let Ok(text) = std::fs::read_to_string(&path) {
            // where data is has no part in the grammar
            let text = text.replace("${ALUDEL_DATA}", "data");
            assert!(both_take(&validator(), &text), "{}", path.display());
            n_recipes += 1;
        }
    }
    assert!(n_recipes > 0);
}

#[test]
fn every_form_of_a_part_is_taken() {
    let validator = validator();
    let check = |from: &str, to: &str| assert!(both_take(&validator, &changed(from, to)), "{to}");
    assert!(both_take(&validator, RECIPE));
    check("seed = 7", "");
    check("{ sgd = { momentum = 0.5 } }", "\"adamw\"");
    check("{ step = { every = 0.5 } }", "\"one-cycle\"");
    check("{ scaled = 0.5 }", "\"orthogonal\"");
    check("{ channels = 0.5, groups = { \"head.*\" = 1.0 } }", "1");
    check("{ layers = 1 }", "{ keep = 0.5 }");
    check("{ scale = 0.5 }", "false");
    check("{ huber = { delta = 2.0 } }", "\"huber\"");
    check("[student]\nname = \"small\"", "[student]");
    check("[student]", "[[student]]\nname = \"assistant\"\nonnx = \"a.onnx\"\n[[student]]\nteacher = \"assistant\"");
    check("arch = { resnet = { blocks = [1, 1], width = 16 } }", "onnx = \"teacher.onnx\"");
    check(
        "[teacher]",
        "[[teacher]]\nname = \"one\"\nonnx = \"a.onnx\"\n[[teacher]]\nname = \"two\"\nweight = 2.0\nseed = 3",
    );
    check("[teacher]", "[teacher]\naugment = [{ crop = { pad = 2 } }]");
    let special = changed("[student]\nname", "[student]\nclasses = [\"3\", \"5\"]\nname");
    let special = special.replace("label_loss = { huber = { delta = 2.0 } }", "").replace(", loss = \"huber\"", "");
    assert!(both_take(&validator, &special));
    check("views = 2", "mean_teacher = true\nema = 0.99\nattack = { epsilon = 0.1, step = 0.05, steps = 2 }");
    let unlabelled = changed("[teacher]", "[unlabelled]\nkind = \"digits\"\n[teacher]");
    let unlabelled = unlabelled.replace("label_loss = { huber = { delta = 2.0 } }", "unlabelled = 1.0");
    assert!(both_take(&validator, &unlabelled));
}

#[test]
fn what_the_parser_refuses_the_schema_refuses() {
    let validator = validator();
    let check = |from: &str, to: &str| assert!(!both_take(&validator, &changed(from, to)), "{to}");
    // a key that there is not, at every level
    check("seed = 7", "seeds = 7");
    check("kind = \"digits\"", "kind = \"digits\"\ntrain = \"a\"");
    check("validation = 0.1", "valid = 0.1");
    check("[teacher]", "[unlabelled]\nkinds = \"digits\"\n[teacher]");
    check("[teacher]", "[teacher]\nname = \"one\"");
    check("[teacher]", "[[teacher]]\nweight = 1.0");
    check("[student]\nname", "[student]\nclass = [\"3\", \"5\"]\nname");
    check("[student]\nname", "[student]\narch = { mlp = {} }\nonnx = \"a.onnx\"\nname");
    check("views = 2", "attack = { epsilon = 0.1, step_size = 0.05 }");
    check("views = 2", "mean_teachers = true");
    check("pixels = 1", "pixels = 1, more = 1");
    check("init =", "embed_normalization = true\ninit =");
    check("init =", "inits =");
    check("width = 16", "widht = 16");
    check("scheme =", "schema =");
    check("epochs = 3", "epoch = 3");
    check("momentum", "moment");
    check("every =", "each =");
    check("warm_up =", "warmup =");
    check("depth =", "depht =");
    check("channels = 0.5", "channel = 0.5");
    check("layers = 1", "layer = 1");
    check("scale = 0.5", "scales = 0.5");
    check("distill]", "distil]");
    check("views =", "view =");
    check("weight = 0.1", "weights = 0.1");
    check("between = { to", "between = { until");
    check("hint = { pairs", "hint = { pair");
    check("hint = {", "hints = {");
    check("train = { epochs = 1,", "train = { epochs = 1, alpha = 0.5,");
    // a key that is missing, or has the wrong kind of value
    check("name = \"digits\"", "");
    check("kind = \"digits\"", "");
    check("arch =", "# arch =");
    check("arch =", "onnx = \"teacher.onnx\"\narch =");
    check("[teacher.train]", "[data.train]");
    check("views = 2", "views = 2\n[step.train]");
    check("seed = 7", "seed = \"7\"");
    check("seed = 7", "seed = -1");
    check("views = 2", "views = 2.5");
    check("[\"a\", \"b\"]", "[\"a\"]");
    check("loss = \"huber\"", "loss = \"kd\"");
}

/// The parser names the keys that there are where it meets one that it does not know.
#[test]
fn every_key_that_is_taken_by_hand_is_in_the_schema() {
    let schema = schema();
    let check = |from: &str, to: &str, pointer: &str| {
        let error = Pipeline::parse(&changed(from, to), Path::new(""), &[]).expect_err("there is none").to_string();
        let (_, names) = error.split_once("There are: ").expect("it names those that there are");
        let keys = schema.pointer(pointer).and_then(Value::as_object).expect("a table");
        assert_eq!(keys.keys().map(String::as_str).collect::<BTreeSet<_>>(), names.split(", ").collect());
    };
    check("seed = 7", "seeds = 7", "/properties");
    check("distill]", "distil]", "/$defs/Step/properties");
}

/// The parser names the objectives that there are where it meets one that it does not know.
#[test]
fn every_objective_has_its_name_in_the_schema() {
    let text = changed("hint = {", "hints = {");
    let error = Pipeline::parse(&text, Path::new(""), &[]).expect_err("there is none").to_string();
    let names =
        error.lines().find_map(|line| line.split_once("expected one of ")).expect("it names those that there are").1;
    let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
    assert!(names.contains(&"kd") && names.contains(&"minilm-v2"), "{names:?}");
    let validator = validator();
    for name in names {
        assert!(both_take(&validator, &changed("\"kd\"", &format!("\"{name}\""))), "{name}");
        assert!(both_take(&validator, &changed("\"kd\"", &format!("{{ {name} = {{}}, weight = 2.0 }}"))), "{name}");
        assert!(!both_take(&validator, &changed("\"kd\"", &format!("{{ {name} = {{ no_key = 1 }} }}"))), "{name}");
    }
}

#[test]
fn the_program_prints_it_and_does_nothing_else() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aludel"));
        command.arg("run").args(arguments).output().expect("the program starts")
    };
    let printed = run(&["--schema"]);
    assert!(printed.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).expect("JSON"), schema());
    for wrong in [&["recipe.toml", "--schema"][..], &["--schema", "--json"], &[]] {
        assert!(!run(wrong).status.success(), "{wrong:?}");
    }
}
