"""`diffmf batch` from arguments to files, counts and exit codes."""

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from diffmf_cli.alignment.transform import Transform


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def save(tmp_path, scene):
    """A function that writes the pair `scene`, a little brighter each time, under the given names."""

    def call(ir, vis, brighter=0):
        for name, pixels in ((ir, scene[0]), (vis, scene[1][:, :, ::-1])):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(path.suffix, cv2.add(pixels, (brighter,) * 3))[1].tobytes())

    return call


@pytest.fixture
def folders(save, tmp_path):
    """Three pairs in `ir` and `vis`."""
    for index in range(3):
        save(f"ir/{index}.png", f"vis/{index}.png", index)
    return tmp_path / "ir", tmp_path / "vis"


@pytest.fixture
def run(cli, tiny_model, tmp_path, monkeypatch):
    """`diffmf batch` with the small model and `out` as OUT_DIR."""
    monkeypatch.setenv("DIFFMF_SCAN", "torch")

    def call(*args):
        return cli("batch", *args, "-o", tmp_path / "out", "-m", tiny_model, "--device", "cpu")

    return call


def records(result):
    return [json.loads(line) for line in result.out.splitlines()]


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def manifest(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]


def test_results_are_those_of_fuse(run, folders, cli, tiny_model, tmp_path):
    result = run(*folders)
    assert (result.code, result.out) == (0, b"")
    assert names(tmp_path / "out") == ["0_fused.png", "1_fused.png", "2_fused.png", "manifest.jsonl"]
    for index in range(3):
        single = tmp_path / f"{index}.png"
        pair = [folder / f"{index}.png" for folder in folders]
        assert cli("fuse", *pair, "-m", tiny_model, "--device", "cpu", "-o", single).code == 0
        assert single.read_bytes() == (tmp_path / "out" / f"{index}_fused.png").read_bytes()


@pytest.mark.parametrize(("outside", "narrower"), [("vis", 0), ("crop", 4)])
def test_a_saved_alignment_for_all(run, folders, cli, tiny_model, tmp_path, outside, narrower):
    vis = read(folders[1] / "0.png")
    size = vis.shape[1::-1]
    shift = np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1]], np.float64)
    rig = tmp_path / "rig.json"
    rig.write_bytes(Transform(shift, "affine", size, size, 1.0).to_json())
    options = ("--align", rig, "--outside", outside)
    assert run(*folders, *options).code == 0
    single = tmp_path / "single.png"
    pair = [folder / "1.png" for folder in folders]
    assert cli("fuse", *pair, *options, "-m", tiny_model, "--device", "cpu", "-o", single).code == 0
    assert single.read_bytes() == (tmp_path / "out" / "1_fused.png").read_bytes()
    assert read(single).shape[1] == size[0] - narrower
    assert cli("fuse", *pair, "-m", tiny_model, "--device", "cpu", "-o", tmp_path / "without.png").code == 0
    assert not np.array_equal(read(single), read(tmp_path / "without.png"))
    result = run(*folders, "--resume")
    assert result.code == 2
    assert "align" in result.err


def test_an_alignment_that_cannot_be_used(run, folders):
    result = run(*folders, "--align", "no.json")
    assert result.code == 2
    assert "no.json" in result.err
    result = run(*folders, "--outside", "nowhere")
    assert (result.code, "unknown outside 'nowhere'" in result.err) == (2, True)


def test_counts_and_manifest(run, folders, tmp_path):
    (folders[1] / "1.png").write_bytes(b"broken")
    (folders[0] / "x.png").write_bytes(b"")
    result = run(*folders, "--json")
    *found, summary, error = records(result)
    assert result.code == 1
    assert [error["type"], error["exit_code"]] == ["error", 1]
    assert {k: summary[k] for k in ("pairs", "done", "skipped", "failed", "failed_by_reason", "orphans")} == {
        "pairs": 3,
        "done": 2,
        "skipped": 0,
        "failed": 1,
        "failed_by_reason": {"unreadable": 1},
        "orphans": 1,
    }
    assert summary["pairs_per_second"] > 0
    assert summary["megapixels_per_second"] == pytest.approx(
        summary["pairs_per_second"] * 64 * 48 / 1e6, abs=0.002
    )
    assert [record["type"] for record in found] == ["orphan", "pair", "pair", "pair"]
    assert found[0]["path"].endswith("x.png")
    (failed,) = [record for record in found if record.get("status") == "failed"]
    assert (failed["key"], failed["reason"]) == ("1", "unreadable")
    assert "vis/1.png is not a picture" in failed["message"]
    kept = manifest(tmp_path)
    assert [record["type"] for record in kept] == ["run", "pair", "pair", "pair", "summary"]
    assert [record for record in kept if record["type"] == "pair"] == found[1:]


def test_human_summary(run, folders):
    (folders[1] / "1.png").write_bytes(b"broken")
    result = run(*folders)
    assert "Failed: 1: " in result.err
    words = result.err.replace("│", " ").split()
    for row in (["done", "2"], ["skipped", "0"], ["failed", "1"], ["unreadable", "1"]):
        assert any(words[i : i + 2] == row for i in range(len(words))), row
    assert "pairs/s" in words
    assert "MP/s" in words
    assert "Error: 1 of 3 pairs failed" in result.err
    assert result.out == b""


def test_existing_results_are_skipped_and_counted(run, folders, tmp_path):
    run(*folders)
    (tmp_path / "out" / "1_fused.png").unlink()
    before = (tmp_path / "out" / "0_fused.png").stat().st_mtime_ns
    summary = records(run(*folders, "--json"))[-1]
    assert (summary["done"], summary["skipped"]) == (1, 2)
    assert (tmp_path / "out" / "0_fused.png").stat().st_mtime_ns == before
    summary = records(run(*folders, "--json", "--overwrite"))[-1]
    assert (summary["done"], summary["skipped"]) == (3, 0)


def test_nothing_to_do_loads_no_model(run, folders, monkeypatch):
    run(*folders)
    from diffmf_cli.fusion.fuser import Fuser

    monkeypatch.setattr(Fuser, "load", lambda *args, **options: pytest.fail("loaded"))
    assert run(*folders).code == 0


def test_resume_redoes_failures_and_the_missing(run, folders, save, tmp_path):
    (folders[1] / "1.png").write_bytes(b"broken")
    assert run(*folders).code == 1
    save("ir/1.png", "vis/1.png", 1)
    (tmp_path / "out" / "2_fused.png").unlink()
    summary = records(run(*folders, "--json", "--resume"))[-1]
    assert (summary["done"], summary["skipped"]) == (2, 1)


def test_resume_of_an_overwriting_run_keeps_what_it_did(run, folders, tmp_path):
    (tmp_path / "out").mkdir()
    for index in range(3):
        (tmp_path / "out" / f"{index}_fused.png").write_bytes(b"of yesterday")
    (folders[1] / "1.png").rename(tmp_path / "later.png")
    run(*folders, "--overwrite")
    (tmp_path / "later.png").rename(folders[1] / "1.png")
    summary = records(run(*folders, "--overwrite", "--resume", "--json"))[-1]
    assert (summary["done"], summary["skipped"]) == (1, 2)
    assert read(tmp_path / "out" / "1_fused.png").shape == (48, 64, 3)


def test_resume_with_other_settings_is_refused(run, folders):
    run(*folders, "--color", "gray")
    result = run(*folders, "--resume")
    assert (result.code, "--color was gray, and is auto now" in result.err) == (2, True)
    assert "--color was gray" in run(*folders).err
    assert run(*folders, "--resume", "--color", "auto").code == 0  # the run before was with auto


def test_fail_fast(run, folders, save, tmp_path):
    for index in range(60):
        save(f"ir/z{index:02}.png", f"vis/z{index:02}.png")
    (folders[1] / "0.png").write_bytes(b"broken")
    result = run(*folders, "--fail-fast", "--json")
    summary = records(result)[-2]
    assert (result.code, summary["failed"]) == (1, 1)
    assert summary["pairs"] < 40


def test_the_tree_is_mirrored(run, save, tmp_path):
    for folder in ("", "day/", "night/a b/"):
        save(f"ir/{folder}1.png", f"vis/{folder}1.png")
    assert run(tmp_path / "ir", tmp_path / "vis", "-r").code == 0
    assert names(tmp_path / "out") == [
        "1_fused.png",
        "day/1_fused.png",
        "manifest.jsonl",
        "night/a b/1_fused.png",
    ]


def test_one_folder_that_holds_both(run, save, tmp_path):
    save("set/Thermal/1_ir.png", "set/rgb/1_vis.jpg")
    save("set/Thermal/2_ir.png", "set/rgb/2_vis.tif")
    assert run(tmp_path / "set", "--name", "{key}{ext}").code == 0
    assert names(tmp_path / "out") == ["1.png", "2.tif", "manifest.jsonl"]
    (tmp_path / "set" / "vis").mkdir()
    result = run(tmp_path / "set")
    assert (result.code, "rgb, vis" in result.err) == (2, True)
    result = run(tmp_path / "set" / "vis")
    assert (result.code, "no infrared folder" in result.err) == (2, True)


def test_format_depth_and_colour(run, folders, tmp_path):
    assert run(*folders, "--format", "tiff", "--depth", "16", "--color", "gray").code == 0
    fused = read(tmp_path / "out" / "0_fused.tiff")
    assert (fused.shape, fused.dtype) == ((48, 64), np.uint16)


def test_list_of_pairs(run, folders, tmp_path):
    (tmp_path / "list.csv").write_text("ir,vis,output\nir/0.png,vis/1.png,a/b.png\nir/1.png,vis/0.png,\n")
    assert run("--pairs", tmp_path / "list.csv").code == 0
    assert names(tmp_path / "out") == ["0_fused.png", "a/b.png", "manifest.jsonl"]


def test_a_dry_run_is_a_list_of_pairs(run, folders, tmp_path, monkeypatch):
    shown = run(*folders, "--dry-run", "--json")
    assert (shown.code, names(tmp_path)) == (0, [f"{d}/{i}.png" for d in ("ir", "vis") for i in range(3)])
    assert [record["exists"] for record in records(shown)] == [False] * 3
    stdin = SimpleNamespace(buffer=io.BytesIO(shown.out), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("--pairs", "-").code == 0
    assert names(tmp_path / "out") == ["0_fused.png", "1_fused.png", "2_fused.png", "manifest.jsonl"]


def test_dry_run_is_a_table(run, folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1_fused.png").touch()
    (folders[0] / "3.png").touch()
    result = run(*folders, "--dry-run")
    rows = [line.split("\t") for line in result.out.decode().splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert [row[-1] for row in rows] == ["new", "exists", "new"]
    assert rows[0][1:4] == [str(folder / "0.png") for folder in folders] + [str(tmp_path / "out/0_fused.png")]
    assert "3 pairs, 0 that cannot be fused, 1 without partner" in result.err


def test_dry_run_imports_nothing_heavy(folders, tmp_path):
    import subprocess

    script = (
        "import sys\nfrom diffmf_cli.cli.app import run\n"
        f"run(['batch', '{folders[0]}', '{folders[1]}', '-o', '{tmp_path / 'out'}', '--dry-run', '-r'])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = {name.partition(".")[0] for name in done.stderr.split()}
    assert "diffmf_cli" in found
    assert not found & {"torch", "numba", "cv2", "numpy", "PIL", "ray", "fsspec", "safetensors"}


def test_strict_stops_before_work(run, folders, tmp_path):
    (folders[0] / "3.png").touch()
    result = run(*folders, "--strict")
    assert (result.code, "3.png has no visible partner" in result.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_one_range_for_the_set(run, tmp_path, scene):
    """A hot and a cold frame: alone each would fill the range, together they stay apart."""
    for index, offset in enumerate((0, 3000)):
        for name, pixels in (("ir", scene[0].astype(np.uint16) * 4 + 8000 + offset), ("vis", scene[1])):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), pixels)
    assert run(tmp_path / "ir", tmp_path / "vis", "--ir-range", "set:0,100").code == 0
    low, high = (float(word) for word in manifest(tmp_path)[0]["ir_range"].split(","))
    assert (low, high) == (8000 + 4 * int(scene[0].min()), 11000 + 4 * int(scene[0].max()))
    together = (tmp_path / "out" / "0_fused.png").read_bytes()
    assert run(tmp_path / "ir", tmp_path / "vis", "--ir-range", f"{low},{high}", "--overwrite").code == 0
    assert (tmp_path / "out" / "0_fused.png").read_bytes() == together
    assert run(tmp_path / "ir", tmp_path / "vis", "--overwrite").code == 0
    assert (tmp_path / "out" / "0_fused.png").read_bytes() != together


def test_resume_keeps_the_range_of_the_set(run, folders, save, tmp_path):
    run(*folders, "--ir-range", "set:1,99")
    before = manifest(tmp_path)[0]["ir_range"]
    save("ir/bright.png", "vis/bright.png", 100)
    run(*folders, "--ir-range", "set:1,99", "--resume")
    assert [r["ir_range"] for r in manifest(tmp_path) if r["type"] == "run"] == [before, before]


def test_shards_make_up_the_set(run, save, tmp_path, monkeypatch):
    for index in range(12):
        save(f"ir/{index:02}.png", f"vis/{index:02}.png")
    counts = []
    for task in (1, 2, 3):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
        summary = records(run(tmp_path, "--shard", "auto", "--json"))[-1]
        counts.append(summary["done"])
        assert summary["skipped"] == 0
    assert sum(counts) == 12
    assert all(counts)
    assert [name for name in names(tmp_path / "out") if "manifest" in name] == [
        f"manifest-{index}-of-3.jsonl" for index in (1, 2, 3)
    ]


def test_watch_ends_when_idle(run, folders, tmp_path):
    result = run(*folders, "--watch", "0.1", "--until-idle", "0.5", "--json")
    assert (result.code, records(result)[-1]["done"]) == (0, 3)


def test_several_processes(run, cli, folders, tiny_model, tmp_path):
    run(*folders)
    other = tmp_path / "other"
    assert cli("batch", *folders, "-o", other, "-m", tiny_model, "--gpus", "cpu,cpu").code == 0
    for index in range(3):
        name = f"{index}_fused.png"
        assert (other / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_temporary_files_of_a_killed_run_are_removed(run, folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".diffmf-0123.tmp").write_bytes(b"half")
    assert run(*folders).code == 0
    assert ".diffmf-0123.tmp" not in names(tmp_path / "out")


def test_notices_are_few_on_the_terminal_and_whole_in_the_manifest(run, save, tmp_path, scene):
    for index in range(5):
        save(f"ir/{index}.png", f"vis/{index}.png")
        cv2.imwrite(str(tmp_path / "ir" / f"{index}.png"), scene[0][::2, ::2])
    result = run(tmp_path)
    assert result.err.count("IR of 32x24 was resampled") == 3
    assert "2 more notes" in result.err
    assert all(len(record["notices"]) == 1 for record in manifest(tmp_path) if record["type"] == "pair")


def test_every_kind_of_bad_pair(run, save, tmp_path, scene, monkeypatch):
    """All good pairs are done, each bad one is named with its reason, and the exit code is 1."""
    ir, vis = tmp_path / "ir", tmp_path / "vis"
    good = ["plain", "with space", "ünïcödé 夜", "l" * 240, "day/deep", "a\udcffb"]
    for name in good:
        save(f"ir/{name}.png", f"vis/{name}.png")
    bad = {}

    def pair(name, reason, ir_data=None, vis_data=None):
        save(f"ir/{name}.png", f"vis/{name}.png")
        for folder, data in ((ir, ir_data), (vis, vis_data)):
            if data is not None:
                (folder / f"{name}.png").write_bytes(data)
        bad[name] = reason

    def png(pixels):
        return cv2.imencode(".png", pixels)[1].tobytes()

    whole = png(scene[0])
    nothing = bytearray(whole)
    nothing[16:24] = bytes(8)
    pair("text", "unreadable", b"hello")
    pair("truncated", "unreadable", None, whole[: len(whole) // 2])
    pair("empty", "unreadable", b"")
    pair("no pixels", "unreadable", bytes(nothing))
    nan = np.full((48, 64), np.nan, np.float32)
    pair("nan", "unreadable", cv2.imencode(".tiff", nan)[1].tobytes())
    kelvin = np.linspace(280, 320, 48 * 64, dtype=np.float32).reshape(48, 64)
    pair("kelvin", "unsuitable", None, cv2.imencode(".tiff", kelvin)[1].tobytes())
    pair("same", "unsuitable", whole, whole)
    pair("square", "unsuitable", png(scene[0][:, :48]))
    pair("lost", "unreadable")
    (ir / "lost.png").unlink()
    (ir / "lost.png").symlink_to(ir / "nowhere.png")
    pair("loop", "unreadable")
    (vis / "loop.png").unlink()
    (vis / "loop.png").symlink_to(vis / "loop.png")
    pair("m" * 250, "unwritable")  # with _fused it is longer than a name can be
    pair("taken", "unwritable")
    (tmp_path / "out" / "taken_fused.png").mkdir(parents=True)
    pair("out", "outside")
    (tmp_path / "precious.png").write_bytes(b"precious")
    (tmp_path / "out" / "out_fused.png").symlink_to(tmp_path / "precious.png")
    pair("twice", "ambiguous")
    save("ir/twice.jpg", "vis/orphan.png")
    save("ir/collide_T.png", "vis/collide.png")
    save("ir/collide.png", "vis/collide.jpg")
    bad["collide"] = "ambiguous"
    pair("vanishing", "unreadable")
    (ir / "day" / "back").symlink_to(ir)

    from diffmf_cli.batch import locations

    source_of = locations.source_of

    def vanish(location):
        if "vanishing" in location:
            Path(location).unlink(missing_ok=True)
        return source_of(location)

    monkeypatch.setattr(locations, "source_of", vanish)
    result = run(ir, vis, "-r", "--json", "--overwrite")
    found = records(result)
    reasons = {r["key"]: r["reason"] for r in found if r.get("status") == "failed"}
    assert reasons == bad
    assert sorted(r["key"] for r in found if r.get("status") == "done") == sorted(good)
    assert result.code == 1
    orphans = [str(ir / "collide_T.png"), str(vis / "orphan.png")]
    assert [r["path"] for r in found if r["type"] == "orphan"] == orphans
    assert "back is a link to a folder above it" in result.err
    for record in found:
        if record.get("status") == "failed":
            assert f"Failed: {record['key']}: {record['message']}" in result.err
    for name in good:
        assert (tmp_path / "out" / f"{name}_fused.png").is_file()
    assert (tmp_path / "precious.png").read_bytes() == b"precious"
    assert not list((tmp_path / "out").rglob(".diffmf-*"))


def test_collisions_write_neither_result(run, folders, tmp_path):
    (tmp_path / "list.csv").write_text(
        "ir,vis,output\nir/0.png,vis/0.png,x.png\nir/1.png,vis/1.png,x.png\nir/2.png,vis/2.png,y.png\n"
    )
    result = run("--pairs", tmp_path / "list.csv")
    assert (result.code, names(tmp_path / "out")) == (1, ["manifest.jsonl", "y.png"])
    assert result.err.count("would both become") == 2


@pytest.mark.parametrize("output", ["../stolen.png", "a/../../stolen.png", "{absolute}/stolen.png"])
def test_a_list_cannot_write_outside(run, folders, tmp_path, output):
    row = {"ir": "ir/0.png", "vis": "vis/0.png", "output": output.format(absolute=tmp_path)}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    result = run("--pairs", tmp_path / "list.jsonl", "--overwrite")
    assert result.code == 1
    assert "does not lie below" in result.err
    assert "stolen.png" not in " ".join(names(tmp_path))


def test_a_result_never_replaces_an_input(run, folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "v.png").write_bytes((folders[1] / "0.png").read_bytes())
    before = (tmp_path / "out" / "v.png").read_bytes()
    (tmp_path / "list.csv").write_text("ir,vis,output\nir/0.png,out/v.png,v.png\n")
    result = run("--pairs", tmp_path / "list.csv", "--overwrite")
    assert (result.code, "is an input, which would be lost" in result.err) == (1, True)
    assert (tmp_path / "out" / "v.png").read_bytes() == before


def test_full_disk(run, folders, tmp_path, monkeypatch):
    from diffmf_cli.images import write

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.os, "replace", full)
    result = run(*folders, "--json")
    assert result.code == 1
    failed = [record for record in records(result) if record.get("status") == "failed"]
    assert [(record["reason"], "no space left" in record["message"]) for record in failed] == [
        ("unwritable", True)
    ] * 3
    assert names(tmp_path / "out") == ["manifest.jsonl"]


def test_second_batch_in_the_same_folder(run, folders, tmp_path):
    from diffmf_cli.batch.manifest import Manifest

    with Manifest(tmp_path / "out" / "manifest.jsonl"):
        result = run(*folders)
    assert (result.code, "in use by another diffmf batch" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--shard", "5/4"], "5/4"),
        (["--batch-size", "0"], "'0'"),
        (["--engine", "rai"], "did you mean 'ray'"),
        (["--name", "{stm}.png"], "did you mean 'stem'"),
        (["--format", "tif"], "did you mean 'tiff'"),
        (["--quality", "0"], "quality 0"),
        (["--quality", "80"], "--quality 80 is of JPEG and WebP"),
        (["--quality", "80", "--name", "{stem}.png"], "--quality 80 is of JPEG and WebP"),
        (["--outside", "blank"], "--outside blank is for an aligned IR"),
        (["--depth", "12"], "12"),
        (["--watch", "0"], "--watch 0"),
        (["--until-idle", "3"], "--watch"),
        (["--watch", "1", "--ir-range", "set:1,99"], "whole set"),
        (["--workers", "2"], "--engine ray"),
        (["--ir-range", "9,1"], "9,1"),
        (["--tile", "7"], "'7'"),
        (["--pair-by", "(["], "regular expression"),
        (["--pairs", "x.csv"], "leave one of them out"),
    ],
)
def test_option_values(run, folders, tmp_path, args, says):
    result = run(*folders, *args)
    assert (result.code, says in result.err, result.err.count("\n")) == (2, True, 1), result.err
    assert not (tmp_path / "out").exists()


def test_wrong_folders(run, cli, folders, tmp_path):
    (tmp_path / "empty").mkdir()
    for args, says in (
        ((folders[0], tmp_path / "none"), "does not exist"),
        ((folders[0], tmp_path / "empty"), "holds no picture"),
        ((folders[0], folders[0]), "are the same"),
        ((folders[0], folders[1] / "0.png"), "is a file"),
        ((), "give IR_DIR and VIS_DIR"),
        ((*folders, *folders), "give IR_DIR and VIS_DIR"),
    ):
        result = run(*args)
        assert (result.code, says in result.err) == (2, True), result.err
    result = cli("batch", *folders)
    assert (result.code, "-o OUT_DIR" in result.err) == (2, True)
    result = cli("batch", *folders, "-o", folders[1])
    assert (result.code, "input folder" in result.err) == (2, True)
    result = cli("batch", *folders, "-o", folders[1] / "0.png")
    assert (result.code, "is a file" in result.err) == (2, True)


def test_names_that_do_not_match(run, save, tmp_path):
    save("ir/a.png", "vis/b.png")
    result = run(tmp_path)
    assert (result.code, "--pair-by" in result.err) == (2, True)


def test_missing_weights(cli, folders, tmp_path):
    result = cli("batch", *folders, "-o", tmp_path / "out", "-m", tmp_path / "no.safetensors")
    assert (result.code, "no.safetensors" in result.err) == (3, True)
    assert not (tmp_path / "out").exists()


def test_quality_of_what_is_lossy(run, folders, tmp_path):
    sizes = []
    for quality, options in ((95, ("--format", "jpg")), (20, ("--name", "{stem}_fused.jpg", "--overwrite"))):
        assert run(*folders, "--quality", quality, *options).code == 0
        sizes.append((tmp_path / "out" / "0_fused.jpg").stat().st_size)
    assert sizes[1] < 0.8 * sizes[0]


def test_settings_from_the_environment(run, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFMF_FORMAT", "webp")
    monkeypatch.setenv("DIFFMF_SHARD", "1/1")
    assert run(*folders).code == 0
    assert os.path.exists(tmp_path / "out" / "0_fused.webp")
