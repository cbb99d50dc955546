"""The eight metrics of the preset `cddfuse` against the reference protocol, side by side, on the CPU.

The field's evaluator carries no licence, so its code is not here. The reference side is written from the
formulas with the library calls that it is known to make: scipy's two-dimensional `convolve2d` (17x17
Gaussians for VIF, 3x3 Sobel for Qabf), scikit-learn's `mutual_info_score`, scikit-image's
`structural_similarity`, and numpy for the rest. These calls are nearly all of its time. Who has a copy of an
evaluator gives its path, and that file is timed instead: a module with a class `Evaluator` that has EN, SD
and SF of one picture, and MI, SCD, VIFF (or VIF), Qabf and SSIM of (fused, ir, vis).

    pip install scipy scikit-image scikit-learn
    python benchmarks/metrics.py
    python benchmarks/metrics.py --evaluator Evaluator.py --images ir.png vis.png fused.png

Both sides run in turns on the same pictures, and the best wall time of each counts. The reference uses one
core, ours those of `--threads`; CPU time tells both. Threads wait for each other: where other programs use
the cores, compare with `--threads 1`. With `--device cuda` ours run there, `--batch` at once, and the
time of one counts, until its values are on the host. The values must agree to 1e-4 (relative), and ours must
be at least 20 times faster in wall time, or the exit code is 1.
"""

import argparse
import importlib.util
import os
import platform
import sys
import time

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as diffmf_cli sets it, before torch is imported

import cv2
import numpy as np
import torch

from diffmf_cli.metrics.functional import evaluate

KEYS = ("EN", "SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM")
TARGET = 20


def reference(fused, ir, vis):
    """The eight values by plain library calls, on float32 pictures in 0..255 as the protocol reads them."""
    from skimage.metrics import structural_similarity

    sources = (ir, vis)
    probabilities = np.bincount(fused.astype(np.uint8).ravel(), minlength=256) / fused.size
    probabilities = probabilities[probabilities > 0]
    gradients = [sobel_2d(picture) for picture in (fused, ir, vis)]
    weights = [gradients[1][0], gradients[2][0]]
    kept = sum((edge_rate(gradients[0], source) * source[0]).sum() for source in gradients[1:])
    return {
        "EN": -(probabilities * np.log2(probabilities)).sum(),
        "SD": fused.std(),
        "SF": np.sqrt((np.diff(fused, axis=1) ** 2).mean() + (np.diff(fused, axis=0) ** 2).mean()),
        "MI": sum(mutual_information(fused, source) for source in sources),
        "SCD": correlation(fused - vis, ir) + correlation(fused - ir, vis),
        "VIF": sum(vif_2d(source, fused) for source in sources),
        "Qabf": kept / (weights[0] + weights[1]).sum(),
        "SSIM": sum(structural_similarity(fused, source, data_range=2) for source in sources),
    }


def mutual_information(a, b):
    """By scikit-learn's contingency table."""
    from sklearn.metrics import mutual_info_score

    return mutual_info_score(a.ravel(), b.ravel())


def correlation(a, b):
    """Pearson's r."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def vif_2d(source, fused):
    """VIFP with full two-dimensional windows."""
    from scipy.signal import convolve2d

    kept = whole = 0.0
    for side in (17, 9, 5, 3):
        taps = cv2.getGaussianKernel(side, side / 5)
        window = taps @ taps.T
        if side < 17:
            source, fused = (convolve2d(p, window, mode="valid")[::2, ::2] for p in (source, fused))
        mean, fused_mean = (convolve2d(p, window, mode="valid") for p in (source, fused))
        variance = (convolve2d(source * source, window, mode="valid") - mean**2).clip(0)
        fused_variance = (convolve2d(fused * fused, window, mode="valid") - fused_mean**2).clip(0)
        covariance = convolve2d(source * fused, window, mode="valid") - mean * fused_mean
        variance[variance < 1e-10] = 0
        gain = covariance.clip(0) / (variance + 1e-10)
        noise = (fused_variance - gain * covariance.clip(0)).clip(1e-10)
        kept += np.log10(1 + gain**2 * variance / (noise + 2)).sum()
        whole += np.log10(1 + variance / 2).sum()
    return kept / whole


def sobel_2d(picture):
    """Strength and angle of the gradient."""
    from scipy.signal import convolve2d

    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
    gx, gy = convolve2d(picture, across, mode="same"), convolve2d(picture, -across.T, mode="same")
    angle = np.full_like(picture, np.pi / 2)
    angle[gx != 0] = np.arctan(gy[gx != 0] / gx[gx != 0])
    return np.sqrt(gx**2 + gy**2), angle


def edge_rate(fused, source):
    """How well each pixel's gradient is kept."""
    ratio = np.where(fused[0] == source[0], fused[0], 0)
    larger, smaller = fused[0] > source[0], fused[0] < source[0]
    ratio[larger] = source[0][larger] / fused[0][larger]
    ratio[smaller] = fused[0][smaller] / source[0][smaller]
    alignment = 1 - np.abs(source[1] - fused[1]) / (np.pi / 2)
    return (0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))) * (0.9879 / (1 + np.exp(-22 * (alignment - 0.8))))


def load_evaluator(path):
    """The eight values by the class `Evaluator` in a file of the user's own."""
    spec = importlib.util.spec_from_file_location("evaluator", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evaluator = module.Evaluator

    def run(fused, ir, vis):
        values = {key: getattr(evaluator, key)(fused) for key in ("EN", "SD", "SF")}
        vif = evaluator.VIFF if hasattr(evaluator, "VIFF") else evaluator.VIF
        values |= {key: getattr(evaluator, key)(fused, ir, vis) for key in ("MI", "SCD", "Qabf", "SSIM")}
        return {**values, "VIF": vif(fused, ir, vis)}

    return run


def synthetic(height, width):
    """A smooth infrared scene, a textured visible one, and their maximum: uint8."""
    rng = np.random.default_rng(0)

    def scene(cells, noise):
        coarse = cv2.resize(rng.uniform(0, 220, cells), (width, height), interpolation=cv2.INTER_CUBIC)
        return (coarse + rng.normal(0, noise, (height, width))).clip(0, 255).astype(np.uint8)

    ir, vis = scene((8, 10), 3), scene((60, 80), 10)
    return ir, vis, np.maximum(ir, vis)


def timed(function):
    """Result, wall seconds and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def main():
    """Runs both sides in turns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluator", metavar="PATH", help="your own copy of an evaluator")
    parser.add_argument("--images", nargs=3, metavar=("IR", "VIS", "FUSED"), help="instead of made-up ones")
    parser.add_argument("--size", default="640x480", help="of the made-up ones (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=7, help="of each side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--device", default="cpu", help="of ours (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pictures of ours at once")
    given = parser.parse_args()
    if given.images:
        pictures = [cv2.imread(name, cv2.IMREAD_GRAYSCALE) for name in given.images]
    else:
        width, height = (int(side) for side in given.size.split("x"))
        pictures = synthetic(height, width)
    theirs = load_evaluator(given.evaluator) if given.evaluator else reference
    ir, vis, fused = (picture.astype(np.float32) for picture in pictures)
    shape = (given.batch, 1, *pictures[0].shape)
    triple = [torch.from_numpy(picture).expand(shape).to(given.device) for picture in pictures]
    torch.set_num_threads(given.threads)

    def ours():
        return {key: value.tolist() for key, value in evaluate(*triple).items()}

    best = {"ours": (np.inf, np.inf), "reference": (np.inf, np.inf)}
    values = {}
    ours()  # the first call makes the filters
    for _ in range(given.runs):
        for side, run in (("reference", lambda: theirs(fused, ir, vis)), ("ours", ours)):
            values[side], *seconds = timed(run)
            share = given.batch if side == "ours" else 1
            best[side] = tuple(min(old, new / share) for old, new in zip(best[side], seconds, strict=True))

    height, width = pictures[0].shape
    print(f"{width}x{height}, best of {given.runs}, torch threads {given.threads} of {os.cpu_count()} cores,")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, numpy {np.__version__}")
    where = torch.cuda.get_device_name(given.device) if "cuda" in given.device else "the CPU"
    print(f"ours: on {where}, {given.batch} at once")
    print(f"reference: {given.evaluator or 'scipy convolve2d, scikit-learn, scikit-image'}\n")
    worst = 0.0
    print(f"{'':6}{'ours':>14}{'reference':>14}{'difference':>12}")
    for key in KEYS:
        a, b = values["ours"][key][0], float(values["reference"][key])
        worst = max(worst, abs(a - b) / max(abs(b), 1e-12))
        print(f"{key:6}{a:14.8f}{b:14.8f}{a - b:12.1e}")
    ratio = best["reference"][0] / best["ours"][0]
    for side, (wall, cpu) in best.items():
        print(f"{side:10} {wall * 1e3:8.1f} ms wall {cpu * 1e3:8.1f} ms CPU")
    print(f"{ratio:.1f} times faster in wall time, {best['reference'][1] / best['ours'][1]:.1f} in CPU time")
    return 0 if ratio >= TARGET and worst < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
