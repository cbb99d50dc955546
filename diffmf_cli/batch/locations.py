"""Paths and URLs behind one door: listing, reading and writing of files wherever they are.

A path is a path; `s3://`, `gs://`, `hf://`, `memory://` and so on go through fsspec, which is imported for
them only. `file://` is a path.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.pairs import EXTENSIONS, Listing, check_folder, scan_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def is_url(location: str) -> bool:
    """Whether a location is a URL, `file://` apart."""
    return "://" in location


def without_file_scheme(location: str) -> str:
    """`file:///a%20b` as `/a b`; everything else as it is."""
    scheme, separator, rest = location.partition("://")
    return unquote(rest) if separator and scheme == "file" else location


def join(folder: str, name: PurePath | str) -> str:
    """A name below a folder."""
    if is_url(folder):
        return f"{folder.rstrip('/')}/{PurePath(name).as_posix()}"
    return str(Path(folder) / name)


def list_pictures(folder: str, recursive: bool, besides: str | None = None) -> Listing:
    """Pictures in a folder; see `diffmf_cli.images.pairs.scan_folder`.

    Raises:
        UsageError: The folder does not exist, is a file, or cannot be reached.
    """
    if not is_url(folder):
        check_folder(Path(folder))
        return scan_folder(Path(folder), recursive, Path(besides) if besides else None)
    found = _files_below(folder, recursive)
    if found is None:
        raise UsageError(f"folder {folder} does not exist: check the URL")
    hidden = besides.rstrip("/") + "/" if besides else None
    return Listing(
        sorted(
            name
            for name in found
            if name.suffix.lower() in EXTENSIONS
            and not any(part.startswith(".") for part in name.parts)
            and not (hidden and join(folder, name).startswith(hidden))
        )
    )


def list_folders(folder: str) -> list[str]:
    """Names of the folders in a folder.

    Raises:
        UsageError: The folder does not exist, is a file, or cannot be reached.
    """
    if is_url(folder):
        with _reported(folder, UsageError):
            system, path = _open(folder)
            found = [entry for entry in system.ls(path, detail=True) if entry["type"] == "directory"]
            return sorted(PurePosixPath(entry["name"]).name for entry in found)
    check_folder(Path(folder))
    return sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir())


class ExistingResults:
    """Whether results of a folder exist already.

    A remote folder is listed once: asking for each file takes long.
    """

    def __init__(self, folder: str) -> None:
        self._remote: set[str] | None = None
        if is_url(folder):
            self._remote = {join(folder, name) for name in _files_below(folder, recursive=True) or ()}

    def __contains__(self, location: str) -> bool:
        return location in self._remote if self._remote is not None else exists(location)


def exists(location: str) -> bool:
    """Whether there is a file."""
    if is_url(location):
        with _reported(location, ImageError):
            system, path = _open(location)
            return bool(system.exists(path))
    try:
        return Path(location).exists()
    except OSError:  # a name that no file can have; writing will tell
        return False


def source_of(location: str) -> Path | bytes:
    """What `read_image` takes: a path as it is, the bytes behind a URL.

    Raises:
        ImageError: The URL cannot be read.
    """
    if not is_url(location):
        return Path(location)
    with _reported(location, ImageError):
        system, path = _open(location)
        data: bytes = system.cat_file(path)
        return data


def write(location: str, data: bytes, overwrite: bool) -> None:
    """Writes a file whole or not at all; object stores show an object when its upload is complete.

    Raises:
        ImageError: It exists and may not be overwritten, or cannot be written.
    """
    if not is_url(location):
        from diffmf_cli.images.write import write_atomically

        write_atomically(Path(location), data, overwrite)
        return
    with _reported(location, ImageError):
        system, path = _open(location)
        if not overwrite and system.exists(path):
            raise ImageError(f"{location} exists: choose another name, or --overwrite")
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, data)


def stamp(location: str) -> tuple[Any, ...] | None:
    """What changes while a file is being written: its size and time; None where there is no file."""
    if not is_url(location):
        try:
            status = Path(location).stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns
    with _reported(location, ImageError):
        system, path = _open(location)
        system.invalidate_cache()
        try:
            facts = system.info(path)
        except FileNotFoundError:
            return None
        return facts.get("size"), str(facts.get("LastModified") or facts.get("mtime") or facts.get("created"))


def _files_below(folder: str, recursive: bool) -> list[PurePath] | None:
    """Relative names of all files in a remote folder; None where there is no such folder."""
    with _reported(folder, UsageError):
        system, path = _open(folder)
        system.invalidate_cache()
        files = system.find(path, maxdepth=None if recursive else 1)
        if not files and not system.isdir(path):
            return None
        return [PurePosixPath(file).relative_to(PurePosixPath(path)) for file in files if file != path]


@cache
def _system(scheme: str) -> "AbstractFileSystem":
    import fsspec

    return fsspec.filesystem(scheme)


def _open(location: str) -> tuple["AbstractFileSystem", str]:
    """The file system of a URL, and the path in it."""
    scheme = location.partition("://")[0]
    try:
        system = _system(scheme)
    except ImportError as error:
        extra = "pip install 'diffmf[s3]'" if scheme in ("s3", "s3a") else "install it"
        raise UsageError(
            f"{location}: a package for {scheme}:// is not installed ({error}): {extra}"
        ) from None
    except ValueError:
        raise UsageError(f"{location}: there is no file system {scheme}://, check the URL") from None
    return system, str(system._strip_protocol(location)).rstrip("/")


@contextmanager
def _reported(location: str, kind: type[ImageError] | type[UsageError]) -> Iterator[None]:
    """Whatever a remote file system raises, as one line."""
    try:
        yield
    except (ImageError, UsageError):
        raise
    except FileNotFoundError:
        raise kind(f"{location} does not exist: check the URL") from None
    except PermissionError as error:
        raise kind(f"{location}: no permission ({error}): check your credentials") from None
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise kind(f"{location} cannot be reached ({reason}): check the URL and your credentials") from error
