#!/bin/sh
# Fills the corpus with the small shared models and node tests: ALUDEL_DATA=/path/to/data fuzz/seeds.sh
set -eu
corpus=$(dirname "$0")/corpus/onnx_read
mkdir -p "$corpus"
find "${ALUDEL_DATA:?names no folder of models}" -name '*.onnx' -size -100k -exec cp {} "$corpus" \;
ls "$corpus" | wc -l
