"""`safecomm gate` and `safecomm export`: checks a finished run for release and exports its adapter."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from safecomm.cli.console import console
from safecomm.cli.numbers import MAX_SEED, finite
from safecomm.cli.run_argument import Run
from safecomm.errors import UsageError
from safecomm.statistics.metric_table import ACCURACY, ASR, OVER_REFUSAL
from safecomm.storage.output_files import output_file, output_folder

if TYPE_CHECKING:
    from safecomm.report.gate import Decision
    from safecomm.report.policy import Policy
    from safecomm.report.release import Release

Arm = Annotated[str | None, typer.Option(help="Use this arm's best point instead of the recommended point.")]
Seed = Annotated[int, typer.Option(help="Seed of the fine-tune.", min=0, max=MAX_SEED)]
STYLES = {"GO": "green", "NO-GO": "red", "NOT MEASURED": "red", "INCONCLUSIVE": "yellow"}
"""The colour of each verdict on a terminal; the word says the same."""


def gate(
    run: Run,
    policy: Annotated[Path | None, typer.Option(help="A policy file; see docs/release.md.")] = None,
    max_asr: Annotated[
        float | None, typer.Option(help=f"Highest mean {ASR.title} rate.", min=0, max=1, callback=finite)
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Lowest mean task accuracy.", min=0, max=1, callback=finite)
    ] = None,
    max_over_refusal: Annotated[
        float | None, typer.Option(help=f"Highest mean {OVER_REFUSAL.title}.", min=0, max=1, callback=finite)
    ] = None,
    arm: Arm = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the decision to this Markdown file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the decision to this JUnit XML file.")] = None,
) -> None:
    """Decides whether the adapter that `export` would write may be released: GO, NO-GO or INCONCLUSIVE.

    The exit code is 0 for GO, 1 for NO-GO and for what was not measured, and 3 if a critical limit lies within the
    interval of what was measured.
    """
    markdown = markdown and output_file("--markdown", markdown, replaces=True)
    junit = junit and output_file("--junit", junit, replaces=True)
    from safecomm.report import gate_output
    from safecomm.report.gate import decide_on
    from safecomm.report.run import read_run
    from safecomm.storage.store import write_text

    limits: dict[tuple[str, str], float | None] = {
        (ASR.name, "max"): max_asr,
        (ACCURACY.name, "min"): min_accuracy,
        (OVER_REFUSAL.name, "max"): max_over_refusal,
    }
    rules = _policy(policy, limits)
    release, decision = decide_on(read_run(run), arm, seed, rules)
    if markdown:
        write_text(markdown, gate_output.as_markdown(release, decision))
    if junit:
        write_text(junit, gate_output.as_junit(release, decision))
    if as_json:
        console.print_json(json.dumps(gate_output.as_json(release, decision)))
    else:
        _print(release, decision)
    sys.exit(gate_output.EXIT_CODES[decision.verdict])


def _policy(file: Path | None, limits: Mapping[tuple[str, str], float | None]) -> "Policy":
    """Returns the policy in a file, or the one that limits from the command line make up.

    Args:
        file: the file, if any.
        limits: metric and `min` or `max` -> limit.
    """
    from safecomm.report.policy import MEAN, Policy, Rule, read_policy

    rules = [
        Rule.model_validate({"metric": metric, "benchmark": MEAN, kind: limit})
        for (metric, kind), limit in limits.items()
        if limit is not None
    ]
    if bool(file) == bool(rules):
        raise UsageError(
            "gate: give either --policy FILE or at least one of --max-asr, --min-accuracy, --max-over-refusal"
        )
    return read_policy(file) if file else Policy(rules=rules)


def _print(release: "Release", decision: "Decision") -> None:
    from safecomm.report import gate_output

    console.print(gate_output.subject(release), soft_wrap=True)
    for one in decision.findings:
        where = f"{release.run.titles.get(one.metric, one.metric)} {one.scope}".strip()
        verdict = Text(f"{one.verdict:12}", STYLES.get(one.verdict, ""))
        console.print(Text.assemble(verdict, f" {one.tier:10} {where}: {one.reason}"), soft_wrap=True)
    for note in decision.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(Text(decision.verdict, f"bold {STYLES.get(decision.verdict, '')}".strip()))


def export(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="The new folder for the adapter.")] = None,
    arm: Arm = None,
    seed: Seed = 0,
    point: Annotated[
        str | None,
        typer.Option(help="Export this trial of the search, by its id in trials.parquet or W&B.", metavar="TRIAL"),
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="The new folder for the evidence on the adapter; see docs/evidence.md.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Decide by this policy file, and add the gate's decision to the evidence.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload the evidence to this repository on the Hub.", metavar="ORG/NAME")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking, but to no public repository.")] = False,
) -> None:
    """Exports the adapter with its lineage and a model card: settings, rates, judges, licences.

    With --evidence it also writes, or only writes, what a reviewer of the release needs: model card, bill of materials,
    certificate, the gate's decision, all judged answers, and an index by headings of the EU AI Act and NIST AI RMF.
    `safecomm verify` checks such a folder.
    """
    if not out and not evidence:
        raise UsageError("export: give --out FOLDER for the adapter, --evidence FOLDER for the evidence on it, or both")
    if point and (arm or seed):
        raise UsageError("--point: a trial has its own arm and seed; remove --arm and --seed")
    if point and evidence:
        raise UsageError("--evidence: is about the report split, on which trials of the search were not measured")
    if not evidence and (policy or push):
        raise UsageError(f"{'--policy' if policy else '--push'}: belongs to the evidence; add --evidence FOLDER")
    out, evidence = out and output_folder("--out", out), evidence and output_folder("--evidence", evidence)
    from safecomm.cli.evidence import write_evidence
    from safecomm.report.export import export as write

    if out:
        row = write(run, arm, seed, out, point)
        console.print(f"{row.arm} written to {out}", soft_wrap=True)
    if evidence:
        write_evidence(run, arm, seed, evidence, policy, push, yes)
