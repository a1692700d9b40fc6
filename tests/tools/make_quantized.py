#!/usr/bin/env python3
"""Quantizes a float model with onnxruntime.quantization, as its documentation has it: static, Q/DQ, uint8 activations,
int8 weights per channel, calibrated on seeded random inputs; every operator that it knows, Softmax included.

    python tests/tools/make_quantized.py FLOAT.onnx QUANTIZED.onnx

Needs the packages `onnx` and `onnxruntime`; nothing of aludel's build or tests does.
"""

import sys

import numpy
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

N_SAMPLES = 16


class RandomInputs(CalibrationDataReader):
    """Samples uniform in [-1, 1) for every input; open dimensions are 1."""

    def __init__(self, path):
        random = numpy.random.default_rng(0)
        graph = onnx.load(path).graph
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in constants]
        shapes = {value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim] for value in inputs}
        samples = [
            {name: random.uniform(-1, 1, shape).astype(numpy.float32) for name, shape in shapes.items()}
            for _ in range(N_SAMPLES)
        ]
        self.samples = iter(samples)

    def get_next(self):
        return next(self.samples, None)


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    source, target = arguments
    quantize_static(
        source,
        target,
        RandomInputs(source),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
