"""Writes an evidence pack: a new folder, whole or not at all, with a manifest of all its files."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from safecomm.report.card import model_card
from safecomm.report.export import intact_adapter, lineage_of
from safecomm.report.gate import Verdict, decide_on
from safecomm.report.gate_output import as_json, as_junit, as_markdown
from safecomm.report.pack.answers import arms_of, sample_table
from safecomm.report.pack.bill import bill_of_materials
from safecomm.report.pack.contents import (
    BILL,
    FILES,
    GATE_JSON,
    GATE_JUNIT,
    GATE_MARKDOWN,
    INDEX,
    LOGS,
    POLICY,
    SAMPLES,
    Contents,
)
from safecomm.report.pack.index import index
from safecomm.report.pack.inspect_log import write_logs
from safecomm.report.policy import read_policy
from safecomm.report.release import released
from safecomm.report.run import Run, read_run
from safecomm.report.versions import installed_versions
from safecomm.storage.manifest import write_manifest
from safecomm.storage.names import CARD, CERTIFICATE, LINEAGE, PLAN, REPORT, REPORT_ANSWERS
from safecomm.storage.output_files import new_folder
from safecomm.storage.store import write_json

ABOUT = (
    f"It is part of an evidence pack: [{INDEX}]({INDEX}) lists the files and what each of them shows. The adapter's "
    f"weights are not in it; [{BILL}]({BILL}) has their SHA-256. **{SAMPLES}, {LOGS} and {REPORT} contain harmful "
    "prompts and answers**; this card quotes none."
)


@dataclass(frozen=True)
class Pack:
    """What was written."""

    arm: str
    verdict: Verdict | None
    """The gate's; None without a policy."""


def write_pack(folder: Path, arm: str | None, seed: int, out: Path, policy: Path | None = None) -> Pack:
    """Writes the evidence on the adapter that `export` would write.

    Args:
        folder: the run folder.
        arm: the arm; by default the recommended point's.
        seed: the seed of the fine-tune.
        out: the new folder.
        policy: the release policy; the pack then has the gate's decision by it.

    Raises:
        UsageError: if there is no such adapter, its answers are gone, or the folder already exists.
    """
    run = read_run(folder)
    rules = read_policy(policy) if policy else None
    release = released(run, arm, seed)
    adapter = intact_adapter(release)
    lineage, arms = lineage_of(release, adapter), arms_of(release)
    with new_folder(out) as half:
        _copy_from_run(run, half)
        verdict = None
        if policy and rules:
            subject, decision = decide_on(run, arm, seed, rules)
            verdict = decision.verdict
            write_json(half / GATE_JSON, as_json(subject, decision))
            (half / GATE_MARKDOWN).write_text(as_markdown(subject, decision), encoding="utf-8")
            (half / GATE_JUNIT).write_text(as_junit(subject, decision), encoding="utf-8")
            shutil.copyfile(policy, half / POLICY)
        (half / CARD).write_text(model_card(release, ABOUT), encoding="utf-8")
        write_json(half / BILL, bill_of_materials(release, adapter, lineage))
        write_json(half / LINEAGE, lineage)
        sample_table(arms).to_parquet(half / SAMPLES, index=False)
        write_logs(half / LOGS, run, arms)
        present = tuple(name for name in FILES if name == INDEX or (half / name).exists())
        (half / INDEX).write_text(index(Contents(release, arms, present, verdict)), encoding="utf-8")
        write_manifest(half, f"safecomm {installed_versions().get('safecomm', 'of unknown version')}")
    return Pack(release.row.arm, verdict)


def _copy_from_run(run: Run, folder: Path) -> None:
    """Copies the run's files that are evidence as they are; an unfinished or older run may lack some."""
    for name in (CERTIFICATE, PLAN, REPORT, REPORT_ANSWERS):
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, folder / name)
