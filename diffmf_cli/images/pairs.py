"""Which files of several folders show the same scene, by their names."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Ambiguity:
    """Names of one folder that pair as the same scene.

    Attributes:
        key: The scene.
        names: Paths relative to the folder, two or more.
        folder: Which one, for messages.
    """

    key: str
    names: tuple[PurePath, ...]
    folder: str

    def __str__(self) -> str:
        return (
            f"{self.names[0]} and {self.names[1]} in {self.folder} both pair as {self.key!r}: rename one, or "
            "say with --pair-by which part of a name counts"
        )


@dataclass(frozen=True)
class NamePairing:
    """Which relative names of two folders belong together.

    Attributes:
        pairs: Key, infrared and visible name, sorted by key.
        ir_orphans: Infrared names without a partner.
        vis_orphans: Visible names without a partner.
        ambiguous: Names that could pair with several others; they are in none of the other lists.
    """

    pairs: list[tuple[str, PurePath, PurePath]]
    ir_orphans: list[PurePath]
    vis_orphans: list[PurePath]
    ambiguous: list[Ambiguity]


@dataclass
class Listing:
    """The pictures of a folder, and what of it could not be listed.

    Attributes:
        names: Sorted paths relative to the folder.
        unreadable: For each folder below that cannot be opened a sentence that names it.
        loops: For each link that leads back to a folder above it a sentence that names it.
    """

    names: list[PurePath] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)


def scan_folder(folder: Path, recursive: bool = False, besides: Path | None = None) -> Listing:
    """Pictures in a folder by their extension; hidden files and folders do not count.

    Links to folders are followed where that leads to an end. A link to nothing is listed, so that reading it
    tells what is wrong; devices and pipes are not.

    Args:
        folder: An existing folder.
        recursive: Folders below count as well.
        besides: A folder that is left out, such as that of the results.
    """
    listing = Listing()
    left_out = os.path.realpath(besides) if besides is not None else None

    def enter(relative: PurePath, above: frozenset[str]) -> None:
        path = folder / relative
        real = os.path.realpath(path)
        if real == left_out:
            return
        if real in above:
            listing.loops.append(f"{path} is a link to a folder above it: it is not followed")
            return
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            listing.unreadable.append(
                f"folder {path} cannot be read ({error.strerror}): check its permissions"
            )
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if recursive:
                    enter(relative / entry.name, above | {real})
            elif PurePath(entry.name).suffix.lower() in EXTENSIONS and _is_file_or_broken_link(entry):
                listing.names.append(relative / entry.name)

    enter(PurePath(), frozenset())
    listing.names.sort()
    return listing


def list_pictures(folder: Path, recursive: bool = False) -> list[PurePath]:
    """Pictures in a folder as `scan_folder` finds them.

    Raises:
        UsageError: The folder does not exist, is a file, cannot be read, or holds no picture.
    """
    check_folder(folder)
    listing = scan_folder(folder, recursive)
    if listing.unreadable:
        raise UsageError(listing.unreadable[0])
    if not listing.names:
        raise no_pictures(folder, recursive)
    return listing.names


def check_folder(folder: Path) -> None:
    """Refuses what is no folder.

    Raises:
        UsageError: It does not exist, or is a file.
    """
    if not folder.exists():
        raise UsageError(f"folder {folder} does not exist: check the path")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file: name the folder that holds the pictures")


def no_pictures(folder: Path | str, recursive: bool) -> UsageError:
    """The error for a folder without pictures."""
    hint = "" if recursive else ", or add -r for the folders below it"
    return UsageError(f"folder {folder} holds no picture (PNG, JPEG, TIFF, WebP, BMP): check the path{hint}")


def pair_names(
    ir: Iterable[PurePath],
    vis: Iterable[PurePath],
    *,
    pair_by: str | None = None,
    folders: tuple[str, str] = ("the infrared folder", "the visible folder"),
) -> NamePairing:
    """Pair relative names of an infrared and a visible folder, as `pair_folders` does.

    Args:
        ir: Names of infrared pictures.
        vis: Names of visible pictures.
        pair_by: As of `pair_folders`.
        folders: What messages call the two.

    Raises:
        UsageError: The regular expression is not valid or has no named group.
    """
    by_regex = _regex_key(pair_by) if pair_by is not None else None
    stages = [(by_regex, by_regex)] if by_regex else [(_stem, _stem), (_scene, _scene)]
    matched, ir_rest, vis_rest, ambiguous = _join((ir, vis), stages, folders)
    pairs = []
    for ir_name, vis_name in matched:
        if by_regex:
            key = by_regex(vis_name)
        else:
            key = _stem(vis_name) if _stem(ir_name) == _stem(vis_name) else _scene(vis_name)
        pairs.append((key or _stem(vis_name), ir_name, vis_name))
    return NamePairing(sorted(pairs), ir_rest, vis_rest, ambiguous)


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
    check_different(ir, vis)
    found = pair_names(
        list_pictures(ir, recursive),
        list_pictures(vis, recursive),
        pair_by=pair_by,
        folders=(str(ir), str(vis)),
    )
    _refuse(found.ambiguous)
    return Pairing(
        [Pair(key, ir / ir_name, vis / vis_name) for key, ir_name, vis_name in found.pairs],
        [ir / name for name in found.ir_orphans],
        [vis / name for name in found.vis_orphans],
    )


def check_different(ir: Path, vis: Path) -> None:
    """Refuses one folder given twice.

    Raises:
        UsageError: Both are the same folder.
    """
    if ir.exists() and vis.exists() and ir.samefile(vis):
        raise UsageError(f"infrared and visible folder are the same ({ir}): give one of each kind")


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
    names = list(by_name), list_pictures(folder, recursive)
    matched, _, rest, ambiguous = _join(names, stages, (str(vis), str(folder)))
    _refuse(ambiguous)
    return {by_name[name].key: folder / result for name, result in matched}, [folder / name for name in rest]


def _join(
    names: tuple[Iterable[PurePath], Iterable[PurePath]],
    stages: Sequence[tuple[_Key, _Key]],
    folders: tuple[str, str],
) -> tuple[list[tuple[PurePath, PurePath]], list[PurePath], list[PurePath], list[Ambiguity]]:
    """Match names of two folders by equal keys, stage after stage; returns the matches and what is left."""
    rest = list(names[0]), list(names[1])
    matched: list[tuple[PurePath, PurePath]] = []
    ambiguous: list[Ambiguity] = []
    for keys in stages:
        groups = [_group(left, key) for left, key in zip(rest, keys, strict=True)]
        taken: tuple[set[PurePath], set[PurePath]] = (set(), set())
        for key in sorted(groups[0].keys() & groups[1].keys()):
            both = groups[0][key], groups[1][key]
            for side in (0, 1):
                taken[side].update(both[side])
                if len(both[side]) > 1:
                    ambiguous.append(Ambiguity(key, tuple(both[side]), folders[side]))
            if len(both[0]) == len(both[1]) == 1:
                matched.append((both[0][0], both[1][0]))
        for side in (0, 1):
            rest[side][:] = [name for name in rest[side] if name not in taken[side]]
    return matched, *rest, ambiguous


def _refuse(ambiguous: list[Ambiguity]) -> None:
    if ambiguous:
        raise UsageError(str(ambiguous[0]))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _is_file_or_broken_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return entry.is_symlink()


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
