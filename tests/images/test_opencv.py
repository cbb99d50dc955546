import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("ImportError('libGL.so.1: cannot open shared object file')", "opencv-python-headless"),
        ("ModuleNotFoundError('No module named cv2')", "pip install opencv-python"),
    ],
)
def test_opencv_that_cannot_be_loaded(tmp_path, error, says):
    (tmp_path / "cv2.py").write_text(f"raise {error}\n")
    code = (
        "from diffmf_cli.errors import DiffmfError\n"
        "try: import diffmf_cli.images.read\n"
        "except DiffmfError as error: print(error, error.exit_code)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert says in done.stdout
    assert ("headless" in done.stdout) == ("libGL" in done.stdout)
    assert done.stdout.endswith(" 1\n")


def test_images_alone_load_nothing_heavy():
    code = "import sys, diffmf_cli.images; print({'cv2', 'numpy', 'PIL', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_images_need_no_torch():
    code = (
        "import sys\n"
        "from diffmf_cli.images import color, range, read, resize, write\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
