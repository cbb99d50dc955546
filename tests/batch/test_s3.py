"""Inputs and outputs in S3: the real API of a server on this machine.

Needs `pip install s3fs 'moto[server]'`; skipped without.
"""

import json
import os

import pytest

s3fs = pytest.importorskip("s3fs")
server_module = pytest.importorskip("moto.server")


@pytest.fixture
def s3(monkeypatch):
    """An S3 file system with the empty bucket `pictures`, on loopback."""
    from diffmf_cli.batch import locations

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    locations._system.cache_clear()
    system = s3fs.S3FileSystem()
    system.mkdir("pictures")
    yield system
    system.rm("pictures", recursive=True)  # servers of one process share their data
    server.stop()
    locations._system.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def test_batch_from_and_to_s3(s3, cli, make_pairs, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ir, vis = make_pairs(4)
    options = ("-m", tiny_model, "--device", "cpu", "--json")
    assert cli("batch", ir, vis, "-o", tmp_path / "out", *options).code == 0
    for folder in (ir, vis):
        for path in folder.iterdir():
            s3.pipe_file(f"pictures/{folder.name}/day 1/{path.name}", path.read_bytes())
    s3.pipe_file("pictures/ir/day 1/003.png", b"broken")

    url = "s3://pictures"
    result = cli("batch", f"{url}/ir", f"{url}/vis", "-o", f"{url}/fused", "-r", *options)
    summary, error = (json.loads(line) for line in result.out.splitlines()[-2:])
    assert (result.code, error["exit_code"]) == (1, 1)
    assert (summary["done"], summary["failed_by_reason"]) == (3, {"unreadable": 1})
    assert "s3://pictures/ir/day 1/003.png is not a picture" in result.err
    assert len(s3.find("pictures/fused")) == 3
    for index in range(3):
        name = f"{index:03}_fused.png"
        assert s3.cat_file(f"pictures/fused/day 1/{name}") == (tmp_path / "out" / name).read_bytes()

    s3.pipe_file("pictures/ir/day 1/003.png", (ir / "003.png").read_bytes())
    result = cli("batch", f"{url}/ir", f"{url}/vis", "-o", f"{url}/fused", "-r", "--resume", *options)
    summary = json.loads(result.out.splitlines()[-1])
    assert (result.code, summary["done"], summary["skipped"]) == (0, 1, 3)
    assert s3.cat_file("pictures/fused/day 1/003_fused.png") == (tmp_path / "out/003_fused.png").read_bytes()


def test_missing_bucket_is_one_line(s3, cli, tmp_path):
    result = cli("batch", "s3://no-such-bucket/ir", "s3://pictures/vis", "-o", tmp_path / "out")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "s3://no-such-bucket/ir" in result.err
    assert not os.path.exists(tmp_path / "out")
