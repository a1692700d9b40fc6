//! The shapes that kernels want, computed once a step and not once a run.

use crate::learn::exec::program::{AxisMap, ConvWindow, PoolWindow, Primitive, Program, Step};
use crate::learn::kernels::linear_map::AxisTable;
use crate::learn::kernels::window::{ConvShape, PoolShape, Window};

/// What a step's kernel is told of shapes.
#[derive(Clone, Debug)]
pub(super) enum Shapes {
    /// Of a convolution or one of its gradients.
    Conv(ConvShape),
    /// Of a pooling or its gradient.
    Pool(PoolShape),
    /// Of a linear map along an axis.
    Axis(AxisTable),
    /// Nothing, or there is no kernel for the shape.
    None,
}

impl Shapes {
    pub(super) fn of(program: &Program, step: &Step) -> Shapes {
        let input = |position: usize| program.shape(step.inputs[position]);
        let output = program.shape(step.outputs[0]);
        let conv = |window: &ConvWindow, x: &[usize], weight: &[usize], y: &[usize]| {
            conv_shape(window, x, weight, y).map_or(Shapes::None, Shapes::Conv)
        };
        let pool =
            |window: &PoolWindow, x: &[usize], y: &[usize]| pool_shape(window, x, y).map_or(Shapes::None, Shapes::Pool);
        match &step.primitive {
            Primitive::Conv(window) => conv(window, input(0), input(1), output),
            Primitive::ConvInputGradient(window) => conv(window, output, input(1), input(0)),
            Primitive::ConvWeightGradient(window) => conv(window, input(0), output, input(1)),
            Primitive::MaxPool(window) | Primitive::AveragePool { window, .. } => pool(window, input(0), output),
            Primitive::MaxPoolGradient(window) | Primitive::AveragePoolGradient { window, .. } => {
                pool(window, output, input(0))
            }
            Primitive::MapAxis(_, map) => axis_table(map).map_or(Shapes::None, Shapes::Axis),
            _ => Shapes::None,
        }
    }
}

fn axis_table(map: &AxisMap) -> Option<AxisTable> {
    let lists = map.terms.iter().map(|terms| terms.iter().map(|&(position, weight)| (position, weight as f32)));
    AxisTable::new(map.n_in, lists)
}

/// A line is a plane of height 1.
fn plane<T: Copy>(spatial: &[T], one: T) -> Option<[T; 2]> {
    match *spatial {
        [width] => Some([one, width]),
        [height, width] => Some([height, width]),
        _ => None,
    }
}

fn window(kernel: &[usize], strides: &[usize], dilations: &[usize], pads: &[(usize, usize)]) -> Option<Window> {
    Some(Window {
        kernel: plane(kernel, 1)?,
        strides: plane(strides, 1)?,
        dilations: plane(dilations, 1)?,
        pads: plane(pads, (0, 0))?.map(|(begin, end)| [begin, end]),
    })
}

fn conv_shape(conv: &ConvWindow, x: &[usize], weight: &[usize], y: &[usize]) -> Option<ConvShape> {
    let window = window(&weight[2..], &conv.strides, &conv.dilations, &conv.pads)?;
    let [input, output] = [plane(&x[2..], 1)?, plane(&y[2..], 1)?];
    ConvShape::new(x[0], [x[1], y[1]], conv.groups, input, output, window).ok()
}

fn pool_shape(pool: &PoolWindow, x: &[usize], y: &[usize]) -> Option<PoolShape> {
    let window = window(&pool.kernel, &pool.strides, &pool.dilations, &pool.pads)?;
    PoolShape::new(x[0] * x[1], plane(&x[2..], 1)?, plane(&y[2..], 1)?, window).ok()
}
