"""Which weights there are, what for, and where they lie, without importing torch or the network.

A folder of weights is `catalogue.json`, which lists checkpoints with size and checksum, and a `.safetensors`
file for each. There are two: the shipped one lies beside the package in a checkout and inside it in an
installed wheel; `diffmf download-weights` fills the other one. A repository on the Hub has the same form.
"""

import hashlib
import json
import logging
import os
import re
import struct
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path

from diffmf_cli.errors import UsageError, WeightsError, check_choice

log = logging.getLogger(__name__)

_LARGEST_HEADER = 16 << 20
CATALOGUE = "catalogue.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
SHIPPED, DOWNLOADED = "shipped", "downloaded"

# What each task takes from its two pictures.
TASKS = {
    "ir-vis": "heat from {ir} (infrared), detail and colour from {vis} (visible)",
    "medical": "structure from {ir} (MRI, taken in grey), colour from {vis} (CT, PET or SPECT)",
}


@dataclass(frozen=True)
class Entry:
    """One checkpoint of a catalogue.

    Attributes:
        name: what `--model` takes; the file is `NAME.safetensors`.
        task: a key of `TASKS`.
        version: of the weights.
        bytes: size of the file.
        sha256: of the file, in hexadecimal.
        description: one line for people.
        place: `shipped`, `downloaded`, or the folder or repository whose catalogue lists it.
        path: the file, None where it is not on this machine.
    """

    name: str
    task: str
    version: str
    bytes: int
    sha256: str
    description: str
    place: str = SHIPPED
    path: Path | None = None

    @property
    def file(self) -> str:
        """Its file name, in a folder as well as on the Hub."""
        return f"{self.name}.safetensors"

    def row(self) -> dict[str, str | int]:
        """Its entry in `catalogue.json`."""
        return {key: getattr(self, key) for key in _COLUMNS}


_COLUMNS = {f.name: f.type for f in fields(Entry) if f.name not in ("place", "path")}


def shipped_folder() -> Path:
    """The folder with `catalogue.json` and the shipped checkpoints."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "weights"
    return inside if inside.is_dir() else package.parent / "weights"


def downloaded_folder() -> Path:
    """Where `diffmf download-weights` puts checkpoints: `$HF_HOME/diffmf`."""
    # As huggingface_hub finds its home, without its import, which takes half a second.
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(caches, "huggingface")
    return Path(os.path.expandvars(os.path.expanduser(home))) / "diffmf"


def catalogue() -> list[Entry]:
    """All shipped checkpoints, then all downloaded ones.

    Raises:
        WeightsError: if the shipped catalogue is missing, or one of the two unreadable.
    """
    shipped, downloaded = shipped_folder(), downloaded_folder()
    entries = read_catalogue(shipped, SHIPPED)
    if (downloaded / CATALOGUE).is_file():
        entries += read_catalogue(downloaded, DOWNLOADED)
    return entries


def read_catalogue(folder: Path, place: str) -> list[Entry]:
    """What the catalogue of a folder lists.

    Raises:
        WeightsError: if it is missing or unreadable.
    """
    path = folder / CATALOGUE
    fix = "reinstall diffmf" if place == SHIPPED else "download the weights again"
    try:
        return parse_catalogue(path.read_bytes(), place, folder)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: no catalogue of weights ({error}); {fix}") from error


def parse_catalogue(text: bytes, place: str, folder: Path | None = None) -> list[Entry]:
    """Reads and checks the text of a `catalogue.json`; columns of later versions are passed over.

    Args:
        text: the content of the file.
        place: of the entries.
        folder: where their files may lie.

    Raises:
        ValueError: if it is not a catalogue.
    """
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("not a list of checkpoints")
    entries = []
    for row in rows:
        for column, kind in _COLUMNS.items():
            if not isinstance(row, dict) or not isinstance(row.get(column), kind):  # type: ignore[arg-type]
                raise ValueError(f"a checkpoint without a '{column}'")
        # It becomes a file name, and comes from the network.
        if not _NAME.fullmatch(row["name"]):
            raise ValueError(f"'{row['name']}' is no name for a checkpoint")
        entry = Entry(**{column: row[column] for column in _COLUMNS}, place=place)
        path = folder / entry.file if folder is not None else None
        entries.append(replace(entry, path=path if path is not None and path.is_file() else None))
    return entries


def entry_of_file(path: Path) -> Entry:
    """The entry that a checkpoint of one's own would have in a catalogue.

    Raises:
        UsageError: if its file name cannot be a checkpoint's name.
        WeightsError: if it is no checkpoint.
    """
    if path.suffix != ".safetensors" or not _NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: rename it to NAME.safetensors, NAME of letters, digits, _ and -")
    metadata = read_metadata(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(
        path.stem,
        metadata.get("task", "unknown"),
        metadata.get("version", "0"),
        path.stat().st_size,
        digest,
        metadata.get("description", "Trained with diffmf train."),
        place=str(path.parent),
        path=path,
    )


def find_weights(name_or_path: str) -> Path:
    """The file that `--model` means.

    In this order: a path; a name in `$DIFFMF_WEIGHTS`; a shipped name; a downloaded one; a name in the
    repository `$DIFFMF_HUB_REPO`, from which it is downloaded unless `HF_HUB_OFFLINE` forbids it.
    `DIFFMF_WEIGHTS` may name a folder of checkpoints or one file, which then replaces every name.

    Raises:
        WeightsError: if there is no such file or name, or it cannot be downloaded.
    """
    as_path = Path(name_or_path).expanduser()
    if as_path.suffix or os.sep in name_or_path or as_path.is_file():
        if as_path.is_file():
            return as_path
        what = "is a folder, not a checkpoint" if as_path.is_dir() else "no such checkpoint"
        raise WeightsError(f"{name_or_path}: {what}; see: diffmf download-weights --list")
    override = os.environ.get("DIFFMF_WEIGHTS")
    if override:
        place = Path(override).expanduser()
        if place.is_file():
            return place
        if not place.is_dir():
            raise WeightsError(f"{override}: DIFFMF_WEIGHTS names no file or folder; correct or unset it")
        if (place / f"{name_or_path}.safetensors").is_file():
            return place / f"{name_or_path}.safetensors"
    entries = [entry for entry in catalogue() if entry.name == name_or_path]
    for entry in entries:
        if entry.path is not None:
            return entry.path
    repository = os.environ.get("DIFFMF_HUB_REPO")
    if repository and not offline():
        from diffmf_cli.model import hub

        log.warning("%s is not on this machine: asking %s for it", name_or_path, repository)
        return hub.download(name_or_path, hub.Repository.parse(repository), downloaded_folder())
    if entries:
        again = f"reinstall diffmf, or: diffmf download-weights {name_or_path} --repo ORG/NAME"
        raise WeightsError(f"{shipped_folder() / entries[0].file}: missing; {again}")
    raise unknown_model(name_or_path, "known", [entry.name for entry in catalogue()])


def unknown_model(name: str, place: str, known: list[str]) -> WeightsError:
    """The error for a name that a catalogue lacks, with a guess at what was meant.

    Args:
        name: that was asked for.
        place: whose catalogue it is, before the names in it.
        known: names in it.
    """
    guess = get_close_matches(name, known, n=1)
    hint = f"did you mean '{guess[0]}'?" if guess else f"{place}: {', '.join(known)}"
    return WeightsError(f"unknown model '{name}': {hint}")


def offline() -> bool:
    """Whether `--offline` or `HF_HUB_OFFLINE` forbids the network; the words are huggingface_hub's."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def check_task(name_or_path: str, path: Path, task: str = "auto") -> dict[str, str]:
    """Refuses weights for another task than was asked for, or than their name stands for.

    Args:
        name_or_path: what `find_weights` was asked for.
        path: what it found.
        task: a key of `TASKS`; `auto` is what the catalogue says of a name, and anything for a path.

    Returns:
        The metadata of the file.

    Raises:
        UsageError: for an unknown task.
        WeightsError: for weights of another task, and files that are no weights.
    """
    check_choice("task", task, ("auto", *TASKS))
    metadata = read_metadata(path)
    found = metadata.get("task", "unknown")
    entries = catalogue()
    if task == "auto":
        meant = next((entry.task for entry in entries if entry.name == name_or_path), found)
        where, fix = (
            f"in the place of '{name_or_path}', which is for",
            f"unset DIFFMF_WEIGHTS, or use -m {path}",
        )
    else:
        names = [entry.name for entry in entries if entry.task == task]
        meant, where, fix = (
            task,
            "not",
            f"use {' or '.join(['-m ' + name for name in names] or ['weights of that task'])}",
        )
    if found != meant:
        raise WeightsError(f"{path}: weights for the task {found}, {where} {meant}: {fix}")
    return metadata


def check(entry: Entry) -> str | None:
    """None if the entry's file has the catalogued size and checksum, else what is wrong."""
    if entry.path is None:
        return "missing"
    if entry.path.stat().st_size != entry.bytes:
        return f"{entry.path.stat().st_size} bytes instead of {entry.bytes}"
    with entry.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == entry.sha256 else f"sha256 {found[:12]}... instead of {entry.sha256[:12]}..."


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in a safetensors header, without reading the weights.

    Raises:
        WeightsError: if the file is missing, unreadable, cut short or not safetensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(size) if 0 < size <= _LARGEST_HEADER else b""
            actual = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights ({error.strerror})") from error
    try:
        header = json.loads(text)
        end = 8 + size + max(t["data_offsets"][1] for k, t in header.items() if k != "__metadata__")
        metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        # Asked last: a safetensors file begins with its header's length, which may be any two bytes.
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise WeightsError(
                f"{path}: a pickle file, which may run code when loaded; use .safetensors"
            ) from None
        raise WeightsError(f"{path}: not a safetensors file; see: diffmf download-weights --list") from error
    if actual != end:
        raise WeightsError(f"{path}: {actual} bytes instead of {end}: cut short or damaged; fetch it again")
    return metadata
