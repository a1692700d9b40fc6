//! What is refused, and how it reads; options as TOML has them.

use std::collections::BTreeMap;

use super::{Pair, attached, ends, pairs, student, teacher_types};
use crate::compress::distill::objective::schedule::WeightSchedule;
use crate::compress::distill::objective::{Mix, Objective, Teacher, Weighted, attach};
use crate::graph::Name;
use crate::graph::tensor::DType;
use crate::learn::train::loss::Loss;

/// The shapes of the student's and the teacher's `logits`, `first` and `second`.
type Shapes<'a> = [[&'a [usize]; 2]; 3];

const PLAIN: Shapes<'_> = [[&[3], &[3]], [&[2, 4, 4], &[3, 4, 4]], [&[2, 3, 3], &[2, 3, 3]]];

#[track_caller]
fn check(shapes: Shapes<'_>, objective: Objective, expected: &str) {
    let shapes = shapes.map(|both| both.map(<[usize]>::to_vec));
    let error = attached(shapes.each_ref(), objective).expect_err("it is refused").to_string();
    assert_eq!(error, expected);
}

fn named(student: &str, teacher: &str) -> Vec<Pair> {
    vec![Pair::from([student.to_string(), teacher.to_string()])]
}

#[test]
fn values_that_are_not_there_are_refused() {
    let hint = |pairs| Objective::Hint { pairs, projection: true };
    check(
        PLAIN,
        hint(named("frist", "first")),
        "hint: the student has no value `frist` (hint: it has `first`, `logits`, `x`)",
    );
    check(
        PLAIN,
        hint(named("first", "thirst")),
        "hint: the teacher has no value `thirst` (hint: it has `first`, `logits`, `second`)",
    );
    check(PLAIN, hint(Vec::new()), "hint: it has no pairs of values (hint: name them, or have them found)");
}

#[test]
fn values_of_other_kinds_are_refused() {
    check(
        PLAIN,
        Objective::Similarity { pairs: named("first.shape", "first") },
        "similarity: the student's `first.shape` is of i64 (hint: name a value of floating point)",
    );
    check(
        PLAIN,
        Objective::Similarity { pairs: named("first.weight", "first") },
        "similarity: the first axis of the student's `first.weight` [3, 32] is not the batch (hint: name a value with the \
         batch first)",
    );
    check(
        PLAIN,
        Objective::AttentionTransfer { pairs: named("logits", "first"), power: 2 },
        "attention-transfer: the student's `logits` [batch, 3] should have 4 axes (hint: name images, [batch, channels, \
         height, width])",
    );
    check(
        PLAIN,
        Objective::Hint { pairs: named("logits", "first"), projection: true },
        "hint: the student's `logits` [batch, 3] and the teacher's `first` [batch, 3, 4, 4] have not as many axes (hint: \
         name images, sequences or features of both)",
    );
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let shapes: Shapes<'_> = [[&[3], &[4]], PLAIN[1], PLAIN[2]];
    check(
        shapes,
        Objective::Kd { temperature: None },
        "kd: the student's `logits` [batch, 3] and the teacher's `logits` [batch, 4] differ (hint: give a teacher and a \
         student of the same classes or outputs)",
    );
    check(
        PLAIN,
        Objective::Hint { pairs: pairs(&["first"]), projection: false },
        "hint: the student's `first` [batch, 2, 4, 4] and the teacher's `first` [batch, 3, 4, 4] differ (hint: set \
         `projection = true`)",
    );
    let one = Objective::Dkd { alpha: 1.0, beta: 8.0, temperature: None };
    let shapes: Shapes<'_> = [[&[1], &[1]], PLAIN[1], PLAIN[2]];
    check(shapes, one, "dkd: the student's `logits` [batch, 1] has one class (hint: use `binary`)");
    let sequences: Shapes<'_> = [PLAIN[0], [&[3, 4], &[5, 4]], PLAIN[2]];
    check(
        sequences,
        Objective::TinybertHidden { pairs: pairs(&["first"]), projection: true },
        "tinybert-hidden: the student's `first` [batch, 3, 4] and the teacher's `first` [batch, 5, 4] have not as many \
         tokens (hint: name images, sequences or features of both)",
    );
}

#[test]
fn flows_and_heads_that_do_not_fit_are_refused() {
    check(
        PLAIN,
        Objective::Fsp { pairs: pairs(&["first"]) },
        "fsp: a flow is from one pair to another, and there are 1 pairs (hint: name an even number of pairs)",
    );
    check(
        PLAIN,
        Objective::Fsp { pairs: pairs(&["second", "first"]) },
        "fsp: the student's `first` [batch, 2, 4, 4] and the teacher's `first` [batch, 3, 4, 4] differ in channels (hint: \
         name layers of as many channels, or use `hint`)",
    );
    let shapes: Shapes<'_> = [PLAIN[0], [&[2, 4, 4], &[2, 4, 4]], PLAIN[2]];
    check(
        shapes,
        Objective::Fsp { pairs: pairs(&["first", "second"]) },
        "fsp: the student's `first` [batch, 2, 4, 4] and the student's `second` [batch, 2, 3, 3] differ in resolution \
         (hint: name two layers of the same resolution in each network)",
    );
    check(
        PLAIN,
        Objective::Minilm { scores: pairs(&["second"]), values: pairs(&["first"]) },
        "minilm: the student's `first` [batch, 2, 4, 4] and the teacher's `first` [batch, 3, 4, 4] differ in heads (hint: \
         use `minilm-v2`)",
    );
    let all = |heads| Objective::MinilmV2 {
        queries: pairs(&["first"]),
        keys: pairs(&["first"]),
        values: pairs(&["first"]),
        heads,
    };
    check(
        PLAIN,
        all(Some(5)),
        "minilm-v2: 5 heads do not divide the 8 features of the student's `first` [batch, 2, 4, 4] (hint: set `heads` to \
         a divisor of both networks' features)",
    );
    let sequences: Shapes<'_> = [PLAIN[0], [&[3, 4], &[3, 4]], PLAIN[2]];
    check(
        sequences,
        all(None),
        "minilm-v2: the teacher's `first` [batch, 3, 4] does not tell the number of heads (hint: set `heads`)",
    );
}

#[test]
fn teachers_values_are_refused_by_their_types() {
    let shapes = PLAIN.map(|both| both[1].to_vec());
    let of = |change: &dyn Fn(&mut BTreeMap<Name, crate::graph::TensorType>)| {
        let mut types = teacher_types(&shapes);
        change(&mut types);
        let teacher = Teacher { ends: ends(), types: &types };
        let mix = super::mix(Objective::Similarity { pairs: pairs(&["first"]) });
        let of_student = student(&PLAIN.map(|both| both[0].to_vec()));
        attach(&of_student, &"logits".into(), &teacher, &mix, Loss::CrossEntropy, 0).map(drop)
    };
    assert!(of(&|_| {}).is_ok());
    let first =
        |types: &mut BTreeMap<Name, crate::graph::TensorType>| types.get_mut("first").expect("it is there").clone();
    let integers = of(&|types| {
        let changed = crate::graph::TensorType { dtype: DType::I64, ..first(types) };
        types.insert("first".into(), changed);
    });
    let error = integers.expect_err("it is refused").to_string();
    assert!(error.starts_with("similarity: the teacher's `first` is of i64"), "{error}");
    let unranked = of(&|types| {
        types.insert("first".into(), crate::graph::TensorType::unranked(DType::F16));
    });
    let error = unranked.expect_err("it is refused").to_string();
    assert!(error.starts_with("similarity: the teacher's `first` is f16[..], without known axes"), "{error}");
}

#[test]
fn options_out_of_range_are_refused() {
    let check = |mix: Mix, expected: &str| assert_eq!(mix.check().expect_err("it is refused").to_string(), expected);
    let of = |objective: Objective| Mix { loss: vec![objective.into()], ..Mix::default() };
    assert!(Mix::default().check().is_ok());
    check(Mix { alpha: 1.5, ..Mix::default() }, "distill: `alpha` is 1.5; give a number from 0 to 1");
    check(Mix { temperature: 0.0, ..Mix::default() }, "distill: `temperature` is 0; give a number above 0");
    check(Mix { loss: Vec::new(), ..Mix::default() }, "distill: `loss` is empty; give one objective or more");
    check(of(Objective::Kd { temperature: Some(-1.0) }), "kd: `temperature` is -1; give a number above 0");
    check(of(Objective::Crd { pairs: Vec::new(), size: 0, temperature: 1.0 }), "crd: `size` is 0; give 1 or more");
    check(
        of(Objective::Regression { loss: Loss::CrossEntropy, bounded: None }),
        "regression: `loss` is CrossEntropy; give `mse`, or without `bounded` one of `mse`, `mae`, `huber`, `cosine`",
    );
    let mut negative = Mix::default();
    negative.loss[0].weight = -1.0;
    check(negative, "kd: `weight` is -1; give 0 or more");
    let mut backwards = Mix::default();
    backwards.loss[0].schedule = WeightSchedule::Between { from: 0.5, to: 0.1 };
    let error = backwards.check().expect_err("it is refused").to_string();
    assert!(error.starts_with("kd: `schedule` is Between"), "{error}");
}

fn read(text: &str) -> Result<Mix, String> {
    toml::from_str::<Mix>(text).map_err(|error| error.message().to_string())
}

#[test]
fn options_are_read_and_written() {
    let text = r#"
        alpha = 0.5
        label_schedule = { linear = { end = 1.0 } }
        [[loss]]
        kd = { temperature = 2 }
        [[loss]]
        hint = { pairs = [["a", "b"]], projection = false }
        weight = 100
        schedule = { between = { to = 0.3 } }
    "#;
    let mix = read(text).expect("a mix");
    let expected = Mix {
        loss: vec![
            Objective::Kd { temperature: Some(2.0) }.into(),
            Weighted {
                objective: Objective::Hint { pairs: named("a", "b"), projection: false },
                weight: 100.0,
                schedule: WeightSchedule::Between { from: 0.0, to: 0.3 },
            },
        ],
        alpha: 0.5,
        label_schedule: WeightSchedule::Linear { start: 0.0, end: 1.0, from: 0.0, to: 1.0 },
        ..Mix::default()
    };
    assert_eq!(mix, expected);
    assert_eq!(read(&toml::to_string(&mix).expect("it is written")), Ok(expected));
    assert_eq!(read("loss = ['kd']"), Ok(Mix::default()));
    let names = [
        "kd",
        "soft-cross-entropy",
        "mse",
        "dkd",
        "dist",
        "binary",
        "regression",
        "hint",
        "attention-transfer",
        "similarity",
        "relational",
        "pkt",
        "fsp",
        "nst",
        "crd",
        "vid",
        "tinybert-hidden",
        "tinybert-embedding",
        "tinybert-attention",
        "minilm",
        "minilm-v2",
    ];
    for name in names {
        let mix =
            read(&format!("loss = ['{name}', {{ {name} = {{}} }}]")).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(mix.loss[0].objective.name(), name);
        assert_eq!(mix.loss[0], mix.loss[1]);
        assert_eq!(read(&toml::to_string(&mix).expect("it is written")), Ok(mix));
    }
}

#[test]
fn unknown_options_are_refused() {
    let check = |text: &str, expected: &str| {
        let error = read(text).expect_err("it is refused");
        assert!(error.contains(expected), "{error}");
    };
    check("loss = ['kl']", "unknown variant `kl`, expected one of `kd`");
    check("loss = [{ kd = { temp = 2.0 } }]", "unknown field `temp`, expected `temperature`");
    check("loss = [{ kd = 'hot' }]", "`kd` should be a table of its options");
    check("loss = [{ kd = {}, wieght = 2.0 }]", "beside these two it has `kd` and `wieght`");
    check("loss = [{ weight = 2.0 }]", "beside these two it has nothing");
    check("loss = [{ kd = {}, weight = 'all' }]", "`weight`: ");
    check("loss = [{ kd = {}, schedule = { ramp = {} } }]", "`schedule`: unknown variant `ramp`");
    check("loss = [3]", "not integer");
    check("loss = [{ hint = { pairs = [['a']] } }]", "invalid length 1");
    check("loss = ['kd']\nalhpa = 1.0", "unknown field `alhpa`");
}

#[test]
fn labels_are_read_where_they_count() {
    let shapes = PLAIN.map(|both| both.map(<[usize]>::to_vec));
    let types = teacher_types(&shapes.each_ref().map(|both| both[1].clone()));
    let teacher = Teacher { ends: ends(), types: &types };
    let of_student = student(&shapes.each_ref().map(|both| both[0].clone()));
    let has_target = |objective: Objective, alpha| {
        let mix = Mix { loss: vec![objective.into()], alpha, ..Mix::default() };
        let with =
            attach(&of_student, &"logits".into(), &teacher, &mix, Loss::CrossEntropy, 0).expect("it is attached");
        let names: Vec<&str> = with.terms.iter().map(|term| term.name).collect();
        assert_eq!(names.contains(&"label"), alpha < 1.0);
        with.with_loss.target.is_some()
    };
    let kd = || Objective::Kd { temperature: None };
    assert!(has_target(kd(), 0.9));
    assert!(!has_target(kd(), 1.0));
    assert!(has_target(Objective::Dkd { alpha: 1.0, beta: 1.0, temperature: None }, 1.0));
}
