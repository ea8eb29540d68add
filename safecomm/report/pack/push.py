"""Uploads an evidence pack to a repository on the Hugging Face Hub."""

from pathlib import Path

from safecomm.errors import StorageError, UsageError
from safecomm.report.card import hub_id

FIX = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_access(repository: str) -> None:
    """Checks that the Hub can be reached and knows the token, before anything is written.

    Raises:
        UsageError: if there is no token, or the repository's name is no `ORG/NAME`.
        StorageError: if the Hub refuses the token or can't be reached.
    """
    from httpx2 import HTTPError  # of which the Hub's own errors are
    from huggingface_hub import HfApi, constants, get_token

    if hub_id(repository) != repository:
        raise UsageError(f"--push: {repository!r:.100} is no repository's name; use ORG/NAME")
    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push: HF_HUB_OFFLINE is set; unset it to upload")
    if get_token() is None:
        raise UsageError(f"--push: there is no token for {constants.ENDPOINT}; {FIX}")
    try:
        HfApi().whoami()
    except (HTTPError, OSError) as error:
        raise StorageError(f"--push: {_reason(error)}; {FIX}, and check the network") from error


def is_public(repository: str) -> bool:
    """Whether a repository exists and is not private.

    Raises:
        StorageError: if the Hub refuses or can't be reached.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return not HfApi().repo_info(repository).private
    except RepositoryNotFoundError:
        return False
    except (HTTPError, OSError, ValueError) as error:
        raise StorageError(f"--push: {repository}: {_reason(error)}; {FIX}, and check the network") from error


def check_private(repository: str) -> None:
    """Refuses a public repository.

    Raises:
        UsageError: if it is public.
        StorageError: if the Hub refuses or can't be reached.
    """
    if is_public(repository):
        raise UsageError(
            f"--push: {repository} is PUBLIC, and the evidence has harmful prompts and answers; make it private with "
            f"`hf repos settings {repository} --private`, or answer the question on a terminal, without --yes"
        )


def push(folder: Path, repository: str, *, public: bool) -> str:
    """Uploads a pack; a new repository is private. Returns its address.

    Args:
        folder: the pack.
        repository: `ORG/NAME`.
        public: whether the user wants it in a public repository.

    Raises:
        UsageError: if the repository is public without the user's consent.
        StorageError: if the Hub refuses or can't be reached; the folder is complete all the same.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        if not public:
            check_private(repository)  # an existing repository stays as public as it was
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload the evidence pack")
    except (HTTPError, OSError, ValueError) as error:
        again = f"{folder} is complete; upload it with `hf upload {repository} {folder}`"
        raise StorageError(f"--push: {repository}: {_reason(error)}. {again}") from error
    return str(address)


def _reason(error: Exception) -> str:
    from httpx2 import HTTPError

    if status := getattr(getattr(error, "response", None), "status_code", None):
        return f"the Hub answered {status} ({type(error).__name__})"
    if isinstance(error, HTTPError | OSError):
        return f"the Hub can't be reached ({type(error).__name__})"
    said = " ".join(str(error).split())
    return f"the upload failed ({type(error).__name__}: {said:.200})"
