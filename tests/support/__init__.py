"""Code that tests share: reference arithmetic, stand-ins for devices and clusters, copies of the project."""

from pathlib import Path

SUPPORT = Path(__file__).parent
