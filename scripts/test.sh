#!/usr/bin/env bash
# Runs the tests of `make test`:  scripts/test.sh .venv/bin/pytest [MARKER ...]
# The slow tests leave a part of the cores idle, so the fast ones run beside them, and then the tests with the given
# markers; the output of both comes last.
set -uo pipefail
pytest=$1 beside=$(mktemp)
shift
(
  "$pytest" -m "not slow"
  code=$?
  for marker in "$@"; do "$pytest" -m "$marker" || code=$?; done
  exit $code
) >"$beside" 2>&1 &
others=$!
trap 'pkill -P $others 2>/dev/null; kill $others 2>/dev/null; rm -f "$beside"' EXIT
"$pytest" -m "slow and not faults and not cluster and not models and not fuzz and not rebuild"
slow=$?
wait $others
code=$?
cat "$beside"
exit $((slow > code ? slow : code))
