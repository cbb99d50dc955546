"""Weights from a repository on the Hub: a folder of weights like the shipped one, behind HTTP.

Every transfer is `huggingface_hub`'s, which honours `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and
`HF_HUB_OFFLINE`, keeps a cache, and goes on after a cut connection. Here is what it leaves open: which file,
whether it is the right one, and what to tell a user when it does not come.
"""

import io
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffmf_cli.errors import DiffmfError, UsageError, WeightsError
from diffmf_cli.model.catalogue import (
    CATALOGUE,
    DOWNLOADED,
    Entry,
    check,
    offline,
    parse_catalogue,
    read_catalogue,
    unknown_model,
)

_CHUNK = 1 << 16
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Repository:
    """A model repository at one revision.

    Attributes:
        name: such as `ORG/NAME`.
        revision: branch, tag or commit; None is the main branch.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Reads `ORG/NAME` or `ORG/NAME@REVISION`.

        Raises:
            UsageError: if it is neither.
        """
        name, at, revision = text.partition("@")
        part = r"\w(?:[\w.-]*\w)?"
        bad = not re.fullmatch(f"{part}/{part}", name) or ".." in name or "--" in name
        if bad or (at and not revision.strip("/")):
            raise UsageError(f"repository '{text}': give ORG/NAME or ORG/NAME@REVISION")
        return cls(name, revision or None)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def remote_catalogue(repository: Repository) -> tuple[list[Entry], Repository]:
    """What a repository offers.

    Returns:
        Its entries, and the repository at the commit that they were read from, so that a file which is
        fetched later belongs to them.

    Raises:
        WeightsError: if the repository cannot be reached or holds no catalogue.
    """
    path = _fetch(repository, CATALOGUE)
    try:
        entries = parse_catalogue(path.read_bytes(), str(repository))
    except ValueError as error:
        raise WeightsError(f"{repository}: unusable {CATALOGUE} ({error}); use another repository") from error
    return entries, replace(repository, revision=path.parent.name)


def download(
    name: str,
    repository: Repository,
    folder: Path,
    *,
    overwrite: bool = True,
    report: Report = lambda done, total: None,
) -> Path:
    """Downloads one checkpoint of a repository; see `download_entry`."""
    entries, commit = remote_catalogue(repository)
    for entry in entries:
        if entry.name == name:
            return download_entry(entry, commit, folder, overwrite=overwrite, report=report)
    raise unknown_model(name, f"{repository} has", [entry.name for entry in entries])


def download_entry(
    entry: Entry,
    repository: Repository,
    folder: Path,
    *,
    overwrite: bool = True,
    report: Report = lambda done, total: None,
) -> Path:
    """Downloads a checkpoint and lists it in the folder's catalogue.

    The file appears under its name only after its checksum was found right. What the folder already holds
    is not fetched again.

    Args:
        entry: of the repository's catalogue.
        repository: where it is.
        folder: where it goes.
        overwrite: replace another file of that name.
        report: called with the bytes that have come and all bytes.

    Returns:
        The file.

    Raises:
        WeightsError: if it cannot be downloaded, or is not what the catalogue promises.
        ImageError: if it cannot be written.
    """
    from huggingface_hub.utils import WeakFileLock

    from diffmf_cli.images.write import write_atomically

    target = folder / entry.file
    here = replace(entry, place=DOWNLOADED, path=target)
    if not target.is_file() or check(here) is not None:
        if target.exists() and not overwrite:
            raise WeightsError(f"{target} exists and is another file: choose another --dest, or --overwrite")
        fetched = _fetch(repository, entry.file, report)
        if wrong := check(replace(entry, path=fetched)):
            # Else the cache would give the same bytes to the next try.
            fetched.resolve().unlink(missing_ok=True)
            fetched.unlink(missing_ok=True)
            raise WeightsError(
                f"{repository.name}: {entry.file} has {wrong}: not used; try again, or tell its owner"
            )
        write_atomically(target, fetched.read_bytes(), overwrite=True)
    # Two runs may fetch two checkpoints at once.
    with WeakFileLock(folder / f".{CATALOGUE}.lock"):
        listed = read_catalogue(folder, DOWNLOADED) if (folder / CATALOGUE).is_file() else []
        rows = [old.row() for old in listed if old.name != entry.name] + [entry.row()]
        if entry.row() not in [old.row() for old in listed]:
            write_atomically(folder / CATALOGUE, (json.dumps(rows, indent=2) + "\n").encode(), overwrite=True)
    return target


def check_can_upload() -> None:
    """Finds out before slow work whether an upload could be allowed.

    Raises:
        UsageError: if the network is forbidden.
        DiffmfError: if there is no token.
    """
    from huggingface_hub import get_token

    if offline():
        raise UsageError("HF_HUB_OFFLINE forbids the network: unset it, or use --dry-run")
    if not get_token():
        raise DiffmfError(f"no token for {_endpoint()}: run `hf auth login`, or set HF_TOKEN (write access)")


def upload(files: dict[str, bytes], repository: Repository, message: str) -> str:
    """Makes the repository where there is none and puts files into it, in one commit.

    Args:
        files: name to content.
        repository: its revision must be an existing branch, or None.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        DiffmfError: if the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import disable_progress_bars

    _quieten()
    disable_progress_bars()  # they would tear ours
    api = HfApi()
    try:
        api.create_repo(repository.name, exist_ok=True)
        commit = api.create_commit(
            repository.name,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=message,
            revision=repository.revision,
        )
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        raise DiffmfError(f"{repository}: not uploaded: {_reason(error, repository, '')}") from error
    return str(commit.commit_url)


def _fetch(repository: Repository, file: str, report: Report | None = None) -> Path:
    """One file of the repository, in the cache of `huggingface_hub`."""
    # Checkpoints of a few megabytes gain nothing from Xet, and plain HTTP passes through mirrors and proxies.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    _quieten()
    # Its chunks of 10 MB are larger than our files: a cut transfer would begin anew, with nothing to show.
    chunk = constants.DOWNLOAD_CHUNK_SIZE
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    tries = 3
    try:
        while True:
            tries -= 1
            try:
                path = hf_hub_download(
                    repository.name,
                    file,
                    revision=repository.revision,
                    local_files_only=offline(),
                    library_name="diffmf",
                    tqdm_class=_progress_bar(report),
                )
                return Path(path)
            except (OSError, HTTPError, ValueError, RuntimeError) as error:
                # The library takes up what was cut (old versions only in a new call), never what was reset.
                was_cut = isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError)
                if not was_cut or not tries:
                    raise WeightsError(f"{repository.name}: {_reason(error, repository, file)}") from error
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = chunk


def _reason(error: Exception, repository: Repository, file: str) -> str:
    """What a failure of `huggingface_hub` means and what helps, in one line."""
    from huggingface_hub import errors

    access = "log in with `hf auth login`, or set HF_TOKEN"
    cause = error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated: ask for access on its page, then {access}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision '{repository.revision or 'main'}': correct what follows the @"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository, or a private one: correct the name, or {access}"
    if status in (401, 403):
        return f"{_endpoint()} refuses the token ({status}): {access}"
    if isinstance(error, errors.LocalEntryNotFoundError) and offline():
        return (
            f"{file} is not in the cache, and --offline or HF_HUB_OFFLINE is set: fetch it once with network"
        )
    if status == 404:
        return f"no {file}: use a repository that diffmf publish-weights made"
    if status is not None:
        return f"{_endpoint()} answers {status}: try again later"
    if isinstance(cause, errors.FileMetadataError):
        return f"{_endpoint()} does not answer like a Hub: correct HF_ENDPOINT"
    if isinstance(cause, OSError) and cause.filename:
        return f"{cause.filename}: {cause.strerror}; correct that, or set another HF_HOME"
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return f"the transfer from {_endpoint()} failed ({said}): check the network and run it again"


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _quieten() -> None:
    """Leaves the words to us: the library's own go straight to stderr, over several lines."""
    talkative = os.environ.get("DIFFMF_DEBUG", "") not in ("", "0")
    logging.getLogger("huggingface_hub").setLevel(logging.INFO if talkative else logging.ERROR)


def _progress_bar(report: Report | None) -> Any:
    """A stand-in for tqdm's bar that hands its figures on."""
    from tqdm.std import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **style: Any) -> None:
            style.pop("name", None)
            super().__init__(*args, **{**style, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if report is not None:
                report(int(self.n), int(self.total or 0))
            return shown

    return Bar
