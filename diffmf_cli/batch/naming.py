"""Names of results: from a template, with the tree of the visible pictures, and never outside OUT."""

import os
from pathlib import PurePath, PurePosixPath
from string import Formatter

from diffmf_cli.batch.locations import is_url, join
from diffmf_cli.errors import UsageError, check_choice
from diffmf_cli.images.pairs import EXTENSIONS

WRITABLE = EXTENSIONS - {".bmp"}
FIELDS = ("stem", "ext", "ir_stem", "key")
_SAME = {".jpeg": ".jpg", ".tif": ".tiff"}


class OutsideError(Exception):
    """A name that leads out of OUT."""


def check_template(template: str, format: str) -> None:
    """Refuses a template for names that cannot be meant.

    Raises:
        UsageError: It has an unknown field, none that differs between pairs, or an extension that is no
            picture or not that of `format`.
    """
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(
            f"--name '{template}' is not understood ({error}): such as '{{stem}}{{ext}}'"
        ) from None
    for name in fields:
        check_choice("field in --name", name, FIELDS)
    if not set(fields) - {"ext"}:
        raise UsageError(f"--name '{template}' gives every result the same name: put {{stem}} in it")
    if template.endswith("{ext}"):
        return
    extension = PurePath(template).suffix.lower()
    if extension not in WRITABLE:
        raise UsageError(f"--name '{template}' does not end as a picture: end it with {{ext}} or .png")
    if format != "auto" and _SAME.get(extension, extension) != f".{format}":
        raise UsageError(f"--name '{template}' is not named as --format {format}: change one of them")


def result_name(template: str, format: str, key: str, ir: PurePath, vis: PurePath) -> PurePath:
    """Where the result of a pair goes, relative to OUT: in the folder that `vis` has.

    Args:
        template: Checked by `check_template`.
        format: `auto` keeps TIFF and makes PNG of all else.
        key: Of the pair.
        ir: Name of the infrared picture, relative to its folder.
        vis: Name of the visible picture, relative to its folder.
    """
    extension = f".{format}"
    if format == "auto":
        extension = vis.suffix if vis.suffix.lower() in (".tif", ".tiff") else ".png"
    scene = PurePosixPath(key).name
    name = template.format(stem=vis.stem, ext=extension, ir_stem=ir.stem, key=scene)
    return vis.parent / name


class ResultFolder:
    """OUT, which no result leaves.

    Attributes:
        location: Path or URL of the folder.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._inside = "" if is_url(location) else os.path.realpath(location)
        self._checked: set[PurePath] = {PurePath()}

    def place(self, name: PurePath | str) -> str:
        """The path or URL of a name below OUT.

        Raises:
            OutsideError: The name, or a link on its way, leads out of OUT.
        """
        relative = PurePath(name)
        if relative.is_absolute() or ".." in relative.parts or is_url(str(name)) or not relative.name:
            raise OutsideError(f"{name} does not lie below {self.location}: results are written there only")
        location = join(self.location, relative)
        if not is_url(self.location):
            self._check(relative.parent)
            if os.path.islink(location):
                self._check(relative)
        return location

    def _check(self, relative: PurePath) -> None:
        if relative in self._checked:
            return
        location = join(self.location, relative)
        if os.path.commonpath([self._inside, os.path.realpath(location)]) != self._inside:
            raise OutsideError(f"{location} is a link out of {self.location}: results are written there only")
        self._checked.add(relative)
