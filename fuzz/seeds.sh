#!/bin/sh
# Fills the corpus with small models and ONNX's node tests: ALUDEL_DATA=/path/to/data fuzz/seeds.sh
set -eu
corpus=$(dirname "$0")/corpus/onnx_read
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
mkdir -p "$corpus"
find "${ALUDEL_DATA:?names no folder of models}" -name '*.onnx' -size -100k -exec cp {} "$corpus" \;
tar -xzf "$ALUDEL_DATA/onnx-node-tests/node-tests.tar.gz" -C "$unpacked"
find "$unpacked" -name model.onnx -size -100k | while read -r model; do
    cp "$model" "$corpus/$(basename "$(dirname "$model")").onnx"
done
find "$corpus" -type f | wc -l
