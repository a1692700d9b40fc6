#!/usr/bin/env python3
"""Reads TensorBoard event files as TensorBoard does and prints what is in them, a line a scalar: tag, step, value.

    python tests/tools/read_tfevents.py [--lines METRICS.jsonl] FOLDER_OR_FILE...

With --lines, compares instead: every number of the JSON lines must be there as a scalar of its step, to the precision of
`f32`, and nothing else. Exits 1 if a file holds no scalars, or other ones. Needs the package `tensorboard`; nothing of aludel's build or tests does.
"""

import argparse
import json
import struct
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


def lines(path):
    with open(path, encoding="utf-8") as file:
        for line in map(json.loads, file):
            step = line.pop("step")
            line.pop("epoch")
            for tag, value in line.items():
                yield tag, step, struct.unpack("f", struct.pack("f", value))[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines")
    parser.add_argument("paths", nargs="+")
    arguments = parser.parse_args()
    expected = sorted(lines(arguments.lines)) if arguments.lines else None
    status = 0
    for path in arguments.paths:
        found = list(scalars(path))
        if not found:
            print(f"{path}: no scalars", file=sys.stderr)
            status = 1
        elif expected is None:
            for tag, step, value in found:
                print(f"{tag}\t{step}\t{value:.9g}")
        elif sorted(found) != expected:
            wrong = set(found).symmetric_difference(expected)
            print(f"{path}: {len(wrong)} scalars differ, such as {sorted(wrong)[:3]}", file=sys.stderr)
            status = 1
        else:
            tags = ", ".join(sorted({tag for tag, _, _ in found}))
            print(f"{path}: {len(found)} scalars, as in {arguments.lines}: {tags}")
    return status


if __name__ == "__main__":
    sys.exit(main())
