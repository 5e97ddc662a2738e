#!/bin/sh
# Takes out of the virtual environment $1 what runs in no container of ours: pip and setuptools, what only compilers and
# linkers read, and those of CUDA's libraries that nothing here is linked with. (ONNX Runtime opens cuFFT when a model
# has an FFT operator, which none of ours has.)
set -eu
"$1/bin/pip" uninstall --quiet --yes pip setuptools
find "$1" -name '*.a' -delete
find "$1" -path '*/nvidia/*/include' -prune -exec rm -r {} +
find "$1" -path '*/nvidia/*' \( -name 'libcufft*' -o -name 'libcusolverMg*' -o -name 'libnvblas*' \) -delete
