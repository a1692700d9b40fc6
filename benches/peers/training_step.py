"""A training step in PyTorch on the CPU: training_step.py CASE THREADS contiguous|channels-last

Answers each line of standard input, a number of steps, with a line of JSON: the milliseconds of each step and the resident
memory of the process, in bytes: its peak so far, and what it was with everything imported and nothing built.
The networks, losses and optimizers are those of benches/training_step.rs.
"""
import json
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional

case, threads, layout = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(0)
channels_last = layout == "channels-last"


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def conv(c_in, c_out, kernel=3, stride=1, groups=1):
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]


def head(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def cnn(c_in):
    return nn.Sequential(*conv(c_in, 32), *conv(32, 64, stride=2), *conv(64, 128, stride=2), *head(128))


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(128, 256)

    def forward(self, x):
        return self.layer(x)[0]


def classes(n):
    return functional.cross_entropy, torch.randint(0, 10, (n,))


mlp_layers = [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)]
import_bytes = resident()
if case.startswith("mlp"):
    net, x = nn.Sequential(*mlp_layers), torch.randn(128, 784)
    loss, target = classes(128)
elif case in ("cnn-28", "cnn-32"):
    c_in, size = (1, 28) if case == "cnn-28" else (3, 32)
    net, x = cnn(c_in), torch.randn(64, c_in, size, size)
    loss, target = classes(64)
elif case == "depthwise-block":
    net = nn.Sequential(*conv(64, 64, groups=64), *conv(64, 64, kernel=1), *head(64))
    x = torch.randn(32, 64, 32, 32)
    loss, target = classes(32)
elif case == "transformer-layer":
    net = nn.TransformerEncoderLayer(384, 12, 1536, dropout=0.0, activation="gelu", batch_first=True)
    x = torch.randn(16, 64, 384)
    loss, target = functional.mse_loss, torch.zeros(16, 64, 384)
elif case == "gru-layer":
    net, x = Gru(), torch.randn(64, 32, 128)
    loss, target = functional.mse_loss, torch.zeros(64, 32, 256)
else:
    sys.exit(f"no case `{case}`")
if channels_last:
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
if case == "mlp-sgd":
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)
else:
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)


def step():
    optimizer.zero_grad()
    loss(net(x), target).backward()
    optimizer.step()


for line in sys.stdin:
    times_ms = []
    for _ in range(int(line)):
        start = time.perf_counter()
        step()
        times_ms.append((time.perf_counter() - start) * 1e3)
    answer = {"times_ms": times_ms, "peak_bytes": resident(), "before_bytes": import_bytes, "version": torch.__version__}
    print(json.dumps(answer), flush=True)
