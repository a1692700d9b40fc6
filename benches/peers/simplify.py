"""Simplifies a model with a Python tool: simplify.py onnxslim|onnxsim MODEL.onnx OUT.onnx

Prints the milliseconds that loading, simplifying and saving take, imports not counted. Exits with 3, and the reason on
standard error, where the tool does not take the model.
"""
import sys
import time

import onnx

tool, model_path, out_path = sys.argv[1:]
if tool == "onnxslim":
    import onnxslim

    def simplified(model):
        return onnxslim.slim(model)

else:
    import onnxsim

    def simplified(model):
        return onnxsim.simplify(model)[0]


start = time.perf_counter()
try:
    onnx.save(simplified(onnx.load(model_path)), out_path)
except Exception as error:
    print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
    sys.exit(3)
print(f"{(time.perf_counter() - start) * 1e3:.3f}")
