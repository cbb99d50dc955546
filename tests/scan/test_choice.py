"""Which backend runs, and what is said where one cannot."""

import subprocess
import sys

import pytest
import torch

from diffmf_cli import scan
from diffmf_cli.errors import UsageError
from diffmf_cli.scan import numba_scan, reference, torch_scan


@pytest.fixture
def calls(monkeypatch):
    """Names of the backends that were called."""
    made = []
    for module in (numba_scan, torch_scan, reference):
        original = module.selective_scan_2d

        def spy(*arguments, name=module.NAME, original=original):
            made.append(name)
            return original(*arguments)

        monkeypatch.setattr(module, "selective_scan_2d", spy)
    return made


@pytest.fixture
def run(scans):
    arguments = scans.make((1, 2, 3, 4), dtype=torch.float32)
    return lambda: scans.forward(scan.selective_scan_2d, arguments)


def test_auto_takes_the_fastest_on_a_cpu(calls, run):
    if scan.available()["numba"]:
        pytest.skip(scan.available()["numba"])
    run()
    assert calls == ["numba"]
    assert scan.choose("cpu") == "numba"


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_using_forces_a_backend_within_the_block(calls, run, name):
    with scan.using(name):
        assert scan.choose("cpu") == name
        run()
    assert calls == [name]
    assert scan.requested() == "auto"


def test_environment_forces_a_backend_and_using_goes_before_it(calls, run, monkeypatch):
    monkeypatch.setenv("DIFFMF_SCAN", "torch")
    run()
    with scan.using("reference"):
        run()
    with scan.using("auto"):
        run()
    assert calls == ["torch", "reference", "torch"]


def test_using_ends_with_an_error_in_the_block():
    with pytest.raises(ZeroDivisionError), scan.using("torch"):
        raise ZeroDivisionError
    assert scan.requested() == "auto"


def test_the_backend_of_exports_is_for_using_alone(monkeypatch):
    with scan.using(scan.EXPORT):
        assert scan.choose("cpu") == scan.EXPORT
    assert scan.EXPORT not in (*scan.names(), *scan.available(), scan.choose("cpu"))
    monkeypatch.setenv("DIFFMF_SCAN", scan.EXPORT)
    with pytest.raises(UsageError, match="unknown"):
        scan.requested()


def test_unknown_name_gets_a_guess(monkeypatch):
    with (
        pytest.raises(UsageError, match="unknown scan backend 'nmuba': did you mean 'numba'"),
        scan.using("nmuba"),
    ):
        pass
    with (
        pytest.raises(UsageError, match="unknown scan backend 'fast': use auto, triton,"),
        scan.using("fast"),
    ):
        pass
    monkeypatch.setenv("DIFFMF_SCAN", "tritn")
    with pytest.raises(UsageError, match="did you mean 'triton'"):
        scan.choose("cpu")


@pytest.mark.parametrize("name", ["triton", "mamba-ssm"])
def test_unavailable_backend_is_refused_with_the_reason(name, run, monkeypatch):
    with (
        pytest.raises(UsageError, match=f"scan backend '{name}' cannot be used on cpu: .*CUDA only"),
        scan.using(name),
    ):
        run()
    monkeypatch.setenv("DIFFMF_SCAN", name)
    with pytest.raises(UsageError, match="CUDA only"):
        scan.choose("cpu")


def test_numba_is_refused_beyond_the_cpu():
    assert scan.available("cuda")["numba"] == "numba runs on the CPU only"


def test_available_names_every_backend():
    available = scan.available()
    assert ["auto", *available] == scan.names()
    assert available["torch"] is None
    assert available["reference"] is None


BLOCKED = """
import sys
for name in {blocked}:
    sys.modules[name] = None  # importing it raises ImportError
from diffmf_cli import scan
from diffmf_cli.errors import UsageError
import torch
for device in ("cpu", "cuda"):
    for name, reason in scan.available(device).items():
        print(device, name, reason)
t = torch.ones(1, 2, 2, 1)
y = scan.selective_scan_2d(t, t, -t[0, 0, :1], t, t, t[0, 0, 0], t[0, 0, 0])
print("chosen", scan.choose("cpu"), bool(y.isfinite().all()))
try:
    with scan.using("numba"):
        scan.choose("cpu")
except UsageError as error:
    print("refused", error)
"""


def test_works_without_numba_triton_and_mamba():
    blocked = ["numba", "llvmlite", "triton", "mamba_ssm", "selective_scan_cuda"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cpu numba numba does not work here (" in done.stdout
    assert "cpu torch None" in done.stdout
    assert "cuda triton triton does not import (" in done.stdout
    assert "cuda mamba-ssm mamba-ssm does not import (" in done.stdout
    assert "chosen torch True" in done.stdout
    assert "refused scan backend 'numba' cannot be used on cpu: numba does not work here" in done.stdout


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, diffmf_cli.scan; print({'torch', 'numba', 'triton', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
