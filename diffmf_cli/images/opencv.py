"""OpenCV, loaded with a readable error and kept quiet: `from diffmf_cli.images.opencv import cv2`."""

import os

from diffmf_cli.errors import DiffmfError

# What FFmpeg inside OpenCV prints about videos is reported as errors of ours; it reads this on first use.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

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

# Its decoders print what we report as errors of our own. OpenCV 5 moved the function.
if "OPENCV_LOG_LEVEL" not in os.environ:
    getattr(cv2.utils, "logging", cv2).setLogLevel(0)

__all__ = ["cv2"]
