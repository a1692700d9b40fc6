#!/usr/bin/env python3
"""Runs onnx.checker with full_check (shape inference included) on files; prints what it refuses, exits 1 if anything.

    python tests/tools/check_onnx.py FILE.onnx...

Needs the package `onnx`; nothing of aludel's build or tests does.
"""

import sys

import onnx


def problem(path):
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # the checker has no common class of errors
        return str(error)
    return None


def main(paths):
    if not paths:
        sys.exit(__doc__)
    problems = {path: problem(path) for path in paths}
    refused = {path: text for path, text in problems.items() if text}
    for path, text in refused.items():
        print(f"{path}: {text}")
    print(f"{len(paths) - len(refused)} of {len(paths)} pass", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
