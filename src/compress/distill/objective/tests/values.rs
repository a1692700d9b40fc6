//! Each objective by hand, and its gradients.

use super::plain::{
    Plain, divergence, dot, huber, linear, mean, mean_divergence, pearson, pointwise, shrunk, softmax, unit,
};
use super::{Known, N_SAMPLES, Objective, attached, check, close, inputs, labels, pairs};
use crate::graph::eval;
use crate::learn::train::loss::Loss;

/// Shapes of `logits`, `first` and `second`, the student's and the teacher's.
fn shapes(first: [&[usize]; 2], second: [&[usize]; 2]) -> [[Vec<usize>; 2]; 3] {
    [[vec![3], vec![3]], first.map(<[usize]>::to_vec), second.map(<[usize]>::to_vec)]
}

/// [`check`] with these shapes of `first` and `second`.
#[track_caller]
fn check_on(first: [&[usize]; 2], second: [&[usize]; 2], objective: Objective, expected: impl Fn(&Known) -> f64) {
    let shapes = shapes(first, second);
    check(shapes.each_ref(), objective, expected);
}

/// [`check_on`] with no more than logits.
#[track_caller]
fn check_logits(objective: Objective, expected: impl Fn(&[Vec<f64>], &[Vec<f64>]) -> f64) {
    check_on([&[1], &[1]], [&[1], &[1]], objective, |known| expected(&known.s[0].rows(1), &known.t[0].rows(1)));
}

fn rows<'a>(s: &'a [Vec<f64>], t: &'a [Vec<f64>]) -> impl Iterator<Item = (&'a Vec<f64>, &'a Vec<f64>)> {
    s.iter().zip(t)
}

#[test]
fn distributions_are_compared() {
    check_logits(Objective::Kd { temperature: None }, |s, t| {
        16.0 * mean(rows(s, t).map(|(s, t)| divergence(&softmax(t, 4.0), &softmax(s, 4.0))))
    });
    check_logits(Objective::SoftCrossEntropy { temperature: Some(2.0) }, |s, t| {
        let entropy = |s: &[f64], t: &[f64]| -> f64 {
            softmax(t, 2.0).iter().zip(softmax(s, 2.0)).map(|(t, s)| -t * s.ln()).sum()
        };
        4.0 * mean(rows(s, t).map(|(s, t)| entropy(s, t)))
    });
    check_logits(Objective::Mse {}, |s, t| {
        mean(rows(s, t).flat_map(|(s, t)| s.iter().zip(t).map(|(s, t)| (s - t).powi(2)).collect::<Vec<_>>()))
    });
    check_logits(Objective::Binary { temperature: Some(2.0) }, |s, t| {
        let both = |z: f64| {
            let p = 1.0 / (1.0 + (-z / 2.0).exp());
            [p, 1.0 - p]
        };
        let each = rows(s, t)
            .flat_map(|(s, t)| s.iter().zip(t).map(|(s, t)| divergence(&both(*t), &both(*s))).collect::<Vec<_>>());
        4.0 * mean(each)
    });
}

#[test]
fn the_labels_class_is_decoupled() {
    let (alpha, beta) = (1.5, 4.0);
    check_logits(Objective::Dkd { alpha, beta, temperature: Some(2.0) }, |s, t| {
        let row = |(sample, (s, t)): (usize, (&Vec<f64>, &Vec<f64>))| {
            let class = sample % 3;
            let [s, t] = [s, t].map(|z| softmax(z, 2.0));
            let own = |p: &[f64]| [p[class], 1.0 - p[class]];
            let others = |p: &[f64]| -> Vec<f64> {
                (0..3).filter(|idx| *idx != class).map(|idx| p[idx] / (1.0 - p[class])).collect()
            };
            alpha * divergence(&own(&t), &own(&s)) + beta * divergence(&others(&t), &others(&s))
        };
        4.0 * mean(rows(s, t).enumerate().map(row))
    });
}

#[test]
fn rows_and_columns_are_correlated() {
    check_logits(Objective::Dist { inter: 1.0, intra: 2.0, temperature: Some(2.0) }, |s, t| {
        let [s, t] = [s, t].map(|z| z.iter().map(|row| softmax(row, 2.0)).collect::<Vec<_>>());
        let columns = |p: &[Vec<f64>]| -> Vec<Vec<f64>> {
            (0..3).map(|class| p.iter().map(|row| row[class]).collect()).collect()
        };
        let distance = |s: &[Vec<f64>], t: &[Vec<f64>]| 1.0 - mean(rows(s, t).map(|(s, t)| pearson(s, t)));
        4.0 * (distance(&s, &t) + 2.0 * distance(&columns(&s), &columns(&t)))
    });
}

#[test]
fn outputs_are_compared() {
    let each = |s: &[Vec<f64>], t: &[Vec<f64>], f: fn(f64) -> f64| {
        mean(rows(s, t).flat_map(|(s, t)| s.iter().zip(t).map(|(s, t)| f(s - t)).collect::<Vec<_>>()))
    };
    let of = |loss, bounded| Objective::Regression { loss, bounded };
    check_logits(of(Loss::Mse, None), |s, t| each(s, t, |d| d * d));
    check_logits(of(Loss::Huber { delta: 1.0 }, None), |s, t| each(s, t, huber));
    for margin in [0.0, 0.5, 100.0] {
        check_logits(of(Loss::Mse, Some(margin)), |s, t| {
            let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            let y = labels().rows(1);
            let counted = (0..N_SAMPLES).map(|idx| {
                let [of_s, of_t] = [square(&s[idx], &y[idx]), square(&t[idx], &y[idx])];
                if of_s + margin > of_t { of_s } else { 0.0 }
            });
            counted.sum::<f64>() / (N_SAMPLES * 3) as f64
        });
    }
}

#[test]
fn hints_go_through_a_learned_map() {
    let first = || pairs(&["first"]);
    let hint = |projection| Objective::Hint { pairs: first(), projection };
    let none: [&[usize]; 2] = [&[1], &[1]];
    check_on([&[5], &[4]], none, hint(true), |known| {
        linear(&known.s[1], &known.learned[0], Some(&known.learned[1])).mean_square(&known.t[1])
    });
    check_on([&[3, 4], &[3, 2]], none, hint(true), |known| {
        linear(&known.s[1], &known.learned[0], Some(&known.learned[1])).mean_square(&known.t[1])
    });
    check_on([&[2, 4, 4], &[3, 2, 2]], none, hint(true), |known| {
        let s = shrunk(&shrunk(&known.s[1], 2, 2), 3, 2);
        pointwise(&s, &known.learned[0], &known.learned[1]).mean_square(&known.t[1])
    });
    check_on([&[2, 2, 3], &[2, 3, 3]], none, hint(false), |known| known.s[1].mean_square(&shrunk(&known.t[1], 2, 2)));
    check_on([&[3, 2], &[3, 2]], none, Objective::TinybertHidden { pairs: first(), projection: false }, |known| {
        known.s[1].mean_square(&known.t[1])
    });
}

#[test]
fn variances_are_learned() {
    let none: [&[usize]; 2] = [&[1], &[1]];
    let vid = || Objective::Vid { pairs: pairs(&["first"]) };
    let likelihood = |mean: &Plain, t: &Plain, raw: f64| {
        let variance = raw.exp().ln_1p() + 1e-5;
        0.5 * (mean.mean_square(t) / variance + variance.ln())
    };
    check_on([&[2, 2, 2], &[3, 2, 2]], none, vid(), |known| {
        let made = pointwise(&known.s[1], &known.learned[0], &known.learned[1]);
        likelihood(&made, &known.t[1], known.learned[2].data[0])
    });
    check_on([&[4], &[3]], none, vid(), |known| {
        let made = linear(&known.s[1], &known.learned[0], Some(&known.learned[1]));
        likelihood(&made, &known.t[1], known.learned[2].data[0])
    });
}

/// Of each sample the mean of a power over channels, of length one.
fn maps(x: &Plain, power: i32) -> Vec<Vec<f64>> {
    let n_channels = x.shape[1];
    let map = |image: Vec<f64>| {
        let size = image.len() / n_channels;
        let sum = |at: usize| (0..n_channels).map(|channel| image[channel * size + at].abs().powi(power)).sum::<f64>();
        unit(&(0..size).map(sum).collect::<Vec<_>>())
    };
    x.samples().into_iter().map(map).collect()
}

#[test]
fn maps_of_attention_are_compared() {
    for power in [1, 2, 3] {
        let objective = Objective::AttentionTransfer { pairs: pairs(&["first"]), power };
        check_on([&[2, 4, 4], &[3, 2, 2]], [&[1], &[1]], objective, |known| {
            let s = shrunk(&shrunk(&known.s[1], 2, 2), 3, 2);
            let [s, t] = [&s, &known.t[1]].map(|x| maps(x, power as i32).concat());
            mean(s.iter().zip(&t).map(|(s, t)| (s - t).powi(2)))
        });
    }
}

#[test]
fn channels_are_compared_as_distributions() {
    check_on([&[2, 2, 2], &[3, 2, 2]], [&[1], &[1]], Objective::Nst { pairs: pairs(&["first"]) }, |known| {
        let channels = |x: &Plain| -> Vec<Vec<Vec<f64>>> {
            let units = x.rows(2).iter().map(|channel| unit(channel)).collect::<Vec<_>>();
            units.chunks(x.shape[1]).map(<[_]>::to_vec).collect()
        };
        let [s, t] = [channels(&known.s[1]), channels(&known.t[1])];
        let kernel = |a: &[Vec<Vec<f64>>], b: &[Vec<Vec<f64>>]| {
            let pairs = a.iter().zip(b).flat_map(|(a, b)| a.iter().flat_map(move |x| b.iter().map(move |y| (x, y))));
            mean(pairs.map(|(x, y)| dot(x, y).powi(2)))
        };
        kernel(&s, &s) + kernel(&t, &t) - 2.0 * kernel(&s, &t)
    });
}

#[test]
fn flows_are_between_two_layers() {
    let objective = Objective::Fsp { pairs: pairs(&["first", "second"]) };
    check_on([&[2, 2, 2], &[2, 3, 3]], [&[3, 2, 2], &[3, 3, 3]], objective, |known| {
        let flow = |a: &Plain, b: &Plain| -> Vec<f64> {
            let size = (a.shape[2] * a.shape[3]) as f64;
            let (n_a, n_b) = (a.shape[1], b.shape[1]);
            let (a, b) = (a.rows(2), b.rows(2));
            let sample = |n: usize| (0..n_a).flat_map(move |i| (0..n_b).map(move |j| (n * n_a + i, n * n_b + j)));
            (0..N_SAMPLES).flat_map(sample).map(|(i, j)| dot(&a[i], &b[j]) / size).collect()
        };
        let [s, t] = [&known.s, &known.t].map(|x| flow(&x[1], &x[2]));
        mean(s.iter().zip(&t).map(|(s, t)| (s - t).powi(2)))
    });
}

#[test]
fn samples_are_compared_with_each_other() {
    let (first, second): ([&[usize]; 2], [&[usize]; 2]) = ([&[2, 2, 2], &[3, 2]], [&[5], &[4]]);
    let products =
        |x: &[Vec<f64>]| -> Vec<Vec<f64>> { x.iter().map(|a| x.iter().map(|b| dot(a, b)).collect()).collect() };
    check_on(first, second, Objective::Similarity { pairs: pairs(&["first", "second"]) }, |known| {
        let of = |x: &Plain| products(&x.samples()).iter().flat_map(|row| unit(row)).collect::<Vec<_>>();
        let one = |idx: usize| {
            let [s, t] = [of(&known.s[idx]), of(&known.t[idx])];
            mean(s.iter().zip(&t).map(|(s, t)| (s - t).powi(2)))
        };
        one(1) + one(2)
    });
    check_on(first, second, Objective::Pkt { pairs: pairs(&["second"]) }, |known| {
        let of = |x: &Plain| {
            let units: Vec<Vec<f64>> = x.samples().iter().map(|row| unit(row)).collect();
            let rows = products(&units);
            rows.iter()
                .flat_map(|row| {
                    let kernel: Vec<f64> = row.iter().map(|cosine| (cosine + 1.0) / 2.0).collect();
                    let sum: f64 = kernel.iter().sum();
                    kernel.into_iter().map(move |value| value / sum).collect::<Vec<_>>()
                })
                .collect::<Vec<f64>>()
        };
        mean(of(&known.s[2]).iter().zip(of(&known.t[2])).map(|(s, t)| t * ((t + 1e-7) / (s + 1e-7)).ln()))
    });
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[test]
fn distances_and_angles_are_compared() {
    let (first, second): ([&[usize]; 2], [&[usize]; 2]) = ([&[2, 2, 2], &[3, 2]], [&[5], &[4]]);
    let relational = |distance, angle| Objective::Relational { pairs: pairs(&["first"]), distance, angle };
    let distances = |known: &Known| {
        let of = |x: &Plain| {
            let x = x.samples();
            let all: Vec<f64> = x
                .iter()
                .flat_map(|a| x.iter().map(|b| dot(&difference(a, b), &difference(a, b)).sqrt()).collect::<Vec<_>>())
                .collect();
            let middle = all.iter().sum::<f64>() / (N_SAMPLES * (N_SAMPLES - 1)) as f64;
            all.into_iter().map(|distance| distance / middle).collect::<Vec<_>>()
        };
        mean(of(&known.s[1]).iter().zip(of(&known.t[1])).map(|(s, t)| huber(s - t)))
    };
    let angles = |known: &Known| {
        let of = |x: &Plain| {
            let x = x.samples();
            let n = x.len();
            let triples = (0..n).flat_map(|j| (0..n).flat_map(move |i| (0..n).map(move |k| (i, j, k))));
            let cosine = |(i, j, k): (usize, usize, usize)| match i == j || k == j {
                true => 0.0,
                false => dot(&unit(&difference(&x[i], &x[j])), &unit(&difference(&x[k], &x[j]))),
            };
            triples.map(cosine).collect::<Vec<_>>()
        };
        mean(of(&known.s[1]).iter().zip(of(&known.t[1])).map(|(s, t)| huber(s - t)))
    };
    check_on(first, second, relational(1.0, 0.0), distances);
    check_on(first, second, relational(0.0, 1.0), angles);
    check_on(first, second, relational(1.0, 2.0), |known| distances(known) + 2.0 * angles(known));
}

#[test]
fn samples_are_told_apart() {
    let crd = || Objective::Crd { pairs: pairs(&["first"]), size: 4, temperature: 0.5 };
    let contrast = |s: &Plain, t: &Plain, known: &Known| {
        let of = |x: &Plain, weight: &Plain| -> Vec<Vec<f64>> {
            linear(x, weight, None).rows(1).iter().map(|row| unit(row)).collect()
        };
        let [s, t] = [of(s, &known.learned[0]), of(t, &known.learned[1])];
        let one = |a: &[Vec<f64>], b: &[Vec<f64>]| {
            mean(a.iter().enumerate().map(|(idx, x)| {
                let logits: Vec<f64> = b.iter().map(|y| dot(x, y)).collect();
                -softmax(&logits, 0.5)[idx].ln()
            }))
        };
        0.5 * (one(&s, &t) + one(&t, &s))
    };
    check_on([&[5], &[4]], [&[1], &[1]], crd(), |known| contrast(&known.s[1], &known.t[1], known));
    check_on([&[2, 2, 3], &[3, 2]], [&[1], &[1]], crd(), |known| {
        let means = |x: &Plain| -> Vec<f64> { x.rows(2).iter().map(|plane| mean(plane.iter().copied())).collect() };
        let tokens = known.t[1].transposed(&[0, 2, 1]);
        let of_t = tokens.rows(1).iter().map(|row| mean(row.iter().copied())).collect();
        let s = Plain::new(&[N_SAMPLES, 2], means(&known.s[1]));
        contrast(&s, &Plain::new(&[N_SAMPLES, 2], of_t), known)
    });
}

#[test]
fn scores_of_attention_are_compared() {
    let objective = Objective::TinybertAttention { pairs: pairs(&["first"]) };
    check_on([&[2, 3, 3], &[2, 3, 3]], [&[1], &[1]], objective, |known| known.s[1].mean_square(&known.t[1]));
}

/// `x xᵀ / √d` of `[n, heads, tokens, head size]`.
fn relations(x: &Plain) -> Plain {
    let (n_tokens, size) = (x.shape[2], x.shape[3]);
    let heads = x.rows(2);
    let head = |head: &Vec<f64>| {
        let tokens: Vec<&[f64]> = head.chunks(size).collect();
        let row = |a: &[f64]| tokens.iter().map(|b| dot(a, b) / (size as f64).sqrt()).collect::<Vec<_>>();
        tokens.iter().flat_map(|a| row(a)).collect::<Vec<_>>()
    };
    Plain::new(&[x.shape[0], x.shape[1], n_tokens, n_tokens], heads.iter().flat_map(head).collect())
}

#[test]
fn weights_and_relations_of_attention_are_compared() {
    let objective = Objective::Minilm { scores: pairs(&["first"]), values: pairs(&["second"]) };
    check_on([&[2, 3, 3], &[2, 3, 3]], [&[2, 3, 2], &[2, 3, 4]], objective, |known| {
        mean_divergence(&known.s[1], &known.t[1]) + mean_divergence(&relations(&known.s[2]), &relations(&known.t[2]))
    });
}

#[test]
fn relations_are_divided_into_heads_anew() {
    let of = |heads| Objective::MinilmV2 {
        queries: pairs(&["first"]),
        keys: pairs(&["second"]),
        values: pairs(&["first"]),
        heads,
    };
    // [tokens, features] to [heads, tokens, head size]
    let divided = |x: &Plain, n_heads: usize| {
        let (n_tokens, size) = (x.shape[1], x.shape[2] / n_heads);
        x.reshaped(&[N_SAMPLES, n_tokens, n_heads, size]).transposed(&[0, 2, 1, 3])
    };
    let joined = |x: &Plain, perm: &[usize; 4]| {
        let x = x.transposed(perm);
        x.reshaped(&[N_SAMPLES, x.shape[1], x.shape[2] * x.shape[3]])
    };
    check_on([&[3, 4], &[3, 2]], [&[2, 2, 3], &[2, 4, 3]], of(Some(2)), |known| {
        let direct = mean_divergence(&relations(&divided(&known.s[1], 2)), &relations(&divided(&known.t[1], 2)));
        // keys [heads, head size, tokens]
        let [s, t] = [&known.s[2], &known.t[2]].map(|x| relations(&divided(&joined(x, &[0, 3, 1, 2]), 2)));
        2.0 * direct + mean_divergence(&s, &t)
    });
    // the teacher's three heads, of queries and keys
    check_on([&[4, 6], &[3, 4, 2]], [&[1, 6, 4], &[3, 2, 4]], of(None), |known| {
        let t = joined(&known.t[1], &[0, 2, 1, 3]);
        let direct = mean_divergence(&relations(&divided(&known.s[1], 3)), &relations(&divided(&t, 3)));
        let [s, t] = [&known.s[2], &known.t[2]].map(|x| relations(&divided(&joined(x, &[0, 3, 1, 2]), 3)));
        2.0 * direct + mean_divergence(&s, &t)
    });
}

#[test]
fn a_student_like_its_teacher_has_nothing_to_learn() {
    let first = || pairs(&["first"]);
    let image: &[usize] = &[2, 3, 3];
    let objectives = [
        Objective::Kd { temperature: None },
        Objective::Mse {},
        Objective::Dkd { alpha: 1.0, beta: 8.0, temperature: None },
        Objective::Dist { inter: 1.0, intra: 1.0, temperature: None },
        Objective::Binary { temperature: None },
        Objective::Regression { loss: Loss::Mse, bounded: None },
        Objective::Hint { pairs: first(), projection: false },
        Objective::AttentionTransfer { pairs: first(), power: 2 },
        Objective::Similarity { pairs: first() },
        Objective::Relational { pairs: first(), distance: 1.0, angle: 2.0 },
        Objective::Pkt { pairs: first() },
        Objective::Fsp { pairs: pairs(&["first", "second"]) },
        Objective::Nst { pairs: first() },
        Objective::TinybertHidden { pairs: first(), projection: false },
        Objective::TinybertEmbedding { pairs: first(), projection: false },
        Objective::TinybertAttention { pairs: first() },
        Objective::Minilm { scores: first(), values: first() },
        Objective::MinilmV2 { queries: first(), keys: first(), values: first(), heads: None },
    ];
    for objective in objectives {
        let name = objective.name();
        let shapes = shapes([image, image], [image, image]);
        let with = attached(shapes.each_ref(), objective).unwrap_or_else(|error| panic!("{name}: {error}"));
        let zeros = super::teacher_values(&shapes.map(|both| both[1].clone()));
        let mut inputs = inputs(&with, &zeros);
        let values: Vec<_> = with.teacher.iter().map(|input| input.value.clone()).collect();
        let own = eval::run_with(&with.with_loss.graph, &inputs, &values).expect("it runs");
        inputs.extend(with.teacher.iter().map(|input| (input.input.clone(), own[&input.value].clone())));
        let loss = &with.with_loss.loss;
        let found = eval::run_with(&with.with_loss.graph, &inputs, std::slice::from_ref(loss)).expect("it runs");
        close(name, Plain::of(&found[loss]).data[0], 0.0, 1e-6);
    }
}
