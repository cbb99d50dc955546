"""Checkpoints: safetensors with the architecture and its history in the header. Never pickle."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from diffmf_cli.errors import WeightsError
from diffmf_cli.model.catalogue import read_metadata
from diffmf_cli.model.network import Config, DiffMF

ARCHITECTURE = "diff-mf"


def save_checkpoint(path: Path, model: DiffMF, metadata: dict[str, str]) -> None:
    """Writes weights and metadata; what exists under the name is whole at any moment.

    Args:
        path: ends in `.safetensors`.
        model: whose weights and configuration are stored.
        metadata: anything that tells where the weights come from: task, version, data, recipe, figures.
    """
    header = {**metadata, "architecture": ARCHITECTURE, "config": json.dumps(model.config.to_dict())}
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(weights, header))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[DiffMF, dict[str, str]]:
    """Builds the network that a checkpoint describes, in inference mode, and loads it strictly.

    Returns:
        The network on the device, float32, and the checkpoint's metadata.

    Raises:
        WeightsError: if the file is missing, damaged, not safetensors, or of another architecture.
    """
    metadata = read_metadata(path)
    if metadata.get("architecture") != ARCHITECTURE:
        found = metadata.get("architecture", "no architecture in its header")
        raise WeightsError(f"{path}: not DIFF-MF weights ({found}); see: diffmf download-weights --list")
    try:
        model = DiffMF(Config.from_dict(json.loads(metadata["config"])))
    except Exception as error:  # a value of the wrong kind or size can trip over anything in the network
        raise WeightsError(f"{path}: its configuration is unusable ({error}); fetch it again") from error
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: damaged weights ({error}); fetch them again") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path}: weights of another architecture ({first})") from error
    if not all(bool(t.isfinite().all()) for t in weights.values()):
        raise WeightsError(f"{path}: holds values that are not finite; fetch it again")
    model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, metadata
