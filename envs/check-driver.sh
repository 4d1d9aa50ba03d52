#!/bin/sh
# torch from PyPI is built with CUDA 13, which needs an NVIDIA driver of 580 or newer: say which torch an older one can
# use before gigabytes are installed. An index that is named already is the user's choice.
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
case $driver in
  [0-9]*) [ "${driver%%.*}" -lt 580 ] || exit 0 ;;
  *) exit 0 ;;
esac
[ -z "$PIP_EXTRA_INDEX_URL$PIP_INDEX_URL" ] || exit 0
echo "the NVIDIA driver $driver is too old for the CUDA 13 of PyPI's torch, which needs 580 or newer; update it, or take torch
with CUDA 12.6, for drivers from 525 on: export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu126" >&2
exit 1
