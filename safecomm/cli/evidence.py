"""The evidence pack of `safecomm export`, and `safecomm verify`, which checks one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from safecomm.cli.console import console
from safecomm.errors import UsageError


def write_evidence(
    run: Path, arm: str | None, seed: int, out: Path, policy: Path | None, repository: str | None, yes: bool
) -> None:
    """Writes the evidence pack of an adapter and, if a repository is named, uploads it after a confirmation."""
    from safecomm.report.pack.push import check_access, check_private
    from safecomm.report.pack.write import write_pack

    if repository:
        if not yes and not sys.stdin.isatty():
            raise UsageError("--push: it asks before it uploads; add --yes to upload without a question")
        check_access(repository)
        if yes:
            check_private(repository)
    pack = write_pack(run, arm, seed, out, policy)
    verdict = f", gate: {pack.verdict}" if pack.verdict else ""
    console.print(f"evidence on {pack.arm} written to {out}{verdict}", soft_wrap=True)
    _print_manifest(out)
    if repository:
        _push(out, repository, yes)


def _push(folder: Path, repository: str, yes: bool) -> None:
    from safecomm.report.pack.push import is_public, push

    public = not yes and is_public(repository)
    question = f"Upload it to {repository}? It contains harmful prompts and answers; a new repository is private."
    if public:
        question = (
            f"Upload it to the PUBLIC repository {repository}? Everyone could read its harmful prompts and answers."
        )
    if yes or typer.confirm(question):
        console.print(f"uploaded to {push(folder, repository, public=public)}", soft_wrap=True)
    else:
        console.print("not uploaded", soft_wrap=True)


def verify(folder: Annotated[Path, typer.Argument(help="The evidence pack.", metavar="DIR")]) -> None:
    """Compares every file of an evidence pack with its manifest.

    The exit code is 1 if a file is missing, was altered, or is not in the manifest. The manifest is not signed: compare
    its own SHA-256 with the one that `export` printed.
    """
    from safecomm.storage.manifest import differences, read_manifest

    manifest = read_manifest(folder)
    found = list(differences(folder, manifest))
    for line in found:
        console.print(line, soft_wrap=True)
    if found:
        console.print(f"{folder}: differs from its manifest in {len(found)} of its files", soft_wrap=True)
        sys.exit(1)
    console.print(f"{folder}: as {manifest.made_with} wrote it on {manifest.created}", soft_wrap=True)
    _print_manifest(folder)


def _print_manifest(folder: Path) -> None:
    from safecomm.storage.manifest import read_manifest, sha256_of
    from safecomm.storage.names import MANIFEST

    manifest = read_manifest(folder)
    size = f"{len(manifest.files)} files, {manifest.size / 1e6:.1f} MB"
    console.print(f"{size}; SHA-256 of {MANIFEST}: {sha256_of(folder / MANIFEST)}", soft_wrap=True)
