import pytest
import torch

from diffmf_cli.errors import UsageError
from diffmf_cli.fusion.device import check_device_name, devices, resolve_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:13", "mps"])
def test_names_that_some_machine_has(name):
    check_device_name(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:0 ", "CUDA", ""])
def test_names_that_none_has(name):
    with pytest.raises(UsageError, match="use auto, cpu, cuda, cuda:N or mps"):
        check_device_name(name)


def test_best_device_first(two_gpus):
    assert list(devices())[:2] == ["cuda:0", "cuda:1"]
    assert list(devices())[-1] == "cpu"
    assert resolve_device("auto") == torch.device("cuda:0")
    assert resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match=r"'cuda:2'.*cuda:0, cuda:1"):
        resolve_device("cuda:2")


def test_without_accelerator(no_gpu):
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"'{name}'.*use one of cpu, or auto"):
            resolve_device(name)


def test_mps_where_it_is(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
