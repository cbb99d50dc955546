"""A whole run on the CPU, in six steps."""

import json
import math
import signal
from dataclasses import replace

import cv2
import pytest
import torch

from diffmf_cli.errors import DiffmfError, UsageError, WeightsError
from diffmf_cli.model.checkpoint import load_checkpoint
from diffmf_cli.training import loop
from diffmf_cli.training.recipe import read_recipe


@pytest.fixture(autouse=True)
def hears_interrupts():
    """A test run in the background starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def recipe(data):
    return lambda: read_recipe(data / "tiny.toml").located(data)


@pytest.fixture
def train(recipe):
    """Trains the tiny recipe into a folder; returns the events."""

    def call(folder, on_event=lambda event: None, **options):
        events = []

        def report(event):
            events.append(event)
            on_event(event)

        path = loop.train(recipe(), folder, torch.device("cpu"), report, **options)
        assert path == folder / "tiny.safetensors"
        return events

    return call


def of(events, kind):
    return [event for event in events if event["type"] == kind]


def same_run(a, b):
    """Weights, average, optimizer, random states and step are equal to the bit."""
    one, two = (torch.load(folder / "state.pt", weights_only=True) for folder in (a, b))
    assert one["step"] == two["step"]
    assert one["crops"]["draws"] == two["crops"]["draws"]
    assert torch.equal(one["crops"]["noise"], two["crops"]["noise"])
    for part in ("model", "averaged"):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), (part, name)
    for index, values in one["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, two["optimizer"]["state"][index][name]), (index, name)
    averaged = [load_checkpoint(folder / "tiny.safetensors")[0].state_dict() for folder in (a, b)]
    for name, value in averaged[0].items():
        assert torch.equal(value, averaged[1][name]), name


def test_six_steps(train, tmp_path, recipe):
    folder = tmp_path / "runs/tiny"
    events = train(folder)
    (start,) = of(events, "start")
    assert start["pairs"] + start["held_out"] == 8
    assert start["held_out"] > 0
    steps = of(events, "step")
    assert [event["step"] for event in steps] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(event["loss"]) and event["loss"] > 0 for event in steps)
    (figures,) = of(events, "validation")
    assert {"EN", "SD", "SCD", "VIF", "Qabf", "SSIM"} <= set(figures)
    assert [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] == events

    model, metadata = load_checkpoint(folder / "tiny.safetensors")
    assert model.config.width == 16
    assert (metadata["name"], metadata["steps"], metadata["device"]) == ("tiny", "6", "CPU")
    assert json.loads(metadata["recipe"]) == recipe().to_dict()
    assert json.loads(metadata["validation"])["EN"] == pytest.approx(figures["EN"])
    samples = list((folder / "samples").iterdir())
    assert samples
    assert cv2.imread(str(samples[0]), -1).shape == (56, 3 * 72)
    assert {path.name for path in folder.iterdir()} == {
        "tiny.safetensors",
        "state.pt",
        "log.jsonl",
        "samples",
    }


def test_weights_change_and_the_average_lags(train, tmp_path):
    train(tmp_path / "run", minutes=0)
    first = torch.load(tmp_path / "run/state.pt", weights_only=True)["model"]
    train(tmp_path / "run")
    last = torch.load(tmp_path / "run/state.pt", weights_only=True)["model"]
    averaged = load_checkpoint(tmp_path / "run/tiny.safetensors")[0].state_dict()
    name = "decoder.out.weight"
    assert not torch.equal(first[name], last[name])
    assert 0 < (averaged[name] - last[name]).norm() < (first[name] - last[name]).norm()


def test_resume_is_exact(train, tmp_path):
    torch.set_num_threads(2)  # whose sums must not depend on who is first
    train(tmp_path / "whole")

    def stop_after_three(event):
        if event["type"] == "step" and event["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", on_event=stop_after_three)
    assert torch.load(tmp_path / "parts/state.pt", weights_only=True)["step"] == 3
    events = train(tmp_path / "parts")
    assert [event["step"] for event in of(events, "step")] == [4, 5, 6]
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(train, tmp_path, monkeypatch):
    train(tmp_path / "whole")
    original, calls = loop.fusion_loss, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return original(*args)

    monkeypatch.setattr(loop, "fusion_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert torch.load(tmp_path / "parts/state.pt", weights_only=True)["step"] == 2
    train(tmp_path / "parts")
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_second_ctrl_c_does_not_wait(train, tmp_path, monkeypatch):
    def twice(*args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "fusion_loss", twice)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    assert not (tmp_path / "run/state.pt").exists()


def test_time_budget_stops_saves_and_goes_on(train, tmp_path):
    events = train(tmp_path / "run", minutes=0)
    assert [event["step"] for event in of(events, "step")] == [1]
    assert load_checkpoint(tmp_path / "run/tiny.safetensors")[1]["steps"] == "1"
    for _ in range(2):
        train(tmp_path / "run", minutes=0)
    train(tmp_path / "run")
    train(tmp_path / "whole")
    same_run(tmp_path / "whole", tmp_path / "run")


def test_finished_run_does_nothing_more(train, tmp_path):
    train(tmp_path / "run")
    before = load_checkpoint(tmp_path / "run/tiny.safetensors")[0].state_dict()
    assert of(train(tmp_path / "run"), "step") == []
    after = load_checkpoint(tmp_path / "run/tiny.safetensors")[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_another_recipe_is_refused(train, tmp_path, data):
    train(tmp_path / "run", minutes=0)
    text = (data / "tiny.toml").read_text()
    (data / "tiny.toml").write_text(text.replace("steps = 6", "steps = 7"))
    with pytest.raises(UsageError, match=r"state\.pt: was made by another recipe; choose another --out"):
        train(tmp_path / "run")


def test_keys_that_came_later_have_their_defaults(train, tmp_path, data):
    train(tmp_path / "run", minutes=0)
    path = tmp_path / "run/state.pt"
    state = torch.load(path, weights_only=True)
    del state["recipe"]["loss"]["edges"], state["recipe"]["data"]["flat_vis"], state["recipe"]["task"]
    torch.save(state, path)
    assert [event["step"] for event in of(train(tmp_path / "run", minutes=0), "step")] == [2]
    for part in (state["recipe"], state["recipe"]["loss"]):
        part["forgotten"] = 1.0  # a key that nobody knows any more counted for something
        torch.save(state, path)
        with pytest.raises(UsageError, match="another recipe"):
            train(tmp_path / "run")
        del part["forgotten"]
    torch.save(state, path)
    text = (data / "tiny.toml").read_text()
    (data / "tiny.toml").write_text(text + "\n[loss]\nedges = 1.0\n")  # not what it was trained with
    with pytest.raises(UsageError, match="another recipe"):
        train(tmp_path / "run")


def test_data_may_move(train, tmp_path, data, recipe, monkeypatch):
    train(tmp_path / "run", minutes=0)
    data.rename(tmp_path / "moved")
    moved = read_recipe(tmp_path / "moved/tiny.toml").located(tmp_path / "moved")
    loop.train(moved, tmp_path / "run", torch.device("cpu"), lambda event: None, minutes=0)
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 2


@pytest.mark.parametrize("content", [b"", b"no state", {"other": 1}])
def test_damaged_state(train, tmp_path, content):
    (tmp_path / "run").mkdir()
    if isinstance(content, dict):
        torch.save(content, tmp_path / "run/state.pt")
    else:
        (tmp_path / "run/state.pt").write_bytes(content)
    with pytest.raises(UsageError, match=r"state\.pt: cannot resume from it"):
        train(tmp_path / "run")


def test_bad_data_leaves_no_folder(train, tmp_path, data):
    (data / "a/train/ir").rename(data / "a/train/other")
    with pytest.raises(UsageError, match="training reads pairs from"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_begins_with_given_weights(train, tmp_path, tiny_model):
    train(tmp_path / "first", minutes=0)
    start = tmp_path / "first/tiny.safetensors"
    train(tmp_path / "second", start=start, minutes=0)
    given, tuned = (
        load_checkpoint(tmp_path / n / "tiny.safetensors")[0].state_dict() for n in ("first", "second")
    )
    # One step of warm-up moves a weight by half the learning rate; another random start would differ by more.
    assert all((tuned[name] - value).abs().max() < 1e-3 for name, value in given.items())
    with pytest.raises(WeightsError, match="no\\.safetensors"):
        train(tmp_path / "third", start=tmp_path / "no.safetensors")


def test_weights_of_another_size_are_refused(train, tmp_path, data, tiny_model):
    text = (data / "tiny.toml").read_text()
    (data / "tiny.toml").write_text(text.replace("width = 16", "width = 32"))
    with pytest.raises(UsageError, match="the recipe makes"):
        train(tmp_path / "run", start=tiny_model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_keeps_what_was_saved(train, tmp_path, monkeypatch, value):
    train(tmp_path / "run", minutes=0)
    before = (tmp_path / "run/tiny.safetensors").read_bytes()
    original = loop.fusion_loss

    def broken(*args):
        loss, terms = original(*args)
        return loss * value, terms

    monkeypatch.setattr(loop, "fusion_loss", broken)
    with pytest.raises(DiffmfError, match="at step 2: lower learning_rate"):
        train(tmp_path / "run")
    assert (tmp_path / "run/tiny.safetensors").read_bytes() == before
    monkeypatch.setattr(loop.Trainer, "_log_step", lambda *args: None)  # a step that is not logged
    with pytest.raises(DiffmfError, match="at step 2: lower learning_rate"):
        train(tmp_path / "run", minutes=0)
    assert (tmp_path / "run/tiny.safetensors").read_bytes() == before


def test_rate_warms_up_and_falls(recipe, tmp_path, data):
    trainer = loop.Trainer(recipe(), tmp_path, torch.device("cpu"), lambda event: None)
    rates = []
    for trainer.step in range(7):
        rates.append(trainer._scheduled_rate() / 1e-3)
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[6] == pytest.approx(0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_on_cuda_a_run_repeats_its_losses(recipe, data, pairs, tmp_path, monkeypatch, compiled):
    """With maps so large and steps so many that sums in any order would show."""
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    pairs(data / "large/train", range(9), height=208, width=208)
    large = recipe()
    large = replace(
        large,
        data=replace(large.data, sources=["large/train"], crop=192, batch=8),
        loss=replace(large.loss, edges=5.0),
        optimization=replace(large.optimization, steps=50),
    )
    losses = []
    for run in range(2):
        events = []
        loop.train(large, tmp_path / str(run), torch.device("cuda"), events.append, compiled=compiled)
        losses.append([event["loss"] for event in of(events, "step")])
    assert len(losses[0]) == 50
    assert losses[0] == losses[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_compiled_step_follows_the_plain_one(recipe, tmp_path):
    losses = []
    for compiled in (False, True):
        events = []
        device, folder = torch.device("cuda"), tmp_path / str(compiled)
        loop.train(recipe(), folder, device, events.append, compiled=compiled)
        losses.append([event["loss"] for event in of(events, "step")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
