"""Whether decoding and encoding cost time beside the model: whole runs of `diffmf video`.

    python benchmarks/video.py IR.mp4 VIS.mp4 [--model lite] [--runs 3]

Prints the rate without a model, for the clip and for the clip several times over, with the memory that each
took. Then runs the command in fresh processes, for each kind of output, and prints the median ratio of the
whole run (decode, fuse, encode, all overlapped) to the time in the model of the same run. Fails where that is
above LIMIT. A clip comes from `python examples/render_street_video.py`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 1.15
OUTPUTS = {
    "mp4, OpenCV": ("out.mp4",),
    "mkv lossless, OpenCV": ("out.mkv", "--codec", "ffv1"),
    "mp4, PyAV (h264)": ("out264.mp4", "--video-backend", "pyav"),
    "PNG pictures": ("pictures",),
}

# The clip that many times over, through decoding, copying and encoding, in a process of its own.
COPY = """
import resource, tempfile
from fractions import Fraction
from pathlib import Path
from time import perf_counter

from diffmf_cli.video.opencv_video import OpenCVSink, OpenCVSource
from diffmf_cli.video.pipeline import fuse_stream
from diffmf_cli.video.source import Frame


class Repeated(OpenCVSource):
    def _decode(self, step):
        for turn in range({times}):
            for number, frame in enumerate(super()._decode(step)):
                place = turn * (self.count // {times}) + number
                yield Frame(frame.pixels, place / self.fps, place + 1, frame.name)


ir, vis = Repeated(Path({ir!r}), False), Repeated(Path({vis!r}), False)
ir.count, vis.count = ir.count * {times}, vis.count * {times}
with tempfile.TemporaryDirectory() as folder:
    sink = OpenCVSink(Path(folder, "out.mp4"), False, "mpeg4", vis.fps, vis.first().pixels.shape)
    start = perf_counter()
    frames = fuse_stream(lambda ir, vis: vis.copy(), ir, vis, sink).frames
    fps = frames / (perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"no model               {{frames}} frames, {{fps:.0f}} fps, {{peak:.0f}} MiB")
"""


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ir", type=Path)
    parser.add_argument("vis", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()

    for times in (1, 8, 64):
        script = COPY.format(ir=str(options.ir), vis=str(options.vis), times=times)
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout, end="")

    slow = []
    for name, (file, *more) in OUTPUTS.items():
        records = []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as folder:
                command = ["video", options.ir, options.vis, "-o", Path(folder, file), "-m", options.model]
                done = subprocess.run(
                    [sys.executable, "-m", "diffmf_cli", *map(str, command), *more, "--json", "-q"],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                records.append(json.loads(done.stdout))
        ratio = statistics.median(r["seconds"]["run"] / r["seconds"]["model"] for r in records)
        fps = statistics.median(r["frames_per_second"] for r in records)
        print(f"{name:22} {records[0]['frames']} frames, run / model {ratio:.3f}, {fps:.2f} fps")
        if ratio > LIMIT:
            slow.append(name)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process {peak:.0f} MiB")
    if slow:
        sys.exit(f"more than {LIMIT} times the model's own time: {', '.join(slow)}")


if __name__ == "__main__":
    main()
