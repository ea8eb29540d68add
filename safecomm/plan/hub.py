"""Checks access to a sweep's models on the Hugging Face Hub before anything is downloaded."""

from pathlib import Path

from safecomm.plan.checks import Finding
from safecomm.serving.models import LAB
from safecomm.spec import Sweep
from safecomm.storage.hub_cache import TIMEOUT_SECONDS, hub_fault, split_reference

SET_TOKEN = "set HF_TOKEN (for a submitted job on the head node, before `ray start`)"


def check_models(sweep: Sweep) -> list[Finding]:
    """Requests the metadata of `config.json` for every model that is a Hub id."""
    named = {"model.base": sweep.model.base, "model.aligned": sweep.model.aligned}
    named |= {f"judge {name}": model for name, model in sweep.evaluate.judge_models.items()}
    references = {model: key for key, model in reversed(named.items()) if _is_hub_id(model)}
    return [_check(model, key) for model, key in sorted(references.items(), key=lambda pair: pair[1])]


def _is_hub_id(reference: str) -> bool:
    is_path = reference.startswith((".", "/", "~", LAB)) or reference.count("/") != 1
    return not is_path and not Path(reference).is_dir()


def _check(model: str, key: str) -> Finding:
    from httpx2 import HTTPError  # of which the Hub's own errors are
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    repository, revision = split_reference(model)
    cached = isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)
    if constants.HF_HUB_OFFLINE:
        return _without_hub(model, key, cached, "HF_HUB_OFFLINE is set")
    if fault := hub_fault(constants.ENDPOINT):
        return _without_hub(model, key, cached, fault)
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json", revision=revision), timeout=TIMEOUT_SECONDS)
    except GatedRepoError:
        fix = "your HF_TOKEN has no access yet: request it on the model's page" if _has_token() else SET_TOKEN
        return Finding(key, "ok" if cached else "problem", f"{model} is gated; {fix}, or use a local folder")
    except RepositoryNotFoundError:
        return Finding(
            key, "problem", f"{model}: not a local folder and not on the Hub, or private; check the name and HF_TOKEN"
        )
    except (HTTPError, OSError) as error:
        return _without_hub(model, key, cached, f"the Hub is unreachable ({type(error).__name__})")
    return Finding(key, "ok", f"{model} is available on the Hub")


def _without_hub(model: str, key: str, cached: bool, why: str) -> Finding:
    if cached:
        return Finding(key, "ok", f"{model} is in the Hub cache; {why}")
    return Finding(key, "problem", f"{model}: {why}, and the model is not in the cache; use a local folder")


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None
