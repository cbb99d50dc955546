"""DIFF-MF infrared and visible image fusion."""

__version__ = "0.1.0"
