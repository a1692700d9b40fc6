//! Objectives of inner values, one sample at a time.

use super::options::Pair;
use super::site::{Site, Tap, signed};
use crate::compress::distill::DistillError;
use crate::graph::Name;
use crate::graph::op::Op;

/// The variance of a channel never falls below this (`VIDLoss` of its authors' code).
const LEAST_VARIANCE: f64 = 1e-5;

/// The variance of a channel at first.
const FIRST_VARIANCE: f64 = 5.0;

/// The sum of an objective over pairs.
pub(super) fn over(
    site: &mut Site<'_>,
    pairs: &[Pair],
    mut objective: impl FnMut(&mut Site<'_>, [Tap; 2]) -> Result<Name, DistillError>,
) -> Result<Name, DistillError> {
    if pairs.is_empty() {
        return Err(site.unfit("it has no pairs of values".to_string(), "name them, or have them found"));
    }
    let mut terms = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let taps = site.pair(pair)?;
        terms.push(objective(site, taps)?);
    }
    Ok(site.sum_of(&terms))
}

pub(super) fn hint(site: &mut Site<'_>, taps: [Tap; 2], projection: bool) -> Result<Name, DistillError> {
    let [s, t] = features(site, taps)?;
    if projection {
        let s = site.projected(&s, &t)?;
        return Ok(site.mean_square(&s, &t.name));
    }
    let taps = [s, t];
    site.same_dims(&taps, "set `projection = true`")?;
    Ok(site.mean_square(&taps[0].name, &taps[1].name))
}

pub(super) fn vid(site: &mut Site<'_>, taps: [Tap; 2]) -> Result<Name, DistillError> {
    let [s, t] = features(site, taps)?;
    let mean = site.projected(&s, &t)?;
    let shape = match t.rank() {
        4 => vec![site.size(&t, 1)?, 1, 1],
        rank => vec![site.size(&t, rank - 1)?],
    };
    let raw = ((FIRST_VARIANCE - LEAST_VARIANCE).exp() - 1.0).ln();
    let raw = site.learned_constant("variance", &shape, raw)?;
    let behind = &mut site.behind;
    let variance = behind.node(Op::Softplus, &[&raw]);
    let variance = behind.plus(&variance, LEAST_VARIANCE);
    let difference = behind.sub(&t.name, &mean);
    let squares = behind.square(&difference);
    let ratio = behind.div(&squares, &variance);
    let logarithm = behind.node(Op::Log, &[&variance]);
    let each = behind.add(&ratio, &logarithm);
    let mean = behind.mean(&each);
    Ok(behind.times(&mean, 0.5))
}

/// Values of the same rank whose axes, but for channels or features, are the same: images brought together.
fn features(site: &mut Site<'_>, taps: [Tap; 2]) -> Result<[Tap; 2], DistillError> {
    let remedy = "name images, sequences or features of both";
    site.ranks(&taps, &[2, 3, 4], remedy)?;
    if taps[0].rank() != taps[1].rank() {
        let problem = format!("{} and {} have not as many axes", taps[0].described(), taps[1].described());
        return Err(site.unfit(problem, remedy));
    }
    match taps[0].rank() {
        4 => site.meet(taps),
        3 => {
            let [s, t] = [&taps[0], &taps[1]].map(|tap| tap.dims[1].known());
            if s.zip(t).is_some_and(|(s, t)| s != t) {
                let problem = format!("{} and {} have not as many tokens", taps[0].described(), taps[1].described());
                return Err(site.unfit(problem, remedy));
            }
            Ok(taps)
        }
        _ => Ok(taps),
    }
}

/// Two images at the same resolution.
fn images(site: &mut Site<'_>, taps: [Tap; 2]) -> Result<[Tap; 2], DistillError> {
    site.ranks(&taps, &[4], "name images, [batch, channels, height, width]")?;
    site.meet(taps)
}

pub(super) fn attention_transfer(site: &mut Site<'_>, taps: [Tap; 2], power: u32) -> Result<Name, DistillError> {
    let maps = images(site, taps)?.map(|tap| {
        let behind = &mut site.behind;
        let powers = match power {
            1 => behind.node(Op::Abs, &[&tap.name]),
            2 => behind.square(&tap.name),
            power => {
                let magnitudes = behind.node(Op::Abs, &[&tap.name]);
                let power = behind.number(power.into());
                behind.node(Op::Pow, &[&magnitudes, &power])
            }
        };
        let map = behind.mean_over(&powers, &[1]);
        let map = behind.reshape(&map, &[0, -1]);
        site.unit(&map)
    });
    Ok(site.mean_square(&maps[0], &maps[1]))
}

pub(super) fn nst(site: &mut Site<'_>, taps: [Tap; 2]) -> Result<Name, DistillError> {
    let taps = images(site, taps)?;
    let [s, t] = [channels(site, &taps[0])?, channels(site, &taps[1])?].map(|rows| site.unit(&rows));
    let [of_s, of_t, across] = [(&s, &s), (&t, &t), (&s, &t)].map(|(a, b)| {
        let b = site.behind.transpose(b, &[0, 2, 1]);
        let products = site.behind.matmul(a, &b);
        let kernel = site.behind.square(&products);
        site.behind.mean(&kernel)
    });
    let behind = &mut site.behind;
    let within = behind.add(&of_s, &of_t);
    let across = behind.times(&across, 2.0);
    Ok(behind.sub(&within, &across))
}

/// An image as a row a channel, `[n, channels, height · width]`.
fn channels(site: &mut Site<'_>, tap: &Tap) -> Result<Name, DistillError> {
    let n_channels = site.length(tap, 1)?;
    Ok(site.behind.reshape(&tap.name, &[0, n_channels, -1]))
}

pub(super) fn fsp(site: &mut Site<'_>, pairs: &[Pair]) -> Result<Name, DistillError> {
    let (flows, rest) = pairs.as_chunks::<2>();
    if flows.is_empty() || !rest.is_empty() {
        let problem = format!("a flow is from one pair to another, and there are {} pairs", pairs.len());
        return Err(site.unfit(problem, "name an even number of pairs"));
    }
    let mut terms = Vec::with_capacity(flows.len());
    for [first, second] in flows {
        let [first_s, first_t] = site.pair(first)?;
        let [second_s, second_t] = site.pair(second)?;
        for pair in [[&first_s, &first_t], [&second_s, &second_t]] {
            let pair = pair.map(Tap::clone);
            site.ranks(&pair, &[4], "name images, [batch, channels, height, width]")?;
            if site.size(&pair[0], 1)? != site.size(&pair[1], 1)? {
                let problem = format!("{} and {} differ in channels", pair[0].described(), pair[1].described());
                return Err(site.unfit(problem, "name layers of as many channels, or use `hint`"));
            }
        }
        let s = flow(site, &first_s, &second_s)?;
        let t = flow(site, &first_t, &second_t)?;
        terms.push(site.mean_square(&s, &t));
    }
    Ok(site.sum_of(&terms))
}

/// The products of the channels of two layers, `[n, channels of the first, channels of the second]`.
fn flow(site: &mut Site<'_>, first: &Tap, second: &Tap) -> Result<Name, DistillError> {
    let sizes = [site.size(first, 2)?, site.size(first, 3)?];
    if sizes != [site.size(second, 2)?, site.size(second, 3)?] {
        let problem = format!("{} and {} differ in resolution", first.described(), second.described());
        return Err(site.unfit(problem, "name two layers of the same resolution in each network"));
    }
    let [a, b] = [channels(site, first)?, channels(site, second)?];
    let b = site.behind.transpose(&b, &[0, 2, 1]);
    let products = site.behind.matmul(&a, &b);
    Ok(site.behind.times(&products, 1.0 / signed(sizes[0] * sizes[1]) as f64))
}
