#!/usr/bin/env python3
"""How much more of the test split some networks put right than others, sample by sample.

    paired.py alone-1.json distilled-1.json alone-2.json distilled-2.json ...

Pairs of reports as `aludel run --json` prints them, the last step of each: the gain in points, each pair's and the mean over
all, with the 95 % interval of the mean by a bootstrap over test samples (10,000 draws, seed 0), and the share of the gap to
the teacher that it closes. Python's standard library is all that it needs.
"""

import json
import random
import sys

N_DRAWS = 10_000


def last(path):
    with open(path) as file:
        steps = json.load(file)["steps"]
    teacher = next(step for step in steps if step["step"] == "teacher")
    return steps[-1]["test"][-1], teacher["test"][-1]["accuracy"]


def main(paths):
    pairs = list(zip(paths[::2], paths[1::2], strict=True))
    n = last(paths[0])[0]["n_samples"]
    gains = [0] * n
    gaps = []
    for one, other in pairs:
        (alone, teacher), (distilled, _) = last(one), last(other)
        for sample in alone["wrong"]:
            gains[sample] += 1
        for sample in distilled["wrong"]:
            gains[sample] -= 1
        gaps.append(100 * (teacher - alone["accuracy"]))
        points = 100 * (distilled["accuracy"] - alone["accuracy"])
        print(f"{100 * alone['accuracy']:.2f} % -> {100 * distilled['accuracy']:.2f} %: {points:+.2f} of {gaps[-1]:.2f} points")
    scale = 100 / (n * len(pairs))
    # a draw of n samples by how often each total gain occurs: most are 0
    totals = sorted(set(gains))
    counts = [gains.count(total) for total in totals]
    draws = random.Random(0)
    means = sorted(scale * sum(draws.choices(totals, counts, k=n)) for _ in range(N_DRAWS))
    mean, gap = scale * sum(gains), sum(gaps) / len(gaps)
    low, high = means[round(0.025 * N_DRAWS)], means[round(0.975 * N_DRAWS) - 1]
    print(f"mean {mean:+.2f} points [{low:+.2f}, {high:+.2f}], {100 * mean / gap:.0f} % of the gap of {gap:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
