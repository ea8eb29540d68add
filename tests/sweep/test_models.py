"""A sweep keeps the models that it began with."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from small_sweep import LEAST

from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep
from safecomm.storage.names import MODELS
from safecomm.storage.store import Store
from safecomm.sweep.models import Models, record_models, resolve_models


def test_a_later_run_uses_the_revisions_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {"main": "a" * 40, "v1": "c" * 40}

    def snapshot_download(repository: str, revision: str | None, **_: Any) -> str:
        commit = heads.get(revision or "main", revision or "")
        folder = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"commit": commit}))
        (folder / "model.safetensors").write_bytes(b"")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = {"base": "acme/base", "aligned": "acme/chat@v1"}
    sweep = Sweep.model_validate(LEAST | {"arms": {}, "model": model, "storage": str(tmp_path / "runs")})
    folder = RunFolder(sweep)

    def resolved() -> Models:
        found = resolve_models(sweep, folder, Store.of(sweep.storage))
        record_models(found, folder)
        return found

    first = resolved()
    assert (first.base.revision, first.aligned.revision) == ("a" * 40, "c" * 40)
    heads["main"] = "b" * 40
    assert resolved() == first
    (folder.path / MODELS).unlink()
    assert resolved().base.revision == "b" * 40
