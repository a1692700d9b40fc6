"""Milliseconds that Python's onnx takes to load a model and to infer its shapes: onnx_load.py MODEL.onnx

Each is the best of three in one process, imports not counted.
"""
import sys
import time

import onnx


def best_ms(work):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


load_ms = best_ms(lambda: onnx.load(sys.argv[1]))
model = onnx.load(sys.argv[1])
infer_ms = best_ms(lambda: onnx.shape_inference.infer_shapes(model, data_prop=True))
print(f"{load_ms:.3f} {infer_ms:.3f}")
