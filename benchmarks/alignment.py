"""Alignment with known answers: registered pairs, of which the infrared picture is moved or cut.

python benchmarks/alignment.py PAIRS                    PAIRS holds ir/ and vi/ of registered pictures
python benchmarks/alignment.py PAIRS --every 5 --parts warps fov

warps   the infrared picture shifted, turned and scaled: corner error, pairs made worse; and pairs that are
        aligned already, exactly or but for a fraction of a pixel: how many are moved all the same
fov     a window cut out of it: whether its place is found
other   the infrared picture of one scene with the visible one of another: how many are moved all the same
time    seconds a pair at 640x480
rig     20 pairs with one warp: error of what `diffmf align` would write, against the warp alone, together
        with what the other pairs of the set, which are not moved, are off in common, and together with what
        the same pairs are off in common when they are not moved
own     what pairs that are called registered are off in common: by edges, and by mutual information of grey
        values, which knows no edges; the halves of the set apart

Sets of photographs are registered to some pixels; benchmarks/render_pairs.py makes one that is exact.
"""

import argparse
import json
import os
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from diffmf_cli.alignment.choice import estimate_pair, greys
from diffmf_cli.alignment.geometry import corner_distance, project, resizing, similarity
from diffmf_cli.alignment.rig import consensus, fit_together
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.pairs import Pair, pair_folders
from diffmf_cli.images.read import read_image

# At most: pixels to each side, degrees, percent of scale.
JITTER = 0.7, 0.1, 0.2
WARPS = {"small": (5, 0.6, 1.2), "medium": (16, 2, 4), "large": (40, 5, 10)}
BORDERS = {"black": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}
RIG = 400, 240
VGA = 640, 480


def random_warp(
    rng: np.random.Generator, size: tuple[int, int], limits: tuple[float, float, float]
) -> np.ndarray:
    """A shift, turn and scale about the middle, each uniform within its limits; infrared to moved pixels."""
    pixels, degrees, percent = limits
    angle, scale = np.deg2rad(rng.uniform(-degrees, degrees)), 1 + rng.uniform(-percent, percent) / 100
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(size) - 1) / 2
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, middle - turn @ middle + rng.uniform(-pixels, pixels, 2)
    return matrix


def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of both pictures."""
    return read_image(pair.ir).pixels, read_image(pair.vis).pixels


def measure(ir: np.ndarray, vis: np.ndarray, truth: np.ndarray) -> dict[str, float | bool | str]:
    """Aligns one pair and compares with the truth, at the corners of the infrared picture."""
    size = ir.shape[1::-1]
    as_is = resizing(size, vis.shape[1::-1])
    started, used = perf_counter(), process_time()
    result = estimate_pair(ir, vis)
    seconds, cpu = perf_counter() - started, process_time() - used
    matrix = as_is if result.transform is None else result.transform.matrix
    return {
        "moved": result.transform is not None,
        "error": corner_distance(matrix, truth, size),
        "before": corner_distance(as_is, truth, size),
        "shift": corner_distance(matrix, as_is, size),
        "window": float(np.hypot(*size)),
        "score": result.found.score if result.found else 0.0,
        "reason": result.reason,
        "seconds": seconds,
        "cpu": cpu,
    }


def warps(pairs: list[Pair], seed: int) -> list[dict]:
    """Every pair as it is, and moved by each kind of warp under each kind of border."""
    rows = []
    for index, pair in enumerate(pairs):
        ir, vis = read(pair)
        size = ir.shape[1::-1]
        rows.append({"key": pair.key, "warp": "none", "border": "-", **measure(ir, vis, np.eye(3))})
        jitter = random_warp(np.random.default_rng((seed, index)), size, JITTER)
        moved = cv2.warpPerspective(ir, jitter, size, borderMode=cv2.BORDER_REPLICATE)
        row = measure(moved, vis, np.linalg.inv(jitter))
        rows.append({"key": pair.key, "warp": "jitter", "border": "-", **row})
        for kind, limits in WARPS.items():
            for border, mode in BORDERS.items():
                rng = np.random.default_rng((seed, index, len(rows)))
                warp = random_warp(rng, size, limits)
                moved = cv2.warpPerspective(ir, warp, size, flags=cv2.INTER_LINEAR, borderMode=mode)
                row = measure(moved, vis, np.linalg.inv(warp))
                rows.append({"key": pair.key, "warp": kind, "border": border, **row})
    return rows


def fields(pairs: list[Pair], seed: int, repeat: int) -> list[dict]:
    """Windows of 0.3 to 1 of the width, anywhere, in the pixels of the picture."""
    rows = []
    for index, pair in enumerate(pairs):
        ir, vis = read(pair)
        height, width = ir.shape[:2]
        rng = np.random.default_rng((seed, index))
        for _ in range(repeat):
            scale = rng.uniform(0.3, 1)
            w, h = round(scale * width), round(scale * height)
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            truth = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
            window = np.ascontiguousarray(ir[y : y + h, x : x + w])
            rows.append({"key": pair.key, "scale": scale, **measure(window, vis, truth)})
    return rows


def others(pairs: list[Pair]) -> list[dict]:
    """Each infrared picture with the visible one of half the set further on."""
    rows, half = [], len(pairs) // 2
    for one, other in zip(pairs, pairs[half:] + pairs[:half], strict=True):
        result = estimate_pair(read(one)[0], read(other)[1])
        rows.append({"key": one.key, "moved": result.transform is not None})
    return rows


def times(pairs: list[Pair], seed: int) -> list[dict]:
    """Forty pairs at 640x480, each under a large warp."""
    rows = []
    for index, pair in enumerate(pairs[:: max(1, len(pairs) // 40)][:40]):
        ir, vis = (cv2.resize(pixels, VGA, interpolation=cv2.INTER_CUBIC) for pixels in read(pair))
        warp = random_warp(np.random.default_rng((seed, index)), VGA, WARPS["large"])
        moved = cv2.warpPerspective(ir, warp, VGA, borderMode=cv2.BORDER_REPLICATE)
        rows.append({"key": pair.key, **measure(moved, vis, np.linalg.inv(warp))})
    return rows


def rigs(pairs: list[Pair], seed: int, repeat: int) -> list[dict]:
    """The rig of 20 pairs, cut to one size and moved by one large warp."""
    large = [pair for pair in pairs if min(np.array(read(pair)[0].shape[1::-1]) - RIG) >= 40]
    still = [greys(*cut_to_rig(*read(pair))) for pair in large]
    rows = []
    for index in range(repeat):
        rng = np.random.default_rng((seed, index))
        warp = random_warp(rng, RIG, WARPS["large"])
        order = rng.permutation(len(large))
        moved = [cut_to_rig(*read(large[i]), warp) for i in order[:20]]
        results = [(one, estimate_pair(*one).found) for one in moved]
        aligned = [(one, found) for one, found in results if found is not None]
        rig, members = consensus([found for _, found in aligned])
        rig = fit_together(rig, lambda: (greys(*aligned[i][0]) for i in members))  # noqa: B023
        truth = np.linalg.inv(warp)
        others, same = (set_offset([still[i] for i in some]) for some in (order[20:], order[:20]))
        rows.append(
            {
                "pairs": len(moved),
                "agreeing": len(members),
                "error": corner_distance(rig.matrix, truth, RIG),
                "error_others": corner_distance(rig.matrix, others @ truth, RIG),
                "error_same": corner_distance(rig.matrix, same @ truth, RIG),
                "single": float(np.median([corner_distance(one.matrix, truth, RIG) for _, one in aligned])),
            }
        )
    return rows


def cut_to_rig(
    ir: np.ndarray, vis: np.ndarray, warp: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a pair; the infrared one is moved before it is cut."""
    x, y = (ir.shape[1] - RIG[0]) // 2, (ir.shape[0] - RIG[1]) // 2
    cut = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], np.float64)
    moved = cv2.warpPerspective(
        ir, (np.eye(3) if warp is None else warp) @ cut, RIG, borderMode=cv2.BORDER_REPLICATE
    )
    return moved, np.ascontiguousarray(vis[y : y + RIG[1], x : x + RIG[0]])


def set_offset(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """What pairs that are called registered are off in common, by edges."""
    rig = Transform(np.eye(3), "affine", RIG, RIG, 0)
    for _ in range(4):  # each looks again from where the one before has ended
        before, rig = rig, fit_together(rig, lambda: pairs)
        if corner_distance(before.matrix, rig.matrix, RIG) < 0.1:
            break
    return rig.matrix


def own(pairs: list[Pair]) -> list[dict]:
    """The offset of the whole set and of its halves, by two estimators."""
    large = [pair for pair in pairs if min(np.array(read(pair)[0].shape[1::-1]) - RIG) >= 0]
    still = [greys(*cut_to_rig(*read(pair))) for pair in large]
    rows = []
    for name, some in (("all", still), ("even", still[::2]), ("odd", still[1::2])):
        for how, find in (("edges", set_offset), ("information", by_information)):
            matrix = find(some)
            rows.append(
                {
                    "pairs": len(some),
                    "which": name,
                    "how": how,
                    "scale": float(np.hypot(*matrix[:2, 0])),
                    "middle": (project(matrix, np.array([RIG]) / 2) - np.array(RIG) / 2)[0].tolist(),
                    "off": corner_distance(matrix, np.eye(3), RIG),
                }
            )
    return rows


def by_information(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The scale and shift of highest normalised mutual information, in the mean over pairs."""
    smooth = [[cv2.GaussianBlur(one, (0, 0), 1) for one in pair] for pair in pairs]
    aside = np.array([[1, 0, 0.37], [0, 1, 0.29], [0, 0, 1]])  # so that no place is free of interpolation

    def shares(percent: float, x: float, y: float) -> tuple[np.ndarray, float]:
        matrix = similarity(RIG, 0, 1 + percent / 100)
        matrix[:2, 2] += x, y
        values = []
        for ir, vis in smooth:
            a, b = (
                cv2.warpPerspective(one, aside @ there, RIG, flags=cv2.INTER_CUBIC)[8:-8, 8:-8]
                for one, there in ((ir, matrix), (vis, np.eye(3)))
            )
            values.append(normalised_information(a, b))
        return matrix, float(np.mean(values))

    best = (0.0, 0.0, 0.0)
    step = 0.8  # percent and pixels
    matrix, most = shares(*best)
    while step >= 0.1:
        tried = [tuple(np.add(best, step * sign * axis)) for axis in np.eye(3) for sign in (-1, 1)]
        there, value = max(((one, shares(*one)) for one in tried), key=lambda found: found[1][1])
        if value[1] > most:
            best, (matrix, most) = there, value
        else:
            step /= 2
    return matrix


def normalised_information(a: np.ndarray, b: np.ndarray, levels: int = 32) -> float:
    """`(H(a) + H(b)) / H(a, b)` of equally filled grey levels.

    Studholme, Hill and Hawkes, Pattern Recognition 1999.
    """
    steps = np.linspace(0, 1, levels + 1)[1:-1]
    one, other = (np.searchsorted(np.quantile(picture, steps), picture.ravel()) for picture in (a, b))
    joint = np.bincount(one * levels + other, minlength=levels**2).reshape(levels, levels) / one.size
    entropies = [-float(p[p > 0] @ np.log(p[p > 0])) for p in (joint.sum(0), joint.sum(1), joint.ravel())]
    return (entropies[0] + entropies[1]) / entropies[2]


def column(rows: list[dict], name: str) -> np.ndarray:
    """One value of every row."""
    return np.array([row[name] for row in rows])


def show_warps(rows: list[dict]) -> None:
    """Prints the figures of `warps`."""
    for warp, name in (("none", "aligned already"), ("jitter", "aligned but for a fraction of a pixel")):
        shifts = column([row for row in rows if row["warp"] == warp], "shift")
        print(f"{name}: {(shifts > 0.5).sum()} of {len(shifts)} moved by more than 0.5 px")
    print("warp    border     pairs  before  median error  p90    moved  worse by > 1 px")
    kinds = [(warp, border) for warp in WARPS for border in BORDERS] + [(warp, "all") for warp in WARPS]
    for warp, border in kinds:
        some = [row for row in rows if row["warp"] == warp and border in ("all", row["border"])]
        before, error = column(some, "before"), column(some, "error")
        print(
            f"{warp:7} {border:9} {len(some):6} {np.median(before):7.1f} {np.median(error):13.2f} "
            f"{np.percentile(error, 90):5.1f} {column(some, 'moved').mean():8.1%} "
            f"{(error > before + 1).mean():12.1%}"
        )
    every = [row for row in rows if row["warp"] in WARPS]
    error, before = column(every, "error"), column(every, "before")
    print(f"all warps: median {np.median(error):.2f}, worse by > 1 px {(error > before + 1).mean():.1%}")
    show_time(rows)


def show_fields(rows: list[dict]) -> None:
    """Prints the figures of `fields`."""
    print(
        "scale      windows  found  left alone  within 1 %   2 %   5 % of its diagonal  found, off by > 5 %"
    )
    for low, high in ((0.3, 0.45), (0.45, 0.6), (0.6, 0.8), (0.8, 1.0), (0.3, 1.0)):
        some = [row for row in rows if low <= row["scale"] <= high]
        if not some:
            continue
        moved, off = column(some, "moved"), column(some, "error") / column(some, "window")
        within = "  ".join(f"{(moved & (off <= limit)).mean():6.1%}" for limit in (0.01, 0.02, 0.05))
        print(
            f"{low:.2f}-{high:.2f} {len(some):8} {moved.mean():7.1%} {1 - moved.mean():9.1%} {within:>28} "
            f"{(moved & (off > 0.05)).mean():18.1%}"
        )
    show_time(rows)


def show_rigs(rows: list[dict]) -> None:
    """Prints the figures of `rigs`."""
    print(f"{len(rows)} rigs of 20 pairs; a single pair: {np.median(column(rows, 'single')):.2f} px")
    for against, name in (
        ("the warp", "error"),
        ("the warp and the offset of the other pairs", "error_others"),
        ("the warp and the offset of the same pairs, unmoved", "error_same"),
    ):
        error = column(rows, name)
        print(
            f"against {against}: median error {np.median(error):.2f} px, worst {error.max():.2f}, "
            f"{(error <= 1).mean():.0%} within 1 px"
        )


def show_own(rows: list[dict]) -> None:
    """Prints the figures of `own`."""
    for row in rows:
        x, y = row["middle"]
        print(
            f"{row['pairs']:3} pairs ({row['which']}), by {row['how']:11}: scale {row['scale']:.4f}, "
            f"middle moved by {x:.2f}, {y:.2f}; corners {row['off']:.2f} px off"
        )


def show_time(rows: list[dict]) -> None:
    """Prints how long a pair took."""
    seconds, cpu = column(rows, "seconds"), column(rows, "cpu")
    print(
        f"seconds a pair: median {np.median(seconds):.3f}, p95 {np.percentile(seconds, 95):.3f}; "
        f"of one core {np.median(cpu):.3f}\n"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parts = ["warps", "fov", "other", "time", "rig", "own"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--every", type=int, default=1, help="use one pair in so many")
    parser.add_argument("--repeat", type=int, default=2, help="windows a pair; rigs are ten times as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="write each measurement as a line of JSON")
    args = parser.parse_args()
    cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", 0)) or -1)
    pairs = pair_folders(args.pairs / "ir", args.pairs / "vi").pairs[:: args.every]
    kept: list[dict] = []
    for part in args.parts:
        if part == "warps":
            rows = warps(pairs, args.seed)
            show_warps(rows)
        elif part == "fov":
            rows = fields(pairs, args.seed, args.repeat)
            show_fields(rows)
        elif part == "other":
            rows = others(pairs)
            print(f"pairs of two scenes: {column(rows, 'moved').sum()} of {len(rows)} moved")
        elif part == "time":
            rows = times(pairs, args.seed)
            show_time(rows)
        elif part == "rig":
            rows = rigs(pairs, args.seed, 10 * args.repeat)
            show_rigs(rows)
        else:
            rows = own(pairs)
            show_own(rows)
        kept += [{"part": part, **row} for row in rows]
    if args.rows:
        args.rows.write_text("".join(json.dumps(row, default=float) + "\n" for row in kept))


if __name__ == "__main__":
    main()
