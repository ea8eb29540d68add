"""The headings of the EU AI Act and of NIST's AI RMF, and which file of an evidence pack helps to answer each.

The files are documentation that helps with these headings. They are no claim of conformity.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from safecomm.report.pack.contents import BILL, GATE_JSON, GATE_MARKDOWN, LOGS, POLICY, SAMPLES, Contents
from safecomm.statistics.metric_table import ASR
from safecomm.storage.names import CARD, CERTIFICATE, LINEAGE, PLAN, REPORT

NOT_MEASURED = "not measured"
NOT_STATED = "not stated: for the provider to write"


@dataclass(frozen=True)
class Heading:
    """One heading and what the pack has on it."""

    title: str
    files: tuple[str, ...] = ()
    """The files that help to answer it; the pack may lack some."""
    remark: str = ""
    """What they show, or what is missing."""

    @property
    def is_open(self) -> bool:
        """Whether the pack has nothing on it."""
        return not self.files or self.remark.startswith(NOT_MEASURED)


@dataclass(frozen=True)
class Part:
    """A group of headings."""

    title: str
    headings: list[Heading]


def parts(contents: Contents) -> list[Part]:
    """Returns all headings with the answers that this pack has."""
    return [
        Part("EU AI Act, Annex IV: technical documentation", list(_annex_iv(contents))),
        Part("EU AI Act, Article 9: risk management", list(_article_9(contents))),
        Part("EU AI Act, Article 10: data and data governance", list(_article_10(contents))),
        Part("EU AI Act, Article 15: accuracy, robustness and cybersecurity", list(_article_15(contents))),
        Part("NIST AI RMF 1.0: Govern", list(_govern(contents))),
        Part("NIST AI RMF 1.0: Map", list(_map())),
        Part("NIST AI RMF 1.0: Measure", list(_measure(contents))),
        Part("NIST AI RMF 1.0: Manage", list(_manage(contents))),
    ]


def _annex_iv(pack: Contents) -> Iterator[Heading]:
    yield Heading("1(a) Intended purpose, provider", remark=NOT_STATED)
    yield Heading("1(a) Version, and its relation to earlier versions", (BILL, LINEAGE))
    yield Heading("1(c) Versions of relevant software", (BILL,), "`safecomm:version` says where each is from")
    yield Heading("2(a) Methods and steps of development, third-party models", (LINEAGE, BILL))
    yield Heading("2(b) Design choices, and what the system optimises for", (LINEAGE, REPORT))
    yield Heading("2(c) Computing resources", (PLAN,))
    yield Heading("2(d) Training data: provenance, scope, licences", (CARD, BILL), _data_remark(pack))
    yield Heading("2(e) Human oversight measures", remark=NOT_STATED)
    yield Heading("2(f) Pre-determined changes", remark=NOT_STATED)
    yield Heading("2(g) Validation and testing: data, metrics, logs", (CARD, SAMPLES, LOGS, CERTIFICATE, GATE_JSON))
    yield Heading("2(h) Cybersecurity measures", remark=NOT_STATED)
    yield Heading(
        "3 Capabilities and limits; accuracy for groups of persons", (CARD, REPORT), f"groups: {NOT_MEASURED}"
    )
    yield Heading("4 Why the metrics are appropriate", (CARD,), _judges(pack))
    yield Heading("5 Risk management system", (POLICY, GATE_MARKDOWN), _gate(pack))
    yield Heading("6 Changes through the lifecycle", (LINEAGE,), f"this fine-tune and defense; {_generations(pack)}")
    yield Heading("7 Harmonised standards; 8 EU declaration of conformity", remark="not part of this pack")
    yield Heading("9 Post-market monitoring plan", remark=NOT_STATED)


def _article_9(pack: Contents) -> Iterator[Heading]:
    yield Heading("9(2)(a) Known and foreseeable risks", (SAMPLES,), f"harmful requests only{_by_category(pack)}")
    yield Heading("9(2)(b) Risks under foreseeable misuse", (REPORT,), _attacks(pack))
    yield Heading("9(5) Residual risk", (CERTIFICATE, GATE_MARKDOWN), _certificate(pack))
    yield Heading(
        "9(8) Tests against metrics and thresholds defined beforehand", (POLICY, GATE_JSON), _beforehand(pack)
    )


def _article_10(pack: Contents) -> Iterator[Heading]:
    yield Heading("10(2)(b) Origin of data", (BILL, CARD), _data_remark(pack))
    yield Heading("10(2)(c) Preparation: cleaning, labelling", (LINEAGE,), "the mixing of data sets; not their making")
    yield Heading(
        "10(2)(e) Availability, quantity and suitability", (PLAN,), "prompts, and overlaps with training data"
    )
    yield Heading("10(2)(f) Biases", remark=NOT_MEASURED)
    yield Heading("10(3) Representative, free of errors, complete", remark=NOT_MEASURED)


def _article_15(pack: Contents) -> Iterator[Heading]:
    yield Heading("15(1), 15(3) Levels of accuracy and their metrics", (CARD, CERTIFICATE), "with n and 95% intervals")
    yield Heading("15(4) Robustness against errors and inconsistencies", (REPORT,), "incoherence of answers only")
    yield Heading("15(4) Robustness after retraining", (REPORT,), _generations(pack))
    yield Heading("15(4) Feedback loops", remark=NOT_MEASURED)
    yield Heading("15(5) Adversarial examples, model evasion", (REPORT, SAMPLES), _attacks(pack))
    yield Heading("15(5) Data and model poisoning, confidentiality attacks", remark=NOT_MEASURED)


def _govern(pack: Contents) -> Iterator[Heading]:
    yield Heading("Govern 1: policies and processes", (POLICY,), _gate(pack))
    yield Heading("Govern 2 to 5: accountability, workforce, culture, engagement", remark=NOT_STATED)
    yield Heading("Govern 6: third-party software, models and data", (BILL,))


def _map() -> Iterator[Heading]:
    yield Heading("Map 1: context and intended purpose", remark=NOT_STATED)
    yield Heading("Map 2: tasks, methods, limits of knowledge", (CARD, LINEAGE))
    yield Heading("Map 3: capabilities, benefits and costs", (REPORT, PLAN), "the trade-off of safety and accuracy")
    yield Heading("Map 4: risks of third-party components", (BILL,), "which there are; their risks are not measured")
    yield Heading("Map 5: impacts on people", remark=NOT_MEASURED)


def _measure(pack: Contents) -> Iterator[Heading]:
    yield Heading("Measure 1: metrics and their assessment", (CARD,), _judges(pack))
    yield Heading("Measure 2.1: test sets and tools are documented", (SAMPLES, LOGS, BILL))
    yield Heading("Measure 2.3: performance in conditions like deployment", (CARD,), "on benchmarks, not in deployment")
    yield Heading("Measure 2.5: validity, reliability, limits of generalization", (CERTIFICATE,), _certificate(pack))
    yield Heading(
        "Measure 2.6: safety", (CARD, CERTIFICATE, SAMPLES), f"{ASR.words(pack.release.run.domain)}{_by_category(pack)}"
    )
    yield Heading("Measure 2.7: security and resilience", (REPORT,), _attacks(pack))
    yield Heading("Measure 2.8 to 2.10: transparency, explanation, privacy", remark=NOT_MEASURED)
    yield Heading("Measure 2.11: fairness and bias", remark=NOT_MEASURED)
    yield Heading("Measure 2.12: environmental impact", remark=NOT_MEASURED)
    yield Heading("Measure 3 and 4: tracking and feedback after release", remark=NOT_MEASURED)


def _manage(pack: Contents) -> Iterator[Heading]:
    yield Heading("Manage 1.1: does the system reach its purpose, may it go on", (GATE_MARKDOWN,), _gate(pack))
    yield Heading("Manage 1.4: residual risks", (CERTIFICATE, CARD), _certificate(pack))
    yield Heading("Manage 2: treatment of risks", (LINEAGE, REPORT), "the defense, its settings and what it costs")
    yield Heading("Manage 3: third-party resources", (BILL,))
    yield Heading("Manage 4: plans for monitoring and incidents", remark=NOT_STATED)


def _data_remark(pack: Contents) -> str:
    own = [one.name for one in pack.data if not one.page]
    return f"no published source: {', '.join(own)}" if own else ""


def _by_category(pack: Contents) -> str:
    return ", by category in `category`" if pack.has_categories else ""


def _judges(pack: Contents) -> str:
    judges, measured = ", ".join(pack.release.run.judge_names), ", ".join(pack.measured_judges)
    errors = f"measured for {measured}, on other responses with human labels" if measured else NOT_MEASURED
    labels = f"human labels of this adapter's answers: {pack.labelled or 'none'}"
    return f"judges: {judges}; their errors: {errors}; {labels}"


def _gate(pack: Contents) -> str:
    if pack.gate_verdict is None:
        return f"{NOT_MEASURED}: no policy was given (--policy)"
    return f"the verdict is {pack.gate_verdict}"


def _beforehand(pack: Contents) -> str:
    dated = "" if pack.gate_verdict is None else "; whether the policy was set beforehand is not recorded"
    return _gate(pack) + dated


def _generations(pack: Contents) -> str:
    if pack.has_generations:
        return "later generations of this arm were measured (section `drift`)"
    return f"{NOT_MEASURED}: no later generation of this arm"


def _attacks(pack: Contents) -> str:
    return "the attacks that the sweep names" if pack.has_attacks else f"{NOT_MEASURED}: the sweep has no attack"


def _certificate(pack: Contents) -> str:
    if pack.is_certified is None:
        return f"{NOT_MEASURED}: the run has no certificate"
    return f"this adapter is {'' if pack.is_certified else 'not '}certified to keep the sweep's limits"
