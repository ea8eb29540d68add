#!/usr/bin/env bash
# Runs the tests of `make test`:  scripts/test.sh .venv/bin/pytest
# The slow tests leave a part of the cores idle, so the fast ones run beside them; their output comes last.
set -uo pipefail
pytest=$1 fast=$(mktemp)
"$pytest" -m "not slow" >"$fast" 2>&1 &
beside=$!
trap 'kill $beside 2>/dev/null; rm -f "$fast"' EXIT
"$pytest" -m "slow and not faults and not cluster and not models and not fuzz and not rebuild"
slow=$?
wait $beside
code=$?
cat "$fast"
exit $((slow > code ? slow : code))
