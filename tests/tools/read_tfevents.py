#!/usr/bin/env python3
"""Reads TensorBoard event files as TensorBoard does and prints what is in them, a line a scalar: tag, step, value.

    python tests/tools/read_tfevents.py FOLDER_OR_FILE...

Exits 1 if a file holds no scalars. Needs the package `tensorboard`; nothing of aludel's build or tests does.
"""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def scalars(path):
    events = EventAccumulator(path, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    for tag in tags["scalars"]:
        for event in events.Scalars(tag):
            yield tag, event.step, event.value
    # TensorBoard's own loader turns simple values into tensors.
    for tag in tags["tensors"]:
        for event in events.Tensors(tag):
            yield tag, event.step, float(tensor_util.make_ndarray(event.tensor_proto))


def main(paths):
    if not paths:
        sys.exit(__doc__)
    status = 0
    for path in paths:
        found = list(scalars(path))
        for tag, step, value in found:
            print(f"{tag}\t{step}\t{value:.9g}")
        if not found:
            print(f"{path}: no scalars", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
