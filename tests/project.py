"""Folder of the project that the tests test."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
