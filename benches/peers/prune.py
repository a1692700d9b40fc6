"""Structured pruning beside Torch-Pruning, on the same trained network and to the same MACs, before any recovery.

A Python with torch, torch-pruning, onnx, onnxruntime and numpy; arrays as `quantize.py data` writes them.

  prune.py side ALUDEL MODEL.onnx CALIB.npz TEST.npz [SHARE …]   both, in turns: accuracy and time at equal MACs
  prune.py torch MODEL.onnx TEST.npz OUT.json SHARE SCOPE    Torch-Pruning alone: L2, SCOPE local or global

MODEL.onnx is a residual network of the zoo as `aludel train` writes it: its weights carry the names of the PyTorch module below.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np


def arrays(path):
    with np.load(path) as archive:
        return archive["x"], archive["y"]


def resnet(path):
    """The network of the file as a PyTorch module."""
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import nn

    weights = {it.name: torch.from_numpy(numpy_helper.to_array(it).copy()) for it in onnx.load(path).graph.initializer}

    class Block(nn.Module):
        def __init__(self, n_in, n_out, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
            self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
            self.downsample = None
            if stride != 1 or n_in != n_out:
                self.downsample = nn.Sequential()
                self.downsample.add_module("conv", nn.Conv2d(n_in, n_out, 1, stride, bias=False))
                self.downsample.add_module("bn", nn.BatchNorm2d(n_out))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            n_out, n_in = weights["stem.conv.weight"].shape[:2]
            self.stem = nn.Sequential()
            self.stem.add_module("conv", nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False))
            self.stem.add_module("bn", nn.BatchNorm2d(n_out))
            self.stages = nn.ModuleList()
            while f"stages.{len(self.stages)}.0.conv1.weight" in weights:
                stage = nn.Sequential()
                while (key := f"stages.{len(self.stages)}.{len(stage)}.conv1.weight") in weights:
                    width, n_in = weights[key].shape[:2]
                    stage.append(Block(n_in, width, 2 if self.stages and not len(stage) else 1))
                self.stages.append(stage)
            self.head = nn.Linear(width, n_classes)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            for stage in self.stages:
                x = stage(x)
            return self.head(x.mean((2, 3)))

    last = [name for name in weights if weights[name].ndim == 2 and "stage" not in name][-1]
    n_classes = min(weights[last].shape)
    network = Network()
    state = network.state_dict()
    for name in state:
        if name in weights:
            state[name] = weights[name]
    bias = next(name for name in weights if weights[name].shape == (n_classes,))
    matrix = weights[last]
    state["head.weight"] = matrix if matrix.shape[0] == n_classes else matrix.T
    state["head.bias"] = weights[bias]
    network.load_state_dict(state)
    return network.eval()


def accuracy(network, x, label):
    import torch

    with torch.no_grad():
        said = [network(torch.from_numpy(part)).argmax(1).numpy() for part in np.array_split(x, max(1, len(x) // 250))]
    return float((np.concatenate(said) == label).mean())


def torch_pruning(path, test, out, share, scope):
    """Prunes until the MACs have gone down by the share: the ratio of channels by bisection, each from the whole network."""
    import torch
    import torch_pruning as tp

    torch.set_num_threads(1)
    x, label = arrays(test)
    example = torch.from_numpy(x[:1])
    whole, _ = tp.utils.count_ops_and_params(resnet(path), example)

    def pruned(ratio):
        network = resnet(path)
        began = time.perf_counter()
        pruner = tp.pruner.MetaPruner(
            network,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            global_pruning=scope == "global",
            ignored_layers=[network.head],
        )
        pruner.step()
        seconds = time.perf_counter() - began
        macs, _ = tp.utils.count_ops_and_params(network, example)
        return network, macs, seconds

    low, high = 0.0, 0.95
    for _ in range(12):
        middle = (low + high) / 2
        _, macs, _ = pruned(middle)
        low, high = (low, middle) if macs <= (1 - share) * whole else (middle, high)
    network, macs, _ = pruned(high)
    seconds = sorted(pruned(high)[2] for _ in range(5))[2]
    result = {"share": 1 - macs / whole, "accuracy": accuracy(network, x, label), "seconds": seconds}
    with open(out, "w") as file:
        json.dump(result, file)


def score(path, test):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    x, label = arrays(test)
    said = [session.run(None, {name: part})[0].argmax(1) for part in np.array_split(x, max(1, len(x) // 250))]
    return float((np.concatenate(said) == label).mean())


def side(aludel, model, calibration, test, *shares):
    print(f"whole network: {100 * score(model, test):.2f} % right")
    for share in shares or ("0.3", "0.5"):
        with tempfile.TemporaryDirectory() as folder:
            for scope in ("local", "global"):
                out = os.path.join(folder, "out.json")
                subprocess.run([sys.executable, __file__, "torch", model, test, out, share, scope], check=True)
                with open(out) as file:
                    result = json.load(file)
                told = f"MACs −{100 * result['share']:.1f} %, {100 * result['accuracy']:.2f} % right"
                print(f"{share} torch-pruning {scope}: {told}, groups and pruning {result['seconds']:.3f} s", flush=True)
                contenders = {"": [], " compensated": ["--data", calibration]}
                for what, extra in contenders.items():
                    pruned = os.path.join(folder, "pruned.onnx")
                    command = [aludel, "prune", model, "--macs", share, "--scope", scope, "-o", pruned, "--json", *extra]
                    seconds = []
                    for _ in range(5 if not extra else 1):
                        began = time.perf_counter()
                        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                        seconds.append(time.perf_counter() - began)
                    macs = 1 - report["after"]["macs"] / report["before"]["macs"]
                    told = f"MACs −{100 * macs:.1f} %, {100 * score(pruned, test):.2f} % right"
                    print(f"{share} aludel l2 {scope}{what}: {told}, whole process {sorted(seconds)[len(seconds) // 2]:.3f} s", flush=True)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    match command:
        case "side":
            side(*arguments)
        case "torch":
            path, test, out, share, scope = arguments
            torch_pruning(path, test, out, float(share), scope)
        case _:
            sys.exit(__doc__)
