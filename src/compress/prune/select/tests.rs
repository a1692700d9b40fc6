//! What selections reach, leave and never touch, on random graphs and by hand.

use proptest::prelude::*;

use super::meter::{Measure, Meter};
use super::*;
use crate::compress::importance::{Criterion, importance};
use crate::graph::shape::{Bindings, infer};
use crate::graph::structure::groups::{Role, groups};
use crate::graph::structure::random_graphs::{self, Block, Layer};
use crate::graph::tensor::Tensor;

struct Network {
    graph: Graph,
    types: Types,
    groups: Groups,
    importance: Vec<Option<Vec<f64>>>,
}

impl Network {
    fn new(graph: Graph) -> Network {
        let types = infer(&graph, &Bindings::default()).expect("types fit");
        let groups = groups(&graph, &types);
        let ranked = importance(&graph, &types, &groups.groups, Criterion::L2, 7);
        let importance = ranked.into_iter().map(Result::ok).collect();
        Network { graph, types, groups, importance }
    }

    fn select(&self, amount: Amount, scope: Scope, limits: &Limits) -> Result<Selection, PruneError> {
        select(&self.graph, &self.types, &self.groups, &self.importance, amount, scope, limits)
    }

    fn order(&self, scope: Scope, limits: &Limits) -> Order {
        order(&self.groups, &self.importance, scope, limits).expect("an order")
    }

    /// The share that is gone without these units.
    fn gone(&self, amount: Amount, selection: &Selection) -> f64 {
        let measure = match amount {
            Amount::Channels(_) => {
                let ranked = self.groups.groups.iter().zip(&self.importance).filter(|(_, numbers)| numbers.is_some());
                let n_units: usize = ranked.map(|(group, _)| group.n_units).sum();
                return selection.n_units() as f64 / n_units as f64;
            }
            Amount::Macs(_) => Measure::Macs,
            Amount::Params(_) => Measure::Parameters,
            Amount::Bytes(_) => Measure::Bytes,
        };
        let meter = Meter::new(&self.graph, &self.types, &self.groups, measure).expect("it can be counted");
        1.0 - meter.left(selection).expect("units can go") as f64 / meter.whole() as f64
    }
}

fn share_of(amount: Amount) -> f64 {
    match amount {
        Amount::Channels(share) | Amount::Macs(share) | Amount::Params(share) | Amount::Bytes(share) => share,
    }
}

/// That what stays in each group is within the limits, that groups without importance are whole, and that the least go.
fn check_limits(network: &Network, selection: &Selection, limits: &Limits) {
    assert_eq!(selection.units.len(), network.groups.groups.len());
    for ((group, units), numbers) in network.groups.groups.iter().zip(&selection.units).zip(&network.importance) {
        assert!(units.is_sorted_by(|a, b| a < b) && units.iter().all(|&unit| unit < group.n_units), "{units:?}");
        let Some(numbers) = numbers.as_ref().filter(|_| !units.is_empty()) else {
            assert!(units.is_empty(), "{group}");
            continue;
        };
        let n_left = group.n_units - units.len();
        assert!(n_left >= limits.min_width.max(1), "{group}: {n_left} left");
        assert!(units.len() as f64 <= group.n_units as f64 * limits.max_share + 1e-9, "{group}: {n_left} left");
        let per_unit = group.members.iter().filter(|m| matches!(m.role, Role::Made | Role::Summed));
        let per_unit: Vec<usize> = per_unit.map(|member| member.n_per_unit).collect();
        assert!(per_unit.iter().all(|n| (n_left * n).is_multiple_of(limits.round_to)), "{group}: {n_left} left");
        let (goes, stays): (Vec<_>, Vec<_>) =
            numbers.iter().enumerate().partition(|(unit, _)| units.binary_search(unit).is_ok());
        let greatest = goes.iter().map(|(_, number)| **number).fold(f64::MIN, f64::max);
        assert!(stays.iter().all(|(_, number)| **number >= greatest), "{group}: {units:?} of {numbers:?}");
    }
}

/// Selects and looks at what comes of it, refusals included.
fn check(network: &Network, amount: Amount, scope: Scope, limits: &Limits) {
    let order = network.order(scope, limits);
    let whole = order.prefix(order.len());
    check_limits(network, &whole, limits);
    let reaches = |selection: &Selection| network.gone(amount, selection) >= share_of(amount) - 1e-9;
    let selection = match network.select(amount, scope, limits) {
        Ok(selection) => selection,
        Err(error) => {
            assert!(matches!(error, PruneError::Amount { .. }) && !reaches(&whole), "{error}");
            return;
        }
    };
    assert_eq!(network.select(amount, scope, limits).expect("as before"), selection);
    check_limits(network, &selection, limits);
    let smaller = remove(&network.graph, &network.types, &selection.removals(&network.groups)).expect("units can go");
    smaller.check().expect("a graph");
    if let (Amount::Channels(share), Scope::Local) = (amount, scope) {
        for (group, units) in network.groups.groups.iter().zip(&selection.units) {
            let asked = (group.n_units as f64 * share - 1e-9).ceil() as usize;
            let most =
                whole.units[network.groups.groups.iter().position(|other| other == group).expect("it is there")].len();
            assert!(units.len() >= asked.min(most), "{group}: {units:?}");
        }
        return;
    }
    assert!(reaches(&selection), "{amount:?}: {selection:?}");
    let n = (0..=order.len()).find(|&n| order.prefix(n) == selection).expect("part of the order");
    assert!(n == 0 || !reaches(&order.prefix(n - 1)), "{amount:?}: less is enough");
}

fn amounts() -> impl Strategy<Value = Amount> {
    (0usize..4, 0.0f64..0.9).prop_map(|(which, share)| match which {
        0 => Amount::Channels(share),
        1 => Amount::Macs(share),
        2 => Amount::Params(share),
        _ => Amount::Bytes(share),
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let max_share = prop_oneof![Just(1.0), Just(0.5), Just(0.3)];
    (0usize..4, 1usize..4, max_share).prop_map(|(min_width, round_to, max_share)| Limits {
        min_width,
        round_to,
        max_share,
    })
}

fn graphs() -> impl Strategy<Value = Graph> {
    prop_oneof![
        (random_graphs::layers(), any::<bool>(), any::<u64>())
            .prop_map(|(layers, flat, seed)| random_graphs::convolutional(&layers, flat, seed)),
        (random_graphs::blocks(), any::<u64>()).prop_map(|(blocks, seed)| random_graphs::sequential(&blocks, seed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn selections_reach_the_amount_within_the_limits(
        graph in graphs(), amount in amounts(), local in any::<bool>(), limits in limits(), spared in any::<usize>(),
    ) {
        let mut network = Network::new(graph);
        if network.importance.len() > 1 {
            let spared = spared % network.importance.len();
            network.importance[spared] = None;
        }
        if network.importance.iter().any(Option::is_some) {
            check(&network, amount, if local { Scope::Local } else { Scope::Global }, &limits);
        }
    }

    /// Multiplications and parameters to the last one; of bytes all but what spells sizes anew.
    #[test]
    fn costs_are_foretold(graph in graphs(), part in 0.0f64..1.0) {
        let network = Network::new(graph);
        if network.importance.iter().any(Option::is_some) {
            let order = network.order(Scope::Global, &Limits::default());
            let selection = order.prefix((order.len() as f64 * part) as usize);
            for measure in [Measure::Macs, Measure::Parameters] {
                let meter = Meter::new(&network.graph, &network.types, &network.groups, measure).expect("it can be counted");
                prop_assert_eq!(meter.foretold(&selection), meter.left(&selection).expect("units can go"));
            }
        }
    }
}

fn dense() -> Network {
    let mut network = Network::new(random_graphs::sequential(&[Block::FeedForward { hidden: 5, gelu: false }], 7));
    // six features of the stream, and five between the two layers
    network.importance = vec![Some(vec![6.0, 1.0, 5.0, 2.0, 4.0, 3.0]), Some(vec![0.5, 1.5, 2.5, 2.5, 9.0])];
    network
}

#[track_caller]
fn selects(network: &Network, amount: Amount, scope: Scope, limits: Limits, expected: [&[usize]; 2]) {
    let selection = network.select(amount, scope, &limits).expect("a selection");
    assert_eq!(selection.units, expected);
    check(network, amount, scope, &limits);
}

#[test]
fn the_least_go_first() {
    let (network, limits) = (dense(), Limits::default());
    selects(&network, Amount::Channels(0.3), Scope::Global, limits, [&[1, 3], &[0, 1]]);
    selects(&network, Amount::Channels(0.45), Scope::Global, limits, [&[1, 3], &[0, 1, 3]]);
    selects(&network, Amount::Channels(0.3), Scope::Local, limits, [&[1, 3], &[0, 1]]);
    selects(&network, Amount::Channels(0.5), Scope::Local, limits, [&[1, 3, 5], &[0, 1, 3]]);
    selects(&network, Amount::Macs(0.0), Scope::Global, limits, [&[], &[]]);
    // by share 2 of 6 and 2 of 5 are one part
    let halves = Limits { max_share: 0.5, ..limits };
    selects(&network, Amount::Channels(1.0), Scope::Local, halves, [&[1, 3, 5], &[0, 1]]);
}

#[test]
fn widths_are_rounded_so_that_enough_goes() {
    let limits = Limits { round_to: 4, ..Limits::default() };
    let network = dense();
    // two of six go at once for 1.5 on average, one of five for 0.5
    selects(&network, Amount::Channels(0.05), Scope::Global, limits, [&[], &[0]]);
    selects(&network, Amount::Channels(0.2), Scope::Global, limits, [&[1, 3], &[0]]);
    selects(&network, Amount::Channels(0.5), Scope::Local, limits, [&[1, 3], &[0]]);
    let wide = Limits { min_width: 5, ..limits };
    selects(&network, Amount::Channels(0.0), Scope::Global, wide, [&[], &[]]);
    assert!(network.order(Scope::Global, &wide).is_empty(), "no multiple of four lies between");
}

/// Of heads the slices count: two go with each.
#[test]
fn heads_are_rounded_by_their_slices() {
    let network = Network::new(random_graphs::sequential(&[Block::Attention { heads: 3, size: 2, fused: false }], 7));
    let widths = |round_to| {
        let order = network.order(Scope::Global, &Limits { round_to, ..Limits::default() });
        order.steps().filter(|step| step.group_idx == 1).map(|step| step.units.len()).collect::<Vec<_>>()
    };
    assert_eq!([widths(1), widths(2), widths(4), widths(8)], [vec![1, 1], vec![1, 1], vec![1], vec![]]);
}

#[test]
fn what_cannot_be_reached_is_refused() {
    let network = dense();
    let refused =
        |amount, limits: Limits| network.select(amount, Scope::Global, &limits).expect_err("refused").to_string();
    let limits = Limits::default();
    assert_eq!(
        refused(Amount::Channels(1.0), limits),
        "11 of 11 units cannot be taken out: 9 is the most (hint: ask for less, or loosen `min_width`, `round_to` and \
         `max_share`)"
    );
    assert!(refused(Amount::Macs(0.99), limits).starts_with("0.99 of the macs cannot be taken out: 0.9118 is"));
    assert_eq!(refused(Amount::Params(1.5), limits), "`params` is 1.5; give a share from 0 to 1");
    assert_eq!(refused(Amount::Bytes(f64::NAN), limits), "`bytes` is NaN; give a share from 0 to 1");
    let none = Limits { round_to: 0, ..limits };
    assert_eq!(refused(Amount::Macs(0.1), none), "`round_to` is 0; give a number of at least 1");
    let most = Limits { max_share: -0.5, ..limits };
    assert_eq!(refused(Amount::Macs(0.1), most), "`max_share` is -0.5; give a share from 0 to 1");
    let refused = |importance: Vec<Option<Vec<f64>>>| {
        let network = Network { importance, ..dense() };
        network.select(Amount::Macs(0.1), Scope::Global, &limits).expect_err("refused").to_string()
    };
    assert_eq!(refused(vec![None, None]), "nothing can be pruned: no group that can lose units is asked for");
    for wrong in [vec![None], vec![None, Some(vec![1.0])], vec![None, Some(vec![f64::NAN; 5])]] {
        assert!(refused(wrong).starts_with("`importance` should have a finite number for each unit"));
    }
}

#[test]
fn a_caller_says_what_is_enough() {
    let network = dense();
    let order = network.order(Scope::Global, &Limits::default());
    let mut n_asked = 0;
    let bytes = |graph: &Graph| graph.initializers.values().map(Tensor::n_bytes).sum::<usize>();
    let half = bytes(&network.graph) / 2;
    let selection = select_until(&network.graph, &network.types, &network.groups, &order, |graph| {
        n_asked += 1;
        Ok(bytes(graph) <= half)
    });
    let selection = selection.expect("half can go");
    let n = (0..=order.len()).find(|&n| order.prefix(n) == selection).expect("part of the order");
    let left =
        |n| bytes(&remove(&network.graph, &network.types, &order.prefix(n).removals(&network.groups)).expect("less"));
    assert!(left(n) <= half && left(n - 1) > half && n_asked <= 5, "{n}, {n_asked}");
    let never = select_until(&network.graph, &network.types, &network.groups, &order, |_| Ok(false));
    assert!(never.expect_err("never enough").to_string().starts_with("what is asked for cannot be taken out: 9 of 11"));
}

#[test]
fn patterns_mean_groups_by_weights_and_nodes() {
    let network = Network::new(random_graphs::convolutional(&[Layer::Quantized { channels: 5 }], false, 7));
    let asked = |only: &[&str], exclude: &[&str]| {
        let texts = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<String>>();
        asked(&network.graph, &network.groups, &texts(only), &texts(exclude)).map_err(|error| error.to_string())
    };
    assert_eq!(asked(&[], &[]), Ok(vec![true, true]));
    assert_eq!(asked(&["weight"], &[]), Ok(vec![true, false]));
    assert_eq!(asked(&["integers"], &[]), Ok(vec![false, true]));
    assert_eq!(
        asked(&["Conv"], &["conv_2"]),
        Ok(vec![true, false]),
        "a weight behind DequantizeLinear is its reader's"
    );
    assert_eq!(asked(&["*"], &["int*"]), Ok(vec![true, false]));
    let hint = "(hint: `aludel inspect --groups` lists the groups)";
    assert_eq!(asked(&[], &["conv_9"]), Err(format!("`conv_9` means nothing in the network {hint}")));
    let left = asked(&["conv"], &["weight"]).expect_err("nothing is left");
    assert_eq!(left, "nothing can be pruned: the patterns leave no group (hint: `aludel inspect --groups` lists them)");
    let held = asked(&["weight_2"], &[]).expect_err("it makes the output");
    assert!(held.starts_with("nothing can be pruned: 3 of weight_2[0]: `"), "{held}");
}
