"""What users would otherwise quantize with, and a score for anybody's file.

quantize.py data cifar10-subset|fashion-mnist|mnist FOLDER   FOLDER/NAME.npz (512 samples, x) and NAME_test.npz (x, y), from ALUDEL_DATA
quantize.py ptq MODEL CALIB.npz OUT.onnx [minmax|entropy|percentile]   onnxruntime.quantization as it is documented
quantize.py nncf MODEL CALIB.npz OUT.onnx      NNCF as it is documented for ONNX (`pip install nncf onnx onnxruntime`)
quantize.py cost ALUDEL MODEL CALIB.npz [N]   whole processes in turns: seconds (median, least) and peak MB of aludel and of `ptq`
quantize.py score TEST.npz FILE.onnx ...   how many samples onnxruntime puts right, and its median time for one

`data` normalises to mean 0 and deviation 1 by channel over the training pictures, MNIST not at all. `ptq` preprocesses, then
writes Q/DQ with u8 activations and i8 weights by channel, and prints its seconds (imports not counted) and peak MB.
"""
import gzip
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np


def idx(path):
    data = gzip.open(path).read()
    rank = data[3]
    shape = struct.unpack(">" + "I" * rank, data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def cifar(path):
    rows = np.frombuffer(gzip.open(path).read(), np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


def data(name, folder):
    root = os.path.join(os.environ["ALUDEL_DATA"], name)
    if name == "cifar10-subset":
        train, _ = cifar(os.path.join(root, "cifar10_train.bin.gz"))
        test, labels = cifar(os.path.join(root, "cifar10_val.bin.gz"))
    else:
        prefix = "test" if name == "fashion-mnist" else "t10k"
        train = idx(os.path.join(root, "train-images-idx3-ubyte.gz"))[:, None]
        test = idx(os.path.join(root, f"{prefix}-images-idx3-ubyte.gz"))[:, None]
        labels = idx(os.path.join(root, f"{prefix}-labels-idx1-ubyte.gz"))
    train, test = train.astype(np.float32), test.astype(np.float32)
    if name != "mnist":
        mean, deviation = (of(train, axis=(0, 2, 3), keepdims=True) for of in (np.mean, np.std))
        train, test = ((x - mean) / deviation for x in (train[:512], test))
    np.savez(os.path.join(folder, f"{name}.npz"), x=train[:512].astype(np.float32))
    np.savez(os.path.join(folder, f"{name}_test.npz"), x=test.astype(np.float32), y=labels)


def ptq(model, calibration, out, method="minmax"):
    import onnxruntime as ort
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    began = time.perf_counter()
    prepared = out + ".pre.onnx"
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    inputs = [i.name for i in ort.InferenceSession(prepared, providers=["CPUExecutionProvider"]).get_inputs()]
    arrays = np.load(calibration)
    arrays = {name: arrays[name if name in arrays.files else "x"] for name in inputs}

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            n = len(next(iter(arrays.values())))
            self.rows = iter({name: array[i : i + 1] for name, array in arrays.items()} for i in range(n))

        def get_next(self):
            return next(self.rows, None)

    methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    q.quantize_static(
        prepared, out, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True, activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8, calibrate_method=getattr(q.CalibrationMethod, methods[method]),
    )
    os.remove(prepared)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{out}: {time.perf_counter() - began:.2f} s, peak {peak:.0f} MB")


def nncf_ptq(model, calibration, out):
    import nncf
    import onnx
    import onnxruntime as ort

    began = time.perf_counter()
    inputs = [i.name for i in ort.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()]
    arrays = np.load(calibration)
    arrays = {name: arrays[name if name in arrays.files else "x"] for name in inputs}
    n = len(next(iter(arrays.values())))
    rows = [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(n)]
    onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(rows), subset_size=n), out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{out}: {time.perf_counter() - began:.2f} s, peak {peak:.0f} MB")


def whole(command):
    """Seconds and peak MB of a process, imports and loading included."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command}: {said}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def cost(aludel, model, calibration, n="5"):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "q.onnx")
        ours = [aludel, "quantize", model, "--runtime", "ort", "--form", "qdq", "--keep-slow", "--data", calibration, "-o", out]
        theirs = [sys.executable, __file__, "ptq", model, calibration, out]
        contenders = {
            "aludel min-max": ours + ["--calibrator", "min-max"],
            "aludel entropy": ours + ["--calibrator", "entropy"],
            "aludel mse": ours + ["--calibrator", "mse"],
            "peer minmax": theirs,
            "peer entropy": theirs + ["entropy"],
            "peer percentile": theirs + ["percentile"],
        }
        measured = {name: [] for name in contenders}
        for _ in range(int(n)):
            for name, command in contenders.items():
                measured[name].append(whole(command))
    base = np.median([seconds for seconds, _ in measured["aludel min-max"]])
    for name, runs in measured.items():
        seconds = [seconds for seconds, _ in runs]
        peak = max(megabytes for _, megabytes in runs)
        median = np.median(seconds)
        print(f"{name:16} {median:6.2f} s (least {min(seconds):.2f}), {median / base:5.1f} x, peak {peak:5.0f} MB")


def score(test, *files):
    import onnxruntime as ort

    arrays = np.load(test)
    x, y = arrays["x"], arrays["y"]
    for file in files:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        size = given.shape[0] if isinstance(given.shape[0], int) else 100
        answers = [session.run(None, {given.name: x[i : i + size]})[0] for i in range(0, len(x), size)]
        right = (np.concatenate(answers).reshape(len(x), -1).argmax(1) == y).sum()
        times = []
        for _ in range(500):
            began = time.perf_counter()
            session.run(None, {given.name: x[:1]})
            times.append(time.perf_counter() - began)
        print(f"{file}: {right} of {len(x)} right, {1e6 * np.median(times):.0f} us")


if __name__ == "__main__":
    {"data": data, "ptq": ptq, "nncf": nncf_ptq, "cost": cost, "score": score}[sys.argv[1]](*sys.argv[2:])
