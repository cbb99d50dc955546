"""Which files of several folders show the same scene, by their names."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from diffmf_cli.errors import UsageError

EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"))

# Parts of a name that tell the camera, not the scene. Single letters need a separator or an end on both
# sides, or the T of a time stamp would go as well.
_MODALITY = re.compile(
    r"(?<![^\W\d_])(?:ir|vi|vis|visible|infrared|thermal|lwir|rgb)(?![^\W\d_])|(?<![^\W_])[twzv](?![^\W_])",
    re.IGNORECASE,
)
_FUSED = re.compile(r"(?<![^\W\d_])(?:fused|fusion)(?![^\W\d_])", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\W_]+")

_Key = Callable[[PurePath], str | None]


@dataclass(frozen=True)
class Pair:
    """An infrared and a visible picture of one scene.

    Attributes:
        key: The name of the scene: the common part of both names, with its folder below the given one.
        ir: Path of the infrared picture.
        vis: Path of the visible picture.
    """

    key: str
    ir: Path
    vis: Path


@dataclass(frozen=True)
class Pairing:
    """The pairs of two folders, sorted by key, and the pictures that are left over."""

    pairs: list[Pair]
    ir_orphans: list[Path]
    vis_orphans: list[Path]


def list_pictures(folder: Path, recursive: bool = False) -> list[PurePath]:
    """Pictures in a folder by their extension, as sorted paths relative to it; hidden files do not count.

    Raises:
        UsageError: The folder does not exist, is a file, or holds no picture.
    """
    if not folder.exists():
        raise UsageError(f"folder {folder} does not exist: check the path")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file: name the folder that holds the pictures")
    found = sorted(
        path.relative_to(folder)
        for path in folder.glob("**/*" if recursive else "*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        hint = "" if recursive else ", or add -r for the folders below it"
        raise UsageError(
            f"folder {folder} holds no picture (PNG, JPEG, TIFF, WebP, BMP): check the path{hint}"
        )
    return list(found)


def pair_folders(ir: Path, vis: Path, *, pair_by: str | None = None, recursive: bool = False) -> Pairing:
    """Pair the pictures of two folders by name: never by their order.

    Names pair when their stems are equal; the rest pairs when they are equal without the parts that tell the
    camera (`DJI_0001_T` and `DJI_0001_W`, `img1_ir` and `img1_vis`, `IR1` and `VIS1`).

    Args:
        ir: Folder of infrared pictures.
        vis: Folder of visible pictures.
        pair_by: A regular expression with named groups instead: names pair when what the groups match in
            their relative path without extension is equal.
        recursive: Folders below the two given ones count as well; they are part of the name.

    Raises:
        UsageError: A folder is missing or empty, both are the same, a name could pair with two others, or
            the regular expression is not valid or has no named group.
    """
    if ir.exists() and vis.exists() and ir.samefile(vis):
        raise UsageError(f"infrared and visible folder are the same ({ir}): give one of each kind")
    names = list_pictures(ir, recursive), list_pictures(vis, recursive)
    by_regex = _regex_key(pair_by) if pair_by is not None else None
    stages = [(by_regex, by_regex)] if by_regex else [(_stem, _stem), (_scene, _scene)]
    matched, ir_rest, vis_rest = _join(names, stages, (ir, vis))
    pairs = []
    for ir_name, vis_name in matched:
        if by_regex:
            key = by_regex(vis_name)
        else:
            key = _stem(vis_name) if _stem(ir_name) == _stem(vis_name) else _scene(vis_name)
        pairs.append(Pair(key or _stem(vis_name), ir / ir_name, vis / vis_name))
    return Pairing(
        sorted(pairs, key=lambda pair: pair.key),
        [ir / name for name in ir_rest],
        [vis / name for name in vis_rest],
    )


def match_results(
    pairs: Sequence[Pair], vis: Path, folder: Path, *, pair_by: str | None = None, recursive: bool = False
) -> tuple[dict[str, Path], list[Path]]:
    """Find the fused pictures of pairs by the names of their visible pictures.

    A result may be called as the visible picture, with or without `fused` in its name, or as the scene.

    Args:
        pairs: Pairs of `pair_folders`.
        vis: The visible folder that was given to it.
        folder: Folder of one method's results.
        pair_by: The regular expression that was given to it; names that it does not match go by the rules.
        recursive: Folders below count as well.

    Returns:
        Key to path of the result, for pairs that have one, and the results that belong to no pair.

    Raises:
        UsageError: The folder is missing or empty, or a result could belong to two pairs.
    """
    stages: list[tuple[_Key, _Key]] = [(_stem, _stem), (_unfused, _unfused), (_scene, _scene_of_result)]
    if pair_by is not None:
        by_regex = _regex_key(pair_by)
        stages.insert(0, (by_regex, by_regex))
    by_name: dict[PurePath, Pair] = {pair.vis.relative_to(vis): pair for pair in pairs}
    matched, _, rest = _join((list(by_name), list_pictures(folder, recursive)), stages, (vis, folder))
    return {by_name[name].key: folder / result for name, result in matched}, [folder / name for name in rest]


def _join(
    names: tuple[Iterable[PurePath], Iterable[PurePath]],
    stages: Sequence[tuple[_Key, _Key]],
    folders: tuple[Path, Path],
) -> tuple[list[tuple[PurePath, PurePath]], list[PurePath], list[PurePath]]:
    """Match names of two folders by equal keys, stage after stage; returns the matches and both rests."""
    rest = list(names[0]), list(names[1])
    matched: list[tuple[PurePath, PurePath]] = []
    for keys in stages:
        groups = [_group(left, key) for left, key in zip(rest, keys, strict=True)]
        for key in groups[0].keys() & groups[1].keys():
            for group, folder in zip((groups[0][key], groups[1][key]), folders, strict=True):
                if len(group) > 1:
                    raise UsageError(
                        f"{group[0]} and {group[1]} in {folder} both pair as {key!r}: rename one, or say "
                        "with --pair-by which part of a name counts"
                    )
            matched.append((groups[0][key][0], groups[1][key][0]))
        for side in (0, 1):
            done = {match[side] for match in matched}
            rest[side][:] = [name for name in rest[side] if name not in done]
    return matched, *rest


def _group(names: Iterable[PurePath], key: _Key) -> dict[str, list[PurePath]]:
    groups: dict[str, list[PurePath]] = {}
    for name in names:
        found = key(name)
        if found is not None:
            groups.setdefault(found, []).append(name)
    return groups


def _stem(name: PurePath) -> str:
    return name.with_suffix("").as_posix()


def _without(name: PurePath, *parts: re.Pattern[str]) -> str:
    stem = name.stem
    for part in parts:
        stem = part.sub("", stem)
    return name.with_name(_SEPARATORS.sub("_", stem).strip("_") or "scene").as_posix()


def _scene(name: PurePath) -> str:
    return _without(name, _MODALITY)


def _scene_of_result(name: PurePath) -> str:
    return _without(name, _FUSED, _MODALITY)


def _unfused(name: PurePath) -> str:
    return _without(name, _FUSED)


def _regex_key(pattern: str) -> _Key:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--pair-by {pattern!r} is not a regular expression: {error}") from None
    if not compiled.groupindex:
        raise UsageError(
            f"--pair-by {pattern!r} has no named group: mark what both names share, such as '(?P<id>[0-9]+)'"
        )

    def key(name: PurePath) -> str | None:
        match = compiled.search(_stem(name))
        return "/".join(part or "" for part in match.groupdict().values()) if match else None

    return key
