"""The file of `--pairs`: CSV or JSON lines, one pair a row."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffmf_cli.batch.locations import is_url, without_file_scheme
from diffmf_cli.errors import UsageError

STREAM = "-"
_HINT = "give the columns ir,vis[,output][,key], or JSON objects with these fields"


@dataclass(frozen=True)
class Row:
    """One pair of a list.

    Attributes:
        ir: Path or URL.
        vis: Path or URL.
        output: Name below OUT, or empty for the rule of `--name`.
        key: Name of the scene, or empty for that of `vis`.
    """

    ir: str
    vis: str
    output: str = ""
    key: str = ""


def read_pair_list(source: str) -> list[Row]:
    """Reads a list of pairs; `-` is stdin.

    CSV has a header with the columns `ir` and `vis` (and `output`, `key`), or no header and these columns in
    this order; tabs separate as well as commas. A JSON object is one line; those with a `type` other than
    `pair` are skipped, so that what `--dry-run --json` prints is a list. Relative paths start at the folder
    of the file, or at the current one for stdin.

    Raises:
        UsageError: The file is missing, empty or no text, or a row lacks a picture.
    """
    if source == STREAM:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("--pairs - reads a list from stdin, but nothing is piped into it")
        data, name, folder = sys.stdin.buffer.read(), "stdin", Path()
    else:
        try:
            data, name, folder = Path(source).read_bytes(), source, Path(source).parent
        except FileNotFoundError:
            raise UsageError(f"--pairs {source} does not exist: check the path") from None
        except OSError as error:
            raise UsageError(f"--pairs {source} cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is no UTF-8 text: {_HINT}") from None
    lines = text.splitlines()
    parse = _json_rows if text.lstrip().startswith("{") else _csv_rows
    rows = []
    for number, fields in parse(lines, name):
        if not fields.get("ir") or not fields.get("vis"):
            raise UsageError(f"{name}, line {number}: no {'vis' if fields.get('ir') else 'ir'}, {_HINT}")
        if any("\0" in text for text in fields.values() if isinstance(text, str)):
            raise UsageError(f"{name}, line {number}: a name with a null character, {_HINT}")
        located = {side: _located(folder, fields[side]) for side in ("ir", "vis")}
        rows.append(Row(**located, output=fields.get("output", ""), key=fields.get("key", "")))
    if not rows:
        raise UsageError(f"{name} lists no pair: {_HINT}")
    return rows


def _located(folder: Path, location: str) -> str:
    location = without_file_scheme(location)
    return location if is_url(location) else str(folder / location)


def _csv_rows(lines: list[str], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    columns = ["ir", "vis", "output", "key"]
    reader = csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",")
    first = True
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if first:
                first = False
                header = [cell.lower() for cell in cells]
                if "ir" in header and "vis" in header:
                    columns = header
                    continue
            if len(cells) > len(columns):
                raise UsageError(f"{name}, line {reader.line_num}: {len(cells)} columns, {_HINT}")
            yield reader.line_num, dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num}: no CSV ({error}), {_HINT}") from None


def _json_rows(lines: list[str], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}, line {number}: no JSON object ({error}), {_HINT}") from None
        if not isinstance(fields, dict):
            raise UsageError(f"{name}, line {number}: no JSON object, {_HINT}")
        if fields.get("type", "pair") == "pair":
            for field in ("ir", "vis", "output", "key"):
                if not isinstance(fields.get(field, ""), str):
                    raise UsageError(f"{name}, line {number}: {field} is no text, {_HINT}")
            yield number, fields
