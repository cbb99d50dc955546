"""Figures of shipped weights on a folder of pairs: fuses them in grey, then runs `diffmf evaluate`.

python benchmarks/quality.py PAIRS --out OUT      PAIRS holds ir/ and vi/
"""

import argparse
import subprocess
import sys
from pathlib import Path

import diffmf_cli
from diffmf_cli.images.pairs import pair_folders
from diffmf_cli.images.read import read_image
from diffmf_cli.images.write import encode_image, write_atomically


def main() -> None:
    """Fuses, then hands over to `diffmf evaluate`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="fused pictures and the table go there")
    parser.add_argument("--models", nargs="+", default=["base", "lite"])
    parser.add_argument("--metrics", default="cddfuse")
    args = parser.parse_args()
    ir, vis = args.pairs / "ir", args.pairs / "vi"
    fused: list[str] = []
    for name in args.models:
        model = diffmf_cli.load_model(name)
        folder = args.out / Path(name).stem
        for pair in pair_folders(ir, vis).pairs:
            pictures = (read_image(path).pixels for path in (pair.ir, pair.vis))
            result = model.fuse(*pictures, color="gray")
            write_atomically(folder / f"{pair.key}.png", encode_image(result, None, ".png"), overwrite=True)
        fused += ["--fused", f"{Path(name).stem}={folder}"]
    command = ["evaluate", "--ir", str(ir), "--vis", str(vis), *fused, "--baselines", "--balance"]
    command += ["--metrics", args.metrics, "--markdown", str(args.out / "table.md"), "--overwrite"]
    raise SystemExit(subprocess.call([sys.executable, "-m", "diffmf_cli", *command]))


if __name__ == "__main__":
    main()
