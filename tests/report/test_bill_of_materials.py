"""The bill of materials is valid CycloneDX and names what the adapter is made of, with which versions."""

import hashlib
import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from safecomm.report.pack.write import write_pack
from safecomm.report.points import rate_in
from safecomm.report.release import Release


def test_the_bill_is_valid_and_names_what_the_adapter_is_made_of(pack: Path, release: Release) -> None:
    text = (pack / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace("modelCard", "modelcard")), "it is strict"
    bill = json.loads(text)
    adapter, parts = bill["metadata"]["component"], {one["bom-ref"]: one for one in bill["components"]}
    assert adapter["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"weights").hexdigest()}]
    ancestors = {one["bom-ref"] for one in adapter["pedigree"]["ancestors"]}
    assert ancestors == {"fine-tune", "aligned-model", "base-model"}
    assert adapter["pedigree"]["notes"] == "realign r <- finetune f <- data d"
    metrics = adapter["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (asr,) = [one for one in metrics if one["type"] == "asr"]
    assert float(asr["value"]) == pytest.approx(rate_in(release.trial, "asr/lab-harm").value, abs=1e-4)
    assert "hashes" in parts["chat-template"] and parts["software-torch"]["version"]
    assert parts["dataset-lab-teleqna"]["licenses"] == [{"license": {"name": "set by its owner"}}]


def test_versions_are_those_of_the_run_where_it_recorded_them(with_adapters: Path, tmp_path: Path) -> None:
    for at, torch in enumerate(("9.1.0", "9.0.0")):
        files = with_adapters / "wandb" / f"offline-run-{at}" / "files"
        files.mkdir(parents=True)
        (files / "requirements.txt").write_text(f"torch=={torch}\npeft==7.0\nother @ file:///x\n")
    write_pack(with_adapters, "safe_merge", 0, tmp_path / "pack")
    text = (tmp_path / "pack" / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    software = {one["name"]: one for one in json.loads(text)["components"] if one["bom-ref"].startswith("software")}
    assert software["torch"]["version"] == "9.0.0, 9.1.0" and software["peft"]["purl"] == "pkg:pypi/peft@7.0"
    (origin,) = software["peft"]["properties"]
    assert origin["value"] == "recorded during the run"
    assert software["trl"]["properties"] == [{"name": origin["name"], "value": "installed where the pack was written"}]
