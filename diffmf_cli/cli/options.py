"""The options that commands share, each declared once."""

import os
from typing import Annotated, Any

import typer

from diffmf_cli.errors import UsageError
from diffmf_cli.model.catalogue import TASKS, catalogue


def option(name: str, *short: str, panel: str, help: str, also: str = "", **more: Any) -> Any:
    """An option that can also be set in the environment: `--ir-range` as `DIFFMF_IR_RANGE`, or as `also`."""
    words = [word for word in more.get("metavar", "").split("|") if word.islower() or word.isdigit()]
    more.setdefault("autocompletion", lambda incomplete: [w for w in words if w.startswith(incomplete)])
    variable = f"DIFFMF_{name.strip('-').replace('-', '_').upper()}"
    # `show_envvar` would repeat on every line what the help of `diffmf` says once.
    return typer.Option(
        name,
        *short,
        envvar=[variable, *also.split()],
        show_envvar=False,
        help=help,
        rich_help_panel=panel,
        **more,
    )


def flag(name: str, *short: str, panel: str, help: str) -> Any:
    """An option without a value."""
    return option(name, *short, panel=panel, help=help, metavar="")


def _model_names(incomplete: str) -> list[str]:
    return [entry.name for entry in catalogue() if entry.name.startswith(incomplete)]


_MODEL = "Model"
ModelOption = Annotated[
    str,
    option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        autocompletion=_model_names,
        help="A checkpoint that `diffmf download-weights --list` names, or a .safetensors file.",
        panel=_MODEL,
    ),
]
DeviceOption = Annotated[
    str,
    option(
        "--device",
        metavar="auto|cpu|cuda[:N]|mps",
        help="Where the network runs; auto is CUDA, else MPS, else the CPU.",
        panel=_MODEL,
    ),
]
PrecisionOption = Annotated[
    str,
    option(
        "--precision",
        metavar="auto|fp32|bf16|fp16",
        help="Number format of convolutions and matrix products; auto is fp16 on CUDA, else fp32.",
        panel=_MODEL,
    ),
]
ScanBackendOption = Annotated[
    str,
    option(
        "--scan-backend",
        also="DIFFMF_SCAN",
        metavar="auto|NAME",
        help="Which implementation of the selective scan; `diffmf info` lists them.",
        panel=_MODEL,
    ),
]
TileOption = Annotated[
    str,
    option(
        "--tile",
        metavar="auto|0|N",
        help="Pixels a side worked on at once; less needs less memory, 0 is all. The result is the same.",
        panel=_MODEL,
    ),
]
TaskOption = Annotated[
    str,
    option(
        "--task",
        metavar="auto|" + "|".join(TASKS),
        help="Refuse weights that were trained for another task; auto takes the one of the model.",
        panel=_MODEL,
    ),
]
ThreadsOption = Annotated[
    int | None,
    option(
        "--threads",
        metavar="N",
        min=1,
        help="CPU threads that compute; else OMP_NUM_THREADS, or all cores.",
        panel="Machine",
    ),
]
OfflineOption = Annotated[bool, flag("--offline", help="Never use the network.", panel=_MODEL)]

RepoOption = Annotated[
    str | None,
    option(
        "--repo",
        also="DIFFMF_HUB_REPO",
        metavar="ORG/NAME[@REV]",
        help="A repository on the Hub; also DIFFMF_HUB_REPO, where -m looks as well.",
        panel="Repository",
    ),
]

_PICTURE = "Pictures"
ColorOption = Annotated[
    str,
    option(
        "--color",
        metavar="auto|gray|ycbcr",
        help="auto and ycbcr keep the colours of VIS, gray drops them.",
        panel=_PICTURE,
    ),
]
IrRangeOption = Annotated[
    str,
    option(
        "--ir-range",
        metavar="auto|percentile:P,Q|LO,HI",
        help="Which infrared values become black and white; degrees as 10C,40C.",
        panel=_PICTURE,
    ),
]
RawOption = Annotated[
    str | None,
    option(
        "--raw",
        metavar="WxH:TYPE",
        help="IR has no header: its size and type, as 640x512:u16le; also u8, u16be, f32le, f32be.",
        panel=_PICTURE,
    ),
]
StretchOption = Annotated[
    bool,
    flag(
        "--stretch",
        help="Accept an IR whose aspect ratio differs and stretch it onto VIS.",
        panel=_PICTURE,
    ),
]
AlignOption = Annotated[
    str,
    option(
        "--align",
        metavar="none|auto|geo|FILE.json",
        help="Move IR onto VIS: by its pixels, by its coordinates (GeoTIFF), or as a file says.",
        panel=_PICTURE,
    ),
]
OutsideOption = Annotated[
    str,
    option(
        "--outside",
        metavar="vis|crop|blank",
        help="Where an aligned IR does not reach: VIS alone, nothing, or black.",
        panel=_PICTURE,
    ),
]
FovRatioOption = Annotated[
    float | None,
    option(
        "--fov-ratio",
        metavar="R",
        help="Width of the IR view over that of VIS, within some 8 %, to help --align auto.",
        panel=_PICTURE,
    ),
]
DepthOption = Annotated[
    str,
    option(
        "--depth",
        metavar="auto|8|16",
        help="Bits a channel of the result; auto is those of VIS.",
        panel=_PICTURE,
    ),
]
FormatOption = Annotated[
    str,
    option(
        "--format",
        metavar="auto|png|jpg|tiff|webp",
        help="Of the result where OUT does not tell; auto keeps TIFF and makes PNG of all else.",
        panel=_PICTURE,
    ),
]
QualityOption = Annotated[
    int,
    option("--quality", metavar="1-100", help="Of JPEG and WebP.", panel=_PICTURE),
]
QUALITY = 95  # unless asked for


def check_quality(quality: int, *extensions: str) -> None:
    """Refuses a quality out of range, or one that no file with these extensions would have.

    What `DIFFMF_QUALITY` says is for all pictures that may come: it need not fit.

    Raises:
        UsageError: it cannot be meant.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is out of range: use 1 to 100")
    usual = os.environ.get("DIFFMF_QUALITY", str(QUALITY))
    if str(quality) != usual and not {".jpg", ".jpeg", ".webp"} & {end.lower() for end in extensions}:
        raise UsageError(f"--quality {quality} is of JPEG and WebP: write one of them, or leave it out")


OverwriteOption = Annotated[bool, flag("--overwrite", help="Replace an existing OUT.", panel=_PICTURE)]

_TALK = "Messages"
JsonOption = Annotated[bool, flag("--json", help="One JSON object on stdout, on failure too.", panel=_TALK)]
QuietOption = Annotated[bool, flag("--quiet", "-q", help="Say nothing but errors.", panel=_TALK)]
VerboseOption = Annotated[
    bool,
    flag("--verbose", "-v", help="Say more; a bug shows its traceback.", panel=_TALK),
]
