"""Which weights there are and where they lie, without importing torch.

`weights/catalogue.json` lists what is shipped, with size and checksum. The folder lies beside the package in
a checkout and inside it in an installed wheel.
"""

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from diffmf_cli.errors import WeightsError

_LARGEST_HEADER = 16 << 20


@dataclass(frozen=True)
class Entry:
    """One shipped checkpoint; `path` is None where its file is missing."""

    name: str
    task: str
    version: str
    bytes: int
    sha256: str
    description: str
    path: Path | None


def shipped_folder() -> Path:
    """The folder with `catalogue.json` and the shipped checkpoints."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "weights"
    return inside if inside.is_dir() else package.parent / "weights"


def catalogue() -> list[Entry]:
    """All shipped checkpoints.

    Raises:
        WeightsError: if the catalogue is missing or unreadable.
    """
    folder = shipped_folder()
    path = folder / "catalogue.json"
    try:
        rows = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: no catalogue of weights ({error}); reinstall diffmf") from error

    def located(name: str) -> Path | None:
        file = folder / f"{name}.safetensors"
        return file if file.is_file() else None

    return [Entry(**row, path=located(row["name"])) for row in rows]


def find_weights(name_or_path: str) -> Path:
    """The file that `--model` means: a path, else a name in `$DIFFMF_WEIGHTS`, else a shipped name.

    `DIFFMF_WEIGHTS` may name a folder of checkpoints or one file, which then replaces every name.

    Raises:
        WeightsError: if there is no such file or name.
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
    entries = {entry.name: entry for entry in catalogue()}
    entry = entries.get(name_or_path)
    if entry is None:
        guess = get_close_matches(name_or_path, entries, n=1)
        hint = f"did you mean '{guess[0]}'?" if guess else f"shipped: {', '.join(entries)}."
        raise WeightsError(f"unknown model '{name_or_path}': {hint}")
    if entry.path is None:
        raise WeightsError(f"{shipped_folder() / (entry.name + '.safetensors')}: missing; reinstall diffmf")
    return entry.path


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
