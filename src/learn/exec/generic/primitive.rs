//! One primitive on candle's tensors.

use candle_core::{D, DType, Result, Tensor};

use super::{Generic, Held, at, plain, quantize, recurrent, reference_dtype, unary, window};
use crate::graph::eval;
use crate::graph::op::{Cast, Op, RoundMode};
use crate::graph::tensor;
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{AxisMap, Kind, Primitive, Program, Reduction, Step};
use crate::learn::exec::quantization::check_scales;
use crate::learn::exec::random;
use crate::learn::kernels::elementwise::{Binary, Needs, Side, Unary};

/// The step's outputs.
pub(super) fn compute(
    backend: &Generic,
    program: &Program,
    step: &Step,
    held: &[Option<Held>],
    seed: u64,
) -> std::result::Result<Vec<Held>, ExecError> {
    let node = || program.origin(step).to_string();
    match &step.primitive {
        Primitive::Reference { op, present } => reference(backend, program, step, (op, present), held),
        Primitive::Gather(axis) => {
            let indices = Held::of(held, step, 1).plain();
            let x = Held::of(held, step, 0).device();
            let rows = row_numbers(indices, x.dims()[*axis], node)?;
            let gathered = gather(x, *axis, rows, program.shape(step.outputs[0]));
            Ok(vec![Held::Device(gathered.map_err(|error| at(&node(), error))?)])
        }
        Primitive::GatherGradient(axis) => {
            let shape = program.shape(step.outputs[0]);
            let rows = row_numbers(Held::of(held, step, 1).plain(), shape[*axis], node)?;
            let dx = gather_gradient(Held::of(held, step, 0).device(), *axis, rows, shape);
            Ok(vec![Held::Device(dx.map_err(|error| at(&node(), error))?)])
        }
        Primitive::ScatterRows => {
            let x = Held::of(held, step, 0).device();
            let rows = row_numbers(Held::of(held, step, 1).plain(), x.dims()[0], node)?;
            let y = scatter_rows(x, &rows, Held::of(held, step, 2).device());
            Ok(vec![Held::Device(y.map_err(|error| at(&node(), error))?)])
        }
        Primitive::FakeQuantize(_) => {
            let scales = Held::of(held, step, 1).device();
            let scales = scales.to_dtype(DType::F64).and_then(|scales| scales.flatten_all()?.to_vec1::<f64>());
            check_scales(program.origin(step), scales.map_err(|error| at(&node(), error))?)?;
            let outputs = on_device(backend, program, step, held, seed).map_err(|error| at(&node(), error))?;
            Ok(outputs.into_iter().map(Held::Device).collect())
        }
        _ => {
            let outputs = on_device(backend, program, step, held, seed).map_err(|error| at(&node(), error))?;
            Ok(outputs.into_iter().map(Held::Device).collect())
        }
    }
}

fn on_device(
    backend: &Generic,
    program: &Program,
    step: &Step,
    held: &[Option<Held>],
    seed: u64,
) -> Result<Vec<Tensor>> {
    let input = |position: usize| Held::of(held, step, position).device();
    let shape = program.shape(step.outputs[0]);
    let n_inputs = step.inputs.len();
    let y = match &step.primitive {
        Primitive::Unary(function) => unary::forward(*function, input(0))?,
        Primitive::UnaryGradient(function) => {
            // the derivative reads the one of the two that was kept, or neither
            let n_kept = usize::from(function.needs() != Needs::Nothing);
            (unary::derivative(*function, input(0), input(0))? * input(n_kept))?
        }
        Primitive::Binary(function) => binary(*function, input(0), input(1))?,
        Primitive::BinaryGradient(function, side) => {
            let [a, b] = [input(0).broadcast_as(shape)?, input(1).broadcast_as(shape)?];
            (binary_derivative(*function, *side, &a, &b)? * input(2))?
        }
        Primitive::Equal => input(0).broadcast_eq(input(1))?.to_dtype(backend.dtype)?,
        Primitive::Reduce(how, axes) => reduce(*how, input(0), axes)?,
        Primitive::Expand => input(0).broadcast_as(shape)?,
        Primitive::Reshape => input(0).reshape(shape)?,
        Primitive::Transpose(permutation) => input(0).permute(permutation.as_slice())?,
        Primitive::Slice { starts, steps } => slice(input(0), starts, steps, shape)?,
        Primitive::SliceGradient { starts, steps } => slice_gradient(input(0), starts, steps, shape)?,
        Primitive::Concat(axis) => {
            let parts = (0..n_inputs).map(|idx| input(idx).contiguous()).collect::<Result<Vec<_>>>()?;
            Tensor::cat(&parts, *axis)?
        }
        Primitive::Pad { begins, value } => pad(input(0), begins, *value, shape)?,
        Primitive::MapAxis(axis, map) => map_axis(input(0), *axis, map)?,
        Primitive::CumSum { axis, exclusive, reverse } => cum_sum(input(0), *axis, *exclusive, *reverse)?,
        Primitive::MatMul { transpose_a, transpose_b } => {
            oriented(input(0), *transpose_a)?.broadcast_matmul(&oriented(input(1), *transpose_b)?)?
        }
        Primitive::Linear { transposed, relu } => {
            let x = input(0).reshape(((), *input(0).dims().last().expect("x has columns")))?;
            let y = x.matmul(&oriented(input(1), *transposed)?)?.reshape(shape)?.broadcast_add(input(2))?;
            if *relu { unary::forward(Unary::Relu, &y)? } else { y }
        }
        Primitive::Conv(conv) => window::conv(conv, input(0), input(1), (n_inputs > 2).then(|| input(2)), shape)?,
        Primitive::ConvInputGradient(conv) => window::conv_input_gradient(conv, input(0), input(1), shape)?,
        Primitive::ConvWeightGradient(conv) => window::conv_weight_gradient(conv, input(0), input(1), shape)?,
        Primitive::MaxPool(pool) => {
            let (y, positions) = window::max_pool(pool, input(0), shape)?;
            return Ok(vec![y, positions]);
        }
        Primitive::MaxPoolGradient(_) => window::max_pool_gradient(input(0), input(1), shape)?,
        Primitive::AveragePool { window: pool, count_padding } => {
            window::average_pool(pool, *count_padding, input(0), shape)?
        }
        Primitive::AveragePoolGradient { window: pool, count_padding } => {
            window::average_pool_gradient(pool, *count_padding, input(0), shape)?
        }
        Primitive::Softmax(axis) => log_softmax(input(0), *axis)?.exp()?,
        Primitive::SoftmaxGradient(axis) => {
            let (y, dy) = (input(0), input(1));
            let sum = (y * dy)?.sum_keepdim(*axis)?;
            (y * dy.broadcast_sub(&sum)?)?
        }
        Primitive::LogSoftmax(axis) => log_softmax(input(0), *axis)?,
        Primitive::LogSoftmaxGradient(axis) => {
            let (y, dy) = (input(0), input(1));
            (dy - y.exp()?.broadcast_mul(&dy.sum_keepdim(*axis)?)?)?
        }
        Primitive::LayerNorm { axis, epsilon } => {
            return layer_norm(input(0), input(1), (n_inputs > 2).then(|| input(2)), *axis, *epsilon);
        }
        Primitive::LayerNormGradient { axis } => {
            return layer_norm_gradient([0, 1, 2, 3, 4].map(input), *axis);
        }
        Primitive::BatchNorm { epsilon, relu } => return batch_norm([0, 1, 2].map(input), *epsilon, *relu),
        Primitive::BatchNormGradient { relu } => {
            let dy = if *relu { (input(5) * input(6).gt(0.0)?.to_dtype(backend.dtype)?)? } else { input(5).clone() };
            return batch_norm_gradient([input(0), input(1), input(3), input(4), &dy]);
        }
        Primitive::Where => {
            let condition = Held::of(held, step, 0).plain();
            let truths = condition.to_vec::<bool>().map_err(candle_core::Error::wrap)?;
            let truths: Vec<u8> = truths.into_iter().map(u8::from).collect();
            let condition = Tensor::from_vec(truths, condition.shape(), &backend.device)?;
            let [a, b] = [input(1).broadcast_as(shape)?, input(2).broadcast_as(shape)?];
            condition.broadcast_as(shape)?.where_cond(&a, &b)?
        }
        Primitive::Attention { n_heads, scale } => {
            let mask = (n_inputs > 3).then(|| input(3));
            return attention([0, 1, 2].map(input), mask, *n_heads, *scale);
        }
        Primitive::AttentionGradient { n_heads, scale } => {
            return attention_gradient([0, 1, 2, 3, 4].map(input), *n_heads, *scale);
        }
        Primitive::GruCell => return recurrent::gru_cell([0, 1, 2].map(input)),
        Primitive::GruCellGradient => return recurrent::gru_cell_gradient([0, 1, 2, 3].map(input)),
        Primitive::LstmCell => return recurrent::lstm_cell([0, 1, 2].map(input)),
        Primitive::LstmCellGradient => return recurrent::lstm_cell_gradient([0, 1, 2, 3, 4].map(input)),
        Primitive::Dropout { ratio, stream } => {
            let factors = random::dropout(program.n_elements(step.outputs[0]), *ratio, seed, *stream);
            let mask = Tensor::from_vec(factors, shape, &backend.device)?.to_dtype(backend.dtype)?;
            return Ok(vec![(input(0) * &mask)?, mask]);
        }
        Primitive::RoundTo(to) => {
            let rounded = cast(cast(plain(input(0))?, to.clone())?, exact(reference_dtype(backend.dtype)))?;
            backend.hold(Kind::Float, &rounded)?.device().clone()
        }
        Primitive::FakeQuantize(quantization) => quantize::forward(*quantization, [0, 1, 2].map(input))?,
        Primitive::FakeQuantizeGradient(quantization) => {
            (quantize::input_derivative(*quantization, [0, 1, 2].map(input))? * input(3))?
        }
        Primitive::FakeQuantizeScaleGradient(quantization) => {
            (quantize::scale_derivative(*quantization, [0, 1, 2].map(input))? * input(3))?
        }
        Primitive::FromPlain => {
            let numbers = Held::of(held, step, 0).plain().clone();
            backend.hold(Kind::Float, &cast(numbers, exact(reference_dtype(backend.dtype)))?)?.device().clone()
        }
        Primitive::Gather(_) | Primitive::GatherGradient(_) | Primitive::ScatterRows | Primitive::Reference { .. } => {
            unreachable!("they are computed with what is plain")
        }
    };
    Ok(vec![y.contiguous()?])
}

/// To a type in which integers and truth values keep their value.
fn exact(to: tensor::DType) -> Cast {
    Cast { to, saturate: true, round_mode: RoundMode::Up }
}

/// As the reference interpreter casts.
fn cast(tensor: tensor::Tensor, to: Cast) -> Result<tensor::Tensor> {
    let made = eval::operator(&Op::Cast(to), &[Some(tensor)], 1).map_err(candle_core::Error::wrap)?;
    Ok(made.into_iter().flatten().next().expect("Cast has an output"))
}

fn reference(
    backend: &Generic,
    program: &Program,
    step: &Step,
    (op, present): (&Op, &[bool]),
    held: &[Option<Held>],
) -> std::result::Result<Vec<Held>, ExecError> {
    let node = || program.origin(step).to_string();
    let mut given = step.inputs.iter();
    let mut inputs = Vec::with_capacity(present.len());
    for &is_present in present {
        inputs.push(match is_present.then(|| given.next()).flatten() {
            None => None,
            Some(&id) => Some(match held[id].as_ref().expect("steps are in the order in which they read") {
                Held::Plain(tensor) => tensor.clone(),
                Held::Device(tensor) => plain(tensor).map_err(|error| at(&node(), error))?,
            }),
        });
    }
    let outputs = eval::operator(op, &inputs, step.outputs.len()).or_else(|refusal| {
        // some operators, those that quantize, are not defined for `f64`
        let narrow = |tensor: &tensor::Tensor| match tensor.dtype() {
            tensor::DType::F64 => cast(tensor.clone(), exact(tensor::DType::F32)).ok(),
            _ => Some(tensor.clone()),
        };
        let inputs: Vec<_> = inputs.iter().map(|input| input.as_ref().and_then(narrow)).collect();
        eval::operator(op, &inputs, step.outputs.len()).map_err(|_| refusal)
    });
    let outputs = outputs.map_err(|source| ExecError::Eval { node: node(), source })?;
    let outputs = outputs.into_iter().chain(std::iter::repeat(None)).zip(&step.outputs).map(|(output, &id)| {
        let kind = program.values[id].kind;
        let empty = || tensor::Tensor::vector(Vec::<f32>::new());
        backend.hold(kind, &output.unwrap_or_else(empty)).map_err(|error| at(&node(), error))
    });
    outputs.collect()
}

/// Indices as numbers of rows, those that count from the end made positive.
fn row_numbers(
    indices: &tensor::Tensor,
    size: usize,
    node: impl Fn() -> String,
) -> std::result::Result<Vec<u32>, ExecError> {
    let indices = super::super::indices::positive(indices, size).map_err(|index| ExecError::Index {
        node: node(),
        index,
        size,
    })?;
    Ok(indices.into_iter().map(|index| u32::try_from(index).expect("an axis has fewer than 2³² places")).collect())
}

fn gather(x: &Tensor, axis: usize, rows: Vec<u32>, shape: &[usize]) -> Result<Tensor> {
    let rows = Tensor::new(rows, x.device())?;
    x.contiguous()?.index_select(&rows, axis)?.reshape(shape)
}

fn gather_gradient(dy: &Tensor, axis: usize, rows: Vec<u32>, shape: &[usize]) -> Result<Tensor> {
    let dy = dy.reshape([&shape[..axis], &[rows.len()], &shape[axis + 1..]].concat())?.contiguous()?;
    let rows = Tensor::new(rows, dy.device())?;
    Tensor::zeros(shape, dy.dtype(), dy.device())?.index_add(&rows, &dy, axis)
}

fn scatter_rows(x: &Tensor, rows: &[u32], updates: &Tensor) -> Result<Tensor> {
    let n_rows = x.dim(0)?;
    let row_shape = &x.dims()[1..];
    let updates = updates.reshape([&[rows.len()], row_shape].concat())?;
    // where each row of the output comes from: rows of x, then rows of the updates
    let mut sources: Vec<u32> = (0..u32::try_from(n_rows).expect("a tensor has fewer than 2³² rows")).collect();
    for (update_idx, &row) in rows.iter().enumerate() {
        sources[row as usize] = u32::try_from(n_rows + update_idx).expect("a tensor has fewer than 2³² rows");
    }
    Tensor::cat(&[&x.contiguous()?, &updates.contiguous()?], 0)?.index_select(&Tensor::new(sources, x.device())?, 0)
}

fn binary(function: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match function {
        Binary::Add => a.broadcast_add(b),
        Binary::Sub => a.broadcast_sub(b),
        Binary::Mul => a.broadcast_mul(b),
        Binary::Div => a.broadcast_div(b),
        Binary::Max => a.broadcast_maximum(b),
        Binary::Min => a.broadcast_minimum(b),
        Binary::Pow => {
            let shape = a.shape().broadcast_shape_binary_op(b.shape(), "pow")?;
            on_host(&a.broadcast_as(&shape)?, &b.broadcast_as(&shape)?, f64::powf)
        }
        Binary::PRelu => {
            let shape = a.shape().broadcast_shape_binary_op(b.shape(), "prelu")?;
            let a = a.broadcast_as(&shape)?.contiguous()?;
            a.lt(0.0)?.where_cond(&a.broadcast_mul(b)?, &a)
        }
    }
}

/// `∂binary/∂side` of two tensors of the same shape.
fn binary_derivative(function: Binary, side: Side, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let share = |mine: &Tensor, other: &Tensor| {
        let halves = |condition: Tensor| condition.to_dtype(a.dtype())?.affine(0.5, 0.0);
        halves(mine.gt(other)?)? + halves(mine.ge(other)?)?
    };
    match (function, side) {
        (Binary::Add, _) | (Binary::Sub, Side::Left) => a.ones_like(),
        (Binary::Sub, Side::Right) => a.ones_like()?.neg(),
        (Binary::Mul, Side::Left) => Ok(b.clone()),
        (Binary::Mul, Side::Right) => Ok(a.clone()),
        (Binary::Div, Side::Left) => b.recip(),
        (Binary::Div, Side::Right) => (a / b.sqr()?)?.neg(),
        (Binary::Pow, Side::Left) => on_host(a, b, |a, b| if b == 0.0 { 0.0 } else { b * a.powf(b - 1.0) }),
        (Binary::Pow, Side::Right) => on_host(a, b, |a, b| if a == 0.0 && b >= 0.0 { 0.0 } else { a.powf(b) * a.ln() }),
        (Binary::Max, Side::Left) | (Binary::Min, Side::Right) => share(a, b),
        (Binary::Max, Side::Right) | (Binary::Min, Side::Left) => share(b, a),
        (Binary::PRelu, Side::Left) => a.gt(0.0)?.where_cond(&a.ones_like()?, &b.contiguous()?),
        (Binary::PRelu, Side::Right) => a.lt(0.0)?.where_cond(&a.contiguous()?, &a.zeros_like()?),
    }
}

/// A function that candle does not have, on the host, of two tensors of the same shape.
fn on_host(a: &Tensor, b: &Tensor, function: impl Fn(f64, f64) -> f64) -> Result<Tensor> {
    let values = |x: &Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let made = values(a)?.into_iter().zip(values(b)?).map(|(a, b)| function(a, b)).collect();
    Tensor::from_vec(made, a.shape(), a.device())?.to_dtype(a.dtype())
}

fn reduce(how: Reduction, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let each = |reduce: fn(&Tensor, usize) -> Result<Tensor>| {
        axes.iter().try_fold(x.contiguous()?, |x, &axis| reduce(&x, axis))
    };
    match how {
        Reduction::Sum => x.sum_keepdim(axes),
        Reduction::Mean => {
            let n_reduced: usize = axes.iter().map(|&axis| x.dims()[axis]).product();
            x.sum_keepdim(axes)?.affine(1.0 / n_reduced as f64, 0.0)
        }
        Reduction::Max => each(|x, axis| x.max_keepdim(axis)),
        Reduction::Min => each(|x, axis| x.min_keepdim(axis)),
    }
}

/// The positions that a slice takes along one axis.
fn taken(start: usize, step: isize, length: usize, device: &candle_core::Device) -> Result<Tensor> {
    let position = |idx: usize| start.checked_add_signed(isize::try_from(idx).ok()? * step);
    let positions = (0..length).map(|idx| position(idx).and_then(|at| u32::try_from(at).ok()));
    let positions: Option<Vec<u32>> = positions.collect();
    Tensor::new(positions.expect("a slice lies inside its axis"), device)
}

fn slice(x: &Tensor, starts: &[usize], steps: &[isize], shape: &[usize]) -> Result<Tensor> {
    let mut x = x.contiguous()?;
    for axis in 0..shape.len() {
        if steps[axis] == 1 {
            x = x.narrow(axis, starts[axis], shape[axis])?;
        } else {
            x = x.contiguous()?.index_select(&taken(starts[axis], steps[axis], shape[axis], x.device())?, axis)?;
        }
    }
    Ok(x)
}

fn slice_gradient(dy: &Tensor, starts: &[usize], steps: &[isize], shape: &[usize]) -> Result<Tensor> {
    let mut dx = dy.contiguous()?;
    for axis in 0..shape.len() {
        let mut wider = dx.dims().to_vec();
        let positions = taken(starts[axis], steps[axis], wider[axis], dx.device())?;
        wider[axis] = shape[axis];
        dx = Tensor::zeros(wider, dx.dtype(), dx.device())?.index_add(&positions, &dx, axis)?;
    }
    Ok(dx)
}

fn pad(x: &Tensor, begins: &[usize], value: f64, shape: &[usize]) -> Result<Tensor> {
    let mut x = x.contiguous()?;
    for axis in 0..shape.len() {
        let filled = |length: usize| -> Result<Tensor> {
            let mut part = x.dims().to_vec();
            part[axis] = length;
            Tensor::zeros(part, x.dtype(), x.device())?.affine(1.0, value)
        };
        let end = shape[axis] - begins[axis] - x.dims()[axis];
        x = Tensor::cat(&[&filled(begins[axis])?, &x, &filled(end)?], axis)?;
    }
    Ok(x)
}

fn map_axis(x: &Tensor, axis: usize, map: &AxisMap) -> Result<Tensor> {
    let mut dense = vec![0f64; map.n_in * map.terms.len()];
    for (out_idx, terms) in map.terms.iter().enumerate() {
        for &(in_idx, weight) in terms {
            dense[in_idx * map.terms.len() + out_idx] += weight;
        }
    }
    let dense = Tensor::from_vec(dense, (map.n_in, map.terms.len()), x.device())?.to_dtype(x.dtype())?;
    let last = x.transpose(axis, D::Minus1)?.contiguous()?;
    let rows = last.reshape(((), map.n_in))?.matmul(&dense)?;
    let mut shape = last.dims().to_vec();
    *shape.last_mut().expect("there is an axis") = map.terms.len();
    rows.reshape(shape)?.transpose(axis, D::Minus1)
}

fn cum_sum(x: &Tensor, axis: usize, exclusive: bool, reverse: bool) -> Result<Tensor> {
    let size = x.dims()[axis];
    let reads = |from: usize, to: usize| {
        let before = if reverse { from > to } else { from < to };
        before || (from == to && !exclusive)
    };
    let terms = |to| (0..size).filter(|&from| reads(from, to)).map(|from| (from, 1.0)).collect();
    map_axis(x, axis, &AxisMap { n_in: size, terms: (0..size).map(terms).collect() })
}

fn oriented(x: &Tensor, transposed: bool) -> Result<Tensor> {
    if transposed { x.transpose(D::Minus1, D::Minus2)?.contiguous() } else { x.contiguous() }
}

fn log_softmax(x: &Tensor, axis: usize) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.contiguous()?.max_keepdim(axis)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(axis)?.log()?)
}

fn layer_norm(x: &Tensor, scale: &Tensor, bias: Option<&Tensor>, axis: usize, epsilon: f64) -> Result<Vec<Tensor>> {
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let n: usize = x.dims()[axis..].iter().product();
    let mean = x.sum_keepdim(axes.as_slice())?.affine(1.0 / n as f64, 0.0)?;
    let centered = x.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.sum_keepdim(axes.as_slice())?.affine(1.0 / n as f64, epsilon)?;
    let deviation = variance.sqrt()?.recip()?;
    let y = centered.broadcast_mul(&deviation)?.broadcast_mul(scale)?;
    let y = bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?;
    Ok(vec![y, mean, deviation])
}

fn layer_norm_gradient([x, scale, mean, deviation, dy]: [&Tensor; 5], axis: usize) -> Result<Vec<Tensor>> {
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let rows: Vec<usize> = (0..axis).collect();
    let normalized = x.broadcast_sub(mean)?.broadcast_mul(deviation)?;
    let scaled = dy.broadcast_mul(scale)?;
    let dx = normalized_gradient(&normalized, &scaled, &axes)?.broadcast_mul(deviation)?;
    let over_rows = |part: Tensor| part.sum_keepdim(rows.as_slice())?.reshape(scale.shape());
    Ok(vec![dx, over_rows((dy * &normalized)?)?, over_rows(dy.clone())?])
}

/// The gradient through subtracting the mean and dividing by the deviation, but for the factor `1 / deviation`.
fn normalized_gradient(normalized: &Tensor, dy: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let n: usize = axes.iter().map(|&axis| dy.dims()[axis]).product();
    let mean = |part: &Tensor| part.sum_keepdim(axes)?.affine(1.0 / n as f64, 0.0);
    let along = normalized.broadcast_mul(&mean(&(dy * normalized)?)?)?;
    dy.broadcast_sub(&mean(dy)?)? - along
}

/// All axes but the second, and the shape of a channel's number beside them.
fn channels(x: &Tensor) -> (Vec<usize>, Vec<usize>) {
    let axes = (0..x.rank()).filter(|&axis| axis != 1).collect();
    let shape = (0..x.rank()).map(|axis| if axis == 1 { x.dims()[1] } else { 1 }).collect();
    (axes, shape)
}

fn batch_norm([x, scale, bias]: [&Tensor; 3], epsilon: f64, relu: bool) -> Result<Vec<Tensor>> {
    let (axes, shape) = channels(x);
    let n = (x.elem_count() / x.dims()[1].max(1)) as f64;
    let mean = x.sum_keepdim(axes.as_slice())?.affine(1.0 / n, 0.0)?;
    let centered = x.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.sum_keepdim(axes.as_slice())?.affine(1.0 / n, 0.0)?;
    let deviation = variance.affine(1.0, epsilon)?.sqrt()?.recip()?;
    let scale_at = scale.reshape(shape.as_slice())?;
    let y = centered.broadcast_mul(&deviation)?.broadcast_mul(&scale_at)?;
    let y = y.broadcast_add(&bias.reshape(shape.as_slice())?)?;
    let y = if relu { unary::forward(Unary::Relu, &y)? } else { y };
    let flat = |part: &Tensor| part.reshape(scale.shape());
    Ok(vec![y, flat(&mean)?, flat(&deviation)?, flat(&variance)?])
}

fn batch_norm_gradient([x, scale, mean, deviation, dy]: [&Tensor; 5]) -> Result<Vec<Tensor>> {
    let (axes, shape) = channels(x);
    let beside = |part: &Tensor| part.reshape(shape.as_slice());
    let normalized = x.broadcast_sub(&beside(mean)?)?.broadcast_mul(&beside(deviation)?)?;
    let scaled = dy.broadcast_mul(&beside(scale)?)?;
    let dx = normalized_gradient(&normalized, &scaled, &axes)?.broadcast_mul(&beside(deviation)?)?;
    let over_rest = |part: &Tensor| part.sum_keepdim(axes.as_slice())?.reshape(scale.shape());
    Ok(vec![dx, over_rest(&(dy * &normalized)?)?, over_rest(dy)?])
}

/// `[batch, tokens, heads · size] → [batch, heads, tokens, size]`
fn split_heads(x: &Tensor, n_heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    x.reshape((batch, tokens, n_heads, width / n_heads))?.transpose(1, 2)?.contiguous()
}

/// The inverse of [`split_heads`].
fn join_heads(x: &Tensor) -> Result<Tensor> {
    let (batch, n_heads, tokens, size) = x.dims4()?;
    x.transpose(1, 2)?.contiguous()?.reshape((batch, tokens, n_heads * size))
}

fn attention([q, k, v]: [&Tensor; 3], mask: Option<&Tensor>, n_heads: usize, scale: f64) -> Result<Vec<Tensor>> {
    let [q, k, v] = [split_heads(q, n_heads)?, split_heads(k, n_heads)?, split_heads(v, n_heads)?];
    let scores = q.matmul(&oriented(&k, true)?)?.affine(scale, 0.0)?;
    let scores = mask.map_or(Ok(scores.clone()), |mask| scores.broadcast_add(mask))?;
    let probabilities = log_softmax(&scores, 3)?.exp()?;
    Ok(vec![join_heads(&probabilities.matmul(&v)?)?, probabilities])
}

fn attention_gradient([q, k, v, probabilities, dy]: [&Tensor; 5], n_heads: usize, scale: f64) -> Result<Vec<Tensor>> {
    let [q, k, v] = [split_heads(q, n_heads)?, split_heads(k, n_heads)?, split_heads(v, n_heads)?];
    let dy = split_heads(dy, n_heads)?;
    let dv = oriented(probabilities, true)?.matmul(&dy)?;
    let dp = dy.matmul(&oriented(&v, true)?)?;
    let row_sums = (&dp * probabilities)?.sum_keepdim(3)?;
    let scores = (probabilities * dp.broadcast_sub(&row_sums)?)?.affine(scale, 0.0)?;
    let dq = scores.matmul(&k)?;
    let dk = oriented(&scores, true)?.matmul(&q)?;
    Ok(vec![join_heads(&dq)?, join_heads(&dk)?, join_heads(&dv)?])
}
