"""OpenCV, loaded with a readable error and kept quiet: `from diffmf_cli.images.opencv import cv2`."""

import os

from diffmf_cli.errors import DiffmfError

# OpenCV reads this when it is loaded. Its decoders print what we report as errors of our own.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

try:
    import cv2
except ModuleNotFoundError as error:
    raise DiffmfError(f"OpenCV is missing ({error}): pip install opencv-python") from error
except ImportError as error:
    # Servers and containers come without libGL, which only the windows of opencv-python need.
    raise DiffmfError(
        f"OpenCV cannot be loaded ({error}): "
        "pip uninstall opencv-python, then pip install opencv-python-headless, which needs no display"
    ) from error

__all__ = ["cv2"]
