"""What a repository on the Hub holds besides weights: catalogue, configuration and model card."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from diffmf_cli.errors import UsageError, WeightsError
from diffmf_cli.model.catalogue import (
    CATALOGUE,
    SHIPPED,
    TASKS,
    Entry,
    catalogue,
    check,
    check_task,
    entry_of_file,
    find_weights,
    shipped_folder,
)
from diffmf_cli.model.checkpoint import load_checkpoint

CARD, CONFIG = "README.md", "config.json"
_TAGS = {
    "ir-vis": ("infrared", "thermal", "visible"),
    "medical": ("medical-imaging", "mri", "ct", "pet", "spect"),
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was loaded once, so that what is published works."""

    entry: Entry
    path: Path
    metadata: dict[str, str]
    parameters: int

    @classmethod
    def load(cls, name_or_path: str) -> "Checkpoint":
        """Finds, checks and loads what `--model` would mean.

        Raises:
            UsageError: if its file name can be no name on the Hub.
            WeightsError: if it is missing, damaged, or not what its catalogue says.
        """
        path = find_weights(name_or_path)
        check_task(name_or_path, path)
        entry = next((e for e in catalogue() if e.path == path), None) or entry_of_file(path)
        if wrong := check(entry):
            raise WeightsError(f"{path}: {wrong}: not published; reinstall diffmf or download it again")
        network, metadata = load_checkpoint(path)
        return cls(entry, path, metadata, sum(p.numel() for p in network.parameters()))


def hub_files(names: list[str], repository: str) -> dict[str, bytes]:
    """All files of a repository.

    Args:
        names: of checkpoints, as `--model` takes them; none means all that are shipped.
        repository: `ORG/NAME`, for the words of the model card.

    Returns:
        File name to content.

    Raises:
        UsageError: if two checkpoints would have one name.
        WeightsError: if a checkpoint is missing or unusable.
    """
    wanted = names or [entry.name for entry in catalogue() if entry.place == SHIPPED]
    checkpoints = [Checkpoint.load(name) for name in wanted]
    entries = [checkpoint.entry for checkpoint in checkpoints]
    for i, entry in enumerate(entries):
        if entry.name in [other.name for other in entries[:i]]:
            raise UsageError(f"two checkpoints are called {entry.name}: rename the file of one")
    files = {c.entry.file: c.path.read_bytes() for c in checkpoints}
    files[CATALOGUE] = _json([entry.row() for entry in entries])
    files[CONFIG] = _json(_config(checkpoints))
    text = _card(checkpoints, repository)
    if any(entry.place == SHIPPED for entry in entries):
        shipped_card, linked = _shipped_card()
        text += "\n" + shipped_card
        files |= linked
    files[CARD] = text.encode()
    return files


def _config(checkpoints: list[Checkpoint]) -> dict[str, object]:
    return {
        "library_name": "diffmf",
        "architecture": "diff-mf",
        "checkpoints": {
            c.entry.name: {
                "file": c.entry.file,
                "task": c.entry.task,
                "version": c.entry.version,
                "parameters": c.parameters,
                "config": json.loads(c.metadata["config"]),
            }
            for c in checkpoints
        },
    }


def _card(checkpoints: list[Checkpoint], repository: str) -> str:
    tasks = list(dict.fromkeys(c.entry.task for c in checkpoints))
    tags = ["image-fusion", "mamba", *(tag for task in tasks for tag in _TAGS.get(task, ()))]
    free = all(c.metadata.get("licence", "").startswith("MIT") for c in checkpoints)
    first = checkpoints[0].entry.name
    lines = [
        "---",
        f"license: {'mit' if free else 'unknown'}",
        "library_name: diffmf",
        "pipeline_tag: image-to-image",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
        f"# {repository}",
        "",
        "Weights for `diffmf`, which fuses two pictures of a scene with DIFF-MF (arXiv 2601.05538).",
        "",
        "```sh",
        f"diffmf download-weights {first} --repo {repository}",
        f"diffmf fuse first.png second.png -m {first}",
        "```",
        "",
        "| name | task | version | parameters | MB | sha256 |",
        "|---|---|---|---:|---:|---|",
    ]
    for c in checkpoints:
        size = f"{c.parameters:,} | {c.entry.bytes / 1e6:.1f}"
        lines.append(
            f"| `{c.entry.name}` | {c.entry.task} | {c.entry.version} | {size} | `{c.entry.sha256}` |"
        )
    for c in checkpoints:
        lines += ["", f"**`{c.entry.name}`**: {c.entry.description}"]
        if c.entry.task in TASKS:
            lines.append(f"- Takes {TASKS[c.entry.task].format(ir='the first picture', vis='the second')}.")
        told = {"data": "Data", "history": "Training", "licence": "Licence"}
        lines += [f"- {title}: {c.metadata[key]}" for key, title in told.items() if c.metadata.get(key)]
    return "\n".join(lines) + "\n"


def _shipped_card() -> tuple[str, dict[str, bytes]]:
    """The card of the shipped weights without its title, and the files in their folder that it links to."""
    folder = shipped_folder().resolve()
    path = folder / CARD
    if not path.is_file():
        return "", {}
    linked = {}

    def keep_if_it_comes_along(link: re.Match[str]) -> str:
        target = (folder / link[3]).resolve()
        if target.is_file() and target.is_relative_to(folder):
            linked[target.relative_to(folder).as_posix()] = target.read_bytes()
            return link[0]
        return link[2]

    body = re.sub(r"\A# .*\n+", "", path.read_text("utf-8"))
    return _LINK.sub(keep_if_it_comes_along, body), linked


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
