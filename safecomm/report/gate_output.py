"""A gate's decision for people and for CI systems: JSON, Markdown and JUnit XML."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from safecomm.report.gate import Decision, Verdict
from safecomm.report.release import Release
from safecomm.report.run import in_words
from safecomm.storage.store import without_nan

EXIT_CODES: Mapping[Verdict, int] = {"GO": 0, "NO-GO": 1, "NOT MEASURED": 1, "INCONCLUSIVE": 3}


def subject(release: Release) -> str:
    """Returns what was checked, in words."""
    settings = f" {in_words(release.row.settings)}" if release.row.settings else ""
    return f"{release.run.sweep['name']}: {release.row.arm}{settings}, seed {release.seed}"


def as_json(release: Release, decision: Decision) -> dict[str, Any]:
    """Returns the decision as JSON values."""
    found: dict[str, Any] = without_nan(
        {
            "verdict": decision.verdict,
            "run": release.run.sweep["name"],
            "arm": release.row.arm,
            "settings": release.row.settings,
            "seed": release.seed,
            "adapter": release.trial["adapter"],
            "judges": release.run.judge_names,
            "findings": [asdict(finding) for finding in decision.findings],
            "notes": decision.notes,
        }
    )
    return found


def as_markdown(release: Release, decision: Decision) -> str:
    """Returns the decision as a Markdown page."""
    rows = [
        f"| {one.verdict} | {one.metric} | {_cell(one.scope)} | {one.tier} | {_cell(one.reason)} |"
        for one in decision.findings
    ]
    notes = [f"- {note}" for note in decision.notes]
    lines = [f"# {decision.verdict}", "", subject(release), "", "| verdict | metric | scope | tier | measured |"]
    return "\n".join([*lines, "|---|---|---|---|---|", *rows, "", *notes]).rstrip() + "\n"


def as_junit(release: Release, decision: Decision) -> str:
    """Returns the decision as JUnit XML: a test case for every finding.

    A rule that does not block the release passes as a test case, with its verdict in the output.
    """
    failed = [one for one in decision.findings if _blocks(one.tier, one.verdict)]
    counts = {"tests": str(len(decision.findings)), "failures": str(len(failed)), "errors": "0", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": f"safecomm gate: {subject(release)}", **counts})
    for one in decision.findings:
        name = f"{one.metric} {one.scope}".strip()
        case = ElementTree.SubElement(suite, "testcase", classname=f"gate.{one.tier}", name=name, time="0")
        if one in failed:
            ElementTree.SubElement(case, "failure", type=one.verdict, message=f"{one.verdict}: {one.reason}")
        else:
            ElementTree.SubElement(case, "system-out").text = f"{one.verdict}: {one.reason}"
    root = ElementTree.Element("testsuites", counts)
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _blocks(tier: str, verdict: Verdict) -> bool:
    return verdict != "GO" and (tier == "critical" or (tier == "supporting" and verdict == "NO-GO"))


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
