"""The bill of materials of a release, as CycloneDX 1.6: the adapter, what it was made from, and with which software."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.exceptions import InvalidSpdxLicenseException
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from safecomm.report.card import hub_id, rates_by_benchmark
from safecomm.report.release import Release
from safecomm.report.run import Run, in_words
from safecomm.report.run_files import read_as
from safecomm.report.used_data import TRAINING, UsedData, used_data
from safecomm.report.versions import installed_versions, recorded_versions
from safecomm.storage.hub_cache import split_reference
from safecomm.storage.manifest import sha256_of
from safecomm.storage.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MODELS

ADAPTER, FINE_TUNE, ALIGNED, BASE, TEMPLATE = "adapter", "fine-tune", "aligned-model", "base-model", "chat-template"
"""References between the components."""
DURING, HERE = "recorded during the run", "installed where the pack was written"
"""Where a version is from."""


def bill_of_materials(release: Release, adapter: Path, lineage: dict[str, Any]) -> dict[str, Any]:
    """Returns the bill as JSON values.

    The library has no model cards and no data of components yet; these two are added to what it writes.

    Args:
        release: the adapter that is released.
        adapter: its folder in the store.
        lineage: see `lineage_of`.
    """
    data = used_data(release.run.sweep)
    subject = _adapter(release, adapter, lineage)
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"safecomm/{release.run.sweep['name']}/{release.trial['adapter']}"),
        components=[*_template(release.run, lineage), *(_dataset(one) for one in data), *_software(release.run)],
    )
    bom.metadata.component = subject
    bom.register_dependency(subject, bom.components)
    found: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    found["metadata"]["component"]["modelCard"] = _model_card(release, data)
    described = {_ref(one): one for one in data}
    for component in found["components"]:
        if one := described.get(component["bom-ref"]):
            component["data"] = [{"type": "dataset", "name": one.name, "description": f"used for: {_roles(one)}"}]
    return found


def _adapter(release: Release, folder: Path, lineage: dict[str, Any]) -> Component:
    """Returns the released adapter with its pedigree: the fine-tune, the aligned model and the base model."""
    run, row = release.run, release.row
    return Component(
        bom_ref=ADAPTER,
        name=f"{run.sweep['name']}-{row.arm}",
        version=str(release.trial["adapter"]),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        description=f"LoRA adapter: {row.arm} {in_words(row.settings)}, seed {release.seed}".strip(),
        hashes=[_sha256(sha256_of(folder / ADAPTER_WEIGHTS))],
        properties=[Property(name=f"safecomm:sha256:{ADAPTER_CONFIG}", value=sha256_of(folder / ADAPTER_CONFIG))],
        pedigree=Pedigree(
            ancestors=[*_fine_tune(lineage), _model(run, ALIGNED, "aligned"), _model(run, BASE, "base")],
            notes=" <- ".join(f"{stage['stage']} {stage['key']}" for stage in lineage["stages"]),
        ),
    )


def _fine_tune(lineage: dict[str, Any]) -> Iterator[Component]:
    """Yields the adapter that training gave, before any defense acted on it."""
    for stage in lineage["stages"]:
        if stage["stage"] == "finetune":
            yield Component(
                bom_ref=FINE_TUNE,
                name="fine-tune",
                version=stage["key"],
                type=ComponentType.MACHINE_LEARNING_MODEL,
                properties=_properties({f"safecomm:finetune:{key}": value for key, value in stage["inputs"].items()}),
            )


def _model(run: Run, ref: str, key: str) -> Component:
    """Returns a model of the sweep; its revision and the hash of its files are those that the run recorded."""
    reference = run.sweep["model"].get(key) or run.sweep["model"]["aligned"]
    has_record = (run.folder / MODELS).is_file()
    recorded = read_as(run.folder, MODELS, dict[str, dict[str, Any]]).get(reference, {}) if has_record else {}
    name, asked = split_reference(reference)
    revision = recorded.get("revision") or asked
    published = (hub_id(reference) or "").split("/")
    return Component(
        bom_ref=ref,
        name=name,
        version=revision,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        purl=PackageURL("huggingface", published[0], published[1], revision) if len(published) == 2 else None,
        properties=_properties({"safecomm:identity": recorded.get("identity")}),
    )


def _template(run: Run, lineage: dict[str, Any]) -> Iterator[Component]:
    """Yields the chat template that the fine-tune was trained with, if the store still has it."""
    keys = [stage["key"] for stage in lineage["stages"] if stage["stage"] == "finetune"]
    for key in keys:
        path = run.stage("finetune", key) / "chat_template.jinja"
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield Component(
                bom_ref=TEMPLATE, name="chat_template.jinja", type=ComponentType.FILE, hashes=[_sha256(digest)]
            )


def _dataset(data: UsedData) -> Component:
    pages = [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(data.page))] if data.page else []
    return Component(
        bom_ref=_ref(data),
        name=data.name,
        type=ComponentType.DATA,
        licenses=[_licence(data)],
        external_references=pages,
        properties=_properties({"safecomm:role": _roles(data)}),
    )


def _licence(data: UsedData) -> DisjunctiveLicense:
    """Returns the licence by its SPDX identifier or, where it has none, in words."""
    try:
        return LicenseFactory().make_with_id(data.spdx)
    except InvalidSpdxLicenseException:
        return LicenseFactory().make_with_name(data.licence)


def _software(run: Run) -> Iterator[Component]:
    """Yields the packages that results depend on, as the run recorded them, or else as they are installed here."""
    recorded = recorded_versions(run.folder)
    for name, version in (installed_versions() | recorded).items():
        yield Component(
            bom_ref=f"software-{name}",
            name=name,
            version=version,
            type=ComponentType.PLATFORM if name == "python" else ComponentType.FRAMEWORK,
            purl=None if name == "python" or "," in version else PackageURL("pypi", name=name, version=version),
            properties=[Property(name="safecomm:version", value=DURING if name in recorded else HERE)],
        )


def _model_card(release: Release, data: Iterable[UsedData]) -> dict[str, Any]:
    """Returns the adapter's `modelCard`: its architecture, its data and its rates with 95% intervals."""
    run = release.run
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "modelArchitecture": f"LoRA adapter of {run.sweep['model']['aligned']}",
            "datasets": [{"ref": _ref(one)} for one in data if TRAINING in one.roles],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {
                    "type": metric,
                    "value": f"{rate.value:.4f}",
                    "slice": f"{benchmark}, {release.trial['split']} split, n={rate.n}",
                    "confidenceInterval": {"lowerBound": f"{rate.low:.4f}", "upperBound": f"{rate.high:.4f}"},
                }
                for metric, benchmark, rate in rates_by_benchmark(release)
            ]
        },
        "considerations": {"technicalLimitations": [f"Rates depend on the judges: {', '.join(run.judge_names)}."]},
    }


def _ref(data: UsedData) -> str:
    return f"dataset-{data.name}"


def _roles(data: UsedData) -> str:
    return ", ".join(data.roles)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _properties(values: dict[str, Any]) -> list[Property]:
    """Returns the values that are there as properties."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return [Property(name=name, value=text) for name, text in texts.items() if values[name] is not None]
