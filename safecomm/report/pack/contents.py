"""What an evidence pack contains: its files' names, and what was measured of the release."""

from dataclasses import dataclass

from safecomm.report.certificate import read_certificate
from safecomm.report.drift import generations
from safecomm.report.gate import Verdict
from safecomm.report.pack.answers import ArmAnswers
from safecomm.report.release import Release
from safecomm.report.tampering import tamper_curves
from safecomm.report.used_data import UsedData, used_data
from safecomm.statistics.labelled import LABEL
from safecomm.storage.names import CARD, CERTIFICATE, LINEAGE, PLAN, REPORT, REPORT_ANSWERS

INDEX = "INDEX.md"
BILL = "bom.cdx.json"
SAMPLES = "samples.parquet"
LOGS = "logs"
GATE_JSON, GATE_MARKDOWN, GATE_JUNIT, POLICY = "gate.json", "gate.md", "gate.xml", "policy.yaml"
GATE = (GATE_JSON, GATE_MARKDOWN, GATE_JUNIT, POLICY)

FILES = {
    INDEX: "this page",
    CARD: "the model card: the adapter's rates with n and 95% intervals, its judges, its data and their licences",
    CERTIFICATE: "the limits that were tested on the report split, over everything that the sweep tried",
    GATE_JSON: "the gate's decision by the policy, with each finding's value, bounds and n",
    GATE_MARKDOWN: "the same for people",
    GATE_JUNIT: "the same for CI systems",
    POLICY: "the release policy: the limits, and which of them are critical",
    BILL: "CycloneDX 1.6 bill of materials: models, adapter, data with licences, chat template, software",
    LINEAGE: "every step that made the adapter with its inputs, and the whole sweep with all defaults",
    PLAN: "the plan of the sweep: trials, prompts, overlaps with the training data, statistical power, hardware",
    REPORT: "the report with its figures: trade-off of safety and accuracy, all arms, failures",
    REPORT_ANSWERS: "the answers that the report shows, where they are too many for the page itself",
    SAMPLES: "all judged answers of the exported arm and the reference arms on the report split",
    LOGS: "the same answers as logs for `inspect view`, one for each arm and benchmark",
}
"""File or folder -> what it has; the order of the index."""


@dataclass(frozen=True)
class Contents:
    """What the index tells of a pack."""

    release: Release
    arms: list[ArmAnswers]
    """The exported arm and then the reference arms."""
    files: tuple[str, ...]
    """The files and folders that the pack has, of `FILES`."""
    gate_verdict: Verdict | None
    """None without a policy."""

    @property
    def is_certified(self) -> bool | None:
        """Whether the certificate covers this very adapter; None without a certificate."""
        if (found := read_certificate(self.release.run.folder)) is None:
            return None
        return bool(found["released"]) and found["released"]["adapter"] == self.release.trial["adapter"]

    @property
    def data(self) -> list[UsedData]:
        """The datasets."""
        return used_data(self.release.run.sweep)

    @property
    def has_attacks(self) -> bool:
        """Whether harmful prompts were also asked under an attack, or adapters trained further."""
        run = self.release.run
        return bool(run.attacks or tamper_curves(run))

    @property
    def has_generations(self) -> bool:
        """Whether this arm's adapters were trained again, generation after generation, and measured."""
        return any(one.generation and one.arm == self.release.row.arm for one in generations(self.release.run))

    @property
    def measured_judges(self) -> list[str]:
        """The judges whose errors on other responses with human labels were measured."""
        found = self.release.run.judges
        return [name for name, one in found.items() if one.sensitivity.n and one.specificity.n]

    @property
    def labelled(self) -> int:
        """How many of the exported adapter's own answers have a human label."""
        return int((self.arms[0].rows[LABEL] != "").sum())

    @property
    def has_categories(self) -> bool:
        """Whether the prompts have categories."""
        return any((one.rows["category"].fillna("") != "").any() for one in self.arms if "category" in one.rows)
