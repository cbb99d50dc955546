"""What the tests of alignment share."""

import cv2
import numpy as np
import pytest


@pytest.fixture
def moved():
    """Warps a picture; what comes in from beyond its border is black."""

    def warp(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return cv2.warpPerspective(picture, matrix, picture.shape[::-1], flags=cv2.INTER_LINEAR)

    return warp
