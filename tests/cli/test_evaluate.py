"""`diffmf evaluate` from the command line to files, records and exit codes."""

import csv
import json
import math

import cv2
import numpy as np
import pytest

from diffmf_cli.metrics.catalogue import METRICS, PRESETS


def picture(seed, shape=(48, 56)):
    """A smooth random picture with some noise."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(0, 220, (5, 6)), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (coarse + rng.normal(0, 8, shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Folders with three scenes: `ir`, `vis`, and the results of methods `mean` and `copy` (of IR)."""
    for name in ("ir", "vis", "mean", "copy"):
        (tmp_path / name).mkdir()
    for scene in range(3):
        ir, vis = picture(scene), picture(scene + 10)
        for name, pixels in (("ir", ir), ("vis", vis), ("mean", ir // 2 + vis // 2), ("copy", ir)):
            cv2.imwrite(str(tmp_path / name / f"{scene}.png"), pixels)
    return tmp_path


@pytest.fixture
def evaluate(cli, folders):
    """Runs `diffmf evaluate` on `folders` with further words."""

    def call(*words, fused=("mean", "copy")):
        methods = [word for name in fused for word in ("--fused", f"{name}={folders / name}")]
        return cli("evaluate", "--ir", folders / "ir", "--vis", folders / "vis", *methods, *words)

    return call


def records(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_json_has_a_line_for_each_picture_and_a_summary(evaluate):
    result = evaluate("--json", "--metrics", "EN,SSIM", "--baselines")
    assert result.code == 0
    *images, summary = records(result)
    assert [(r["type"], r["key"], r["method"]) for r in images] == [
        ("image", str(scene), method)
        for scene in range(3)
        for method in ("mean", "copy", "average", "maximum")
    ]
    assert all(r["metrics"].keys() == {"EN", "SSIM"} and "balance" not in r for r in images)
    assert (summary["type"], summary["convention"], summary["pairs"]) == ("summary", "cddfuse", 3)
    assert summary["grey"].startswith("BT.601")
    assert summary["implementation"].startswith("diffmf ")
    for method, content in summary["methods"].items():
        values = [r["metrics"]["EN"] for r in images if r["method"] == method]
        assert content["n"] == 3
        assert content["metrics"]["EN"]["mean"] == pytest.approx(np.mean(values))
        assert content["metrics"]["EN"]["std"] == pytest.approx(np.std(values))


def test_values_are_those_of_the_metrics(evaluate, folders):
    import torch

    from diffmf_cli.metrics.functional import evaluate as compute

    triple = [
        torch.from_numpy(cv2.imread(str(folders / name / "1.png"), 0))[None, None]
        for name in ("ir", "vis", "mean")
    ]
    expected = compute(*triple, metrics="full", convention="tang")
    lines = records(evaluate("--json", "--metrics", "full", "--convention", "tang"))
    found = next(r for r in lines[:-1] if (r["key"], r["method"]) == ("1", "mean"))["metrics"]
    assert found.keys() == METRICS.keys()
    for key, value in found.items():
        assert value is None if key == "MS-SSIM" else value == pytest.approx(float(expected[key])), key


def test_balance_shows_a_copy_that_the_sum_hides(evaluate):
    summary = records(evaluate("--json", "--metrics", "card"))[-1]
    copy, mean = summary["methods"]["copy"], summary["methods"]["mean"]
    assert copy["balance"].keys() == {"SSIM", "VIF"}
    assert copy["balance"]["SSIM"]["ir"]["mean"] == pytest.approx(1)
    assert copy["balance"]["SSIM"]["worst"]["mean"] < mean["balance"]["SSIM"]["worst"]["mean"]
    assert copy["metrics"]["VIF"]["mean"] > mean["metrics"]["VIF"]["mean"]
    assert copy["balance"]["VIF"]["worst"]["mean"] < mean["balance"]["VIF"]["worst"]["mean"]
    assert (
        "balance"
        not in records(evaluate("--json", "--metrics", "card", "--no-balance"))[-1]["methods"]["copy"]
    )


def test_table_names_convention_rules_and_implementation(evaluate, folders):
    files = {form: folders / f"table.{form}" for form in ("csv", "latex", "markdown")}
    words = [word for form, path in files.items() for word in (f"--{form}", path)]
    page = evaluate("--convention", "vifb", "--metrics", "cddfuse,Nabf", *words).out.decode()
    for text in [page, *(path.read_text() for path in files.values())]:
        assert "vifb" in text
        assert "BT.601" in text
        assert "metrics-" in text
    assert "SSIM[sum,g11,L=255] ↑" in page
    assert "Nabf[of F] ↓" in page


def test_tables_mark_the_best_and_the_second(evaluate, folders):
    paths = folders / "t.md", folders / "t.tex", folders / "t.csv"
    words = ("--markdown", paths[0], "--latex", paths[1], "--csv", paths[2])
    *_, summary = records(evaluate("--json", "--metrics", "EN,MSE", "--baselines", *words))
    means = {m: {k: f["mean"] for k, f in c["metrics"].items()} for m, c in summary["methods"].items()}
    best = {"EN": max(means, key=lambda m: means[m]["EN"]), "MSE": min(means, key=lambda m: means[m]["MSE"])}
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in paths[0].read_text().splitlines()}
    for column, key in enumerate(("EN", "MSE"), 1):
        assert [m for m in means if rows[m][column].startswith("**")] == [best[key]]
        assert sum(rows[m][column].startswith("<u>") for m in means) == 1
    assert paths[1].read_text().count(r"\textbf{") == 2
    table = list(csv.DictReader(paths[2].open()))
    assert [float(row["MSE"]) for row in table] == pytest.approx([means[r["method"]]["MSE"] for r in table])


def test_per_image(evaluate, folders):
    result = evaluate("--per-image", "--csv", folders / "t.csv", "--metrics", "SD")
    rows = list(csv.DictReader((folders / "t.csv").open()))
    assert [(row["key"], row["method"]) for row in rows] == [
        (str(scene), method) for scene in range(3) for method in ("mean", "copy")
    ]
    for row in rows:
        assert float(row["SD"]) == pytest.approx(
            cv2.imread(str(folders / row["method"] / f"{row['key']}.png"), 0).std()
        )
        assert f"{float(row['SD']):.2f}" in result.out.decode()


def test_compare_two_methods(evaluate):
    pytest.importorskip("scipy")
    summary = records(evaluate("--json", "--compare", "mean,copy", "--metrics", "SD,VIF"))[-1]
    rows = summary["comparison"]["metrics"]
    assert summary["comparison"]["methods"] == ["mean", "copy"]
    assert rows["SD"]["n"] == 3
    assert rows["SD"]["median_difference"] < 0
    assert rows["SD"]["p"] == pytest.approx(0.25)  # the smallest that three pairs can give
    assert rows["SD"]["p_holm"] == pytest.approx(0.5)


def test_depth_and_colour_of_files_do_not_change_the_values(evaluate, folders):
    expected = records(evaluate("--json", "--metrics", "cddfuse"))[-1]["methods"]
    for name in ("vis", "mean", "copy", "ir"):
        for path in (folders / name).iterdir():
            pixels = cv2.imread(str(path), 0)
            if name == "vis":
                cv2.imwrite(str(path), cv2.merge([pixels, pixels, pixels]))
            else:
                low = np.random.default_rng(1).integers(0, 256, pixels.shape)
                cv2.imwrite(str(path), (pixels.astype(np.uint16) * 256 + low).astype(np.uint16))
    assert records(evaluate("--json", "--metrics", "cddfuse"))[-1]["methods"] == expected


def test_colour_becomes_rounded_luma(cli, folders):
    rng = np.random.default_rng(3)
    colour = rng.integers(0, 256, (48, 56, 3), dtype=np.uint8)
    for scene in range(3):
        cv2.imwrite(str(folders / "mean" / f"{scene}.png"), colour)
    result = cli(
        "evaluate", "--ir", folders / "ir", "--vis", folders / "vis", "--fused", folders / "mean",
        "--metrics", "SD", "--json",
    )  # fmt: skip
    luma = np.rint(colour.astype(float) @ [0.114, 0.587, 0.299])
    assert records(result)[-1]["methods"]["mean"]["metrics"]["SD"]["mean"] == pytest.approx(
        luma.std(), rel=1e-4
    )


def test_infrared_of_another_size_is_resampled(evaluate, folders):
    for path in (folders / "ir").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), 0), (28, 24)))
    assert evaluate("--json").code == 0


def test_one_bad_picture_is_reported_and_counted(evaluate, folders):
    (folders / "mean" / "1.png").write_bytes(b"no picture")
    cv2.imwrite(str(folders / "copy" / "2.png"), picture(0, (40, 56)))
    result = evaluate("--json")
    assert result.code == 1
    *lines, summary = records(result)
    errors = {(r["method"], r["key"]): r["error"] for r in lines if r["type"] == "image" and "error" in r}
    assert "1.png is not a picture" in errors["mean", "1"]
    assert "56x40" in errors["copy", "2"]
    assert "56x48" in errors["copy", "2"]
    assert (summary["failed"], summary["methods"]["mean"]["n"], summary["methods"]["mean"]["failed"]) == (
        2,
        2,
        1,
    )
    assert "2 of 6 pictures could not be evaluated" in result.err


def test_a_bad_source_fails_all_methods_of_its_scene_only(evaluate, folders):
    (folders / "ir" / "0.png").write_bytes(b"")
    result = evaluate("--json", "--baselines")
    summary = records(result)[-1]
    assert result.code == 1
    assert {m: (c["n"], c["failed"]) for m, c in summary["methods"].items()} == {
        m: (2, 1) for m in ("mean", "copy", "average", "maximum")
    }


def test_pictures_without_partner_are_told_and_refused_when_strict(evaluate, folders):
    (folders / "copy" / "1.png").unlink()
    cv2.imwrite(str(folders / "vis" / "9.png"), picture(0))
    result = evaluate("--json")
    summary = records(result)[-1]
    assert result.code == 0
    assert summary["missing"] == {"mean": 0, "copy": 1}
    assert "no infrared partner for 9.png" in result.err
    assert "no result for 1" in result.err
    assert "different pictures (mean 3, copy 2)" in result.err
    strict = evaluate("--strict")
    assert strict.code == 2
    assert "9.png" in strict.err


def test_dry_run_shows_pairs(evaluate, folders):
    lines = records(evaluate("--dry-run", "--json"))
    assert [line["key"] for line in lines] == ["0", "1", "2"]
    assert lines[0]["fused"]["copy"] == str(folders / "copy" / "0.png")


def test_resume_reuses_scores_of_unchanged_files(evaluate, folders, monkeypatch):
    from diffmf_cli.metrics import evaluation

    kept = folders / "kept.jsonl"
    calls = []
    measure = evaluation._measure
    monkeypatch.setattr(evaluation, "_measure", lambda *a: calls.append(a) or measure(*a))
    first = evaluate("--json", "--resume", kept)
    assert len(calls) == 6
    assert evaluate("--json", "--resume", kept).out == first.out
    assert len(calls) == 6
    with kept.open("a") as file:
        file.write('{"cut off')
    cv2.imwrite(str(folders / "mean" / "2.png"), picture(77))
    changed = evaluate("--json", "--resume", kept)
    assert len(calls) == 7
    assert changed.out != first.out
    assert evaluate("--json", "--resume", kept).out == changed.out
    assert len(calls) == 7
    evaluate("--json", "--resume", kept, "--metrics", "EN,AG")
    assert len(calls) == 13
    evaluate("--json", "--resume", kept, "--convention", "tang")
    assert len(calls) == 19


def test_resume_does_not_write_into_another_file(evaluate, folders):
    (folders / "notes.txt").write_text("dear diary\n")
    result = evaluate("--resume", folders / "notes.txt")
    assert result.code == 1
    assert "notes.txt does not hold kept scores" in result.err
    assert (folders / "notes.txt").read_text() == "dear diary\n"


def test_workers_do_not_change_the_output(evaluate):
    assert evaluate("--json", "--workers", 1).out == evaluate("--json", "--workers", 3).out


def test_undefined_values_are_null_and_counted(evaluate):
    content = records(evaluate("--json", "--metrics", "MS-SSIM,EN"))[-1]["methods"]["mean"]
    assert content["metrics"]["MS-SSIM"] == {"mean": None, "std": None, "n": 0}
    assert "n/a" in evaluate("--metrics", "MS-SSIM").out.decode()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--metrics", "EN,SIM"), "'SIM'"),
        (("--convention", "tan"), "'tan'"),
        (("--fused", "mean=elsewhere"), "'mean'"),
        (("--fused", "elsewhere"), "elsewhere does not exist"),
        (("--compare", "mean"), "--compare mean"),
        (("--compare", "mean,best"), "'best'"),
        (("--workers", "0"), "workers 0"),
        (("--pair-by", "["), "--pair-by"),
        (("--device", "gpu"), "'gpu'"),
    ],
)
def test_usage_errors_are_one_line(evaluate, words, hint):
    result = evaluate(*words)
    assert (result.code, result.out) == (2, b"")
    assert hint in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_nothing_to_evaluate(evaluate):
    result = evaluate(fused=())
    assert result.code == 2
    assert "--baselines" in result.err


def test_existing_files_are_kept(evaluate, folders):
    (folders / "t.csv").write_text("mine")
    result = evaluate("--csv", folders / "t.csv")
    assert result.code == 2
    assert "--overwrite" in result.err
    assert (folders / "t.csv").read_text() == "mine"
    assert evaluate("--csv", folders / "t.csv", "--overwrite").code == 0
    assert (folders / "t.csv").read_text() != "mine"


def test_names_without_common_part_say_how_to_pair(cli, folders):
    for path in (folders / "ir").iterdir():
        path.rename(path.with_name(f"thing{path.name}"))
    result = cli("evaluate", "--ir", folders / "ir", "--vis", folders / "vis", "--baselines")
    assert result.code == 2
    assert "--pair-by" in result.err


def test_report_is_one_page_with_every_scene(evaluate, folders):
    path = folders / "report.html"
    assert evaluate("--report", path, "--baselines", "--metrics", "card").code == 0
    page = path.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "{{" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["methods"] == ["mean", "copy", "average", "maximum"]
    assert {scene["key"] for scene in data["scenes"]} == {"0", "1", "2"}
    assert page.count("<svg") == len(PRESETS["card"])
    assert "Balance of the sources" in page
    for scene in data["scenes"]:
        assert scene["pictures"].keys() == {"IR", "VIS", "mean", "copy", "average", "maximum"}
        assert all(url.startswith("data:image/webp;base64,") for url in scene["pictures"].values())
        assert math.isfinite(scene["values"]["copy"]["SSIM.worst"])
    order = [scene["worth"]["mean"] for scene in data["scenes"]]
    assert order == sorted(order)


def test_pictures_of_no_report(evaluate, folders):
    result = evaluate("--report-pictures", 1)
    assert (result.code, result.out, result.err.count("\n")) == (2, b"", 1)
    assert "--report-pictures 1 is of a report: add --report FILE.html" in result.err


def test_report_shows_only_the_worst_scenes_and_escapes_names(cli, folders):
    (folders / "a<b>&\"c'").mkdir()
    for path in (folders / "copy").iterdir():
        path.rename(folders / "a<b>&\"c'" / path.name)
    result = cli(
        "evaluate", "--ir", folders / "ir", "--vis", folders / "vis", "--fused", folders / "a<b>&\"c'",
        "--report", folders / "r.html", "--report-pictures", 1,
    )  # fmt: skip
    assert result.code == 0
    page = (folders / "r.html").read_text()
    assert "a<b>" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["methods"] == ["a<b>&\"c'"]
    assert len(data["scenes"]) == 1
    assert "The 1 worst of 3 scenes" in page
