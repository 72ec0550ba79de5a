"""Plots are made by matplotlib, which is optional."""

from pathlib import Path
from typing import Any

from timm_repaint.errors import UsageError


def new_figure(path: Path, width_in: float, height_in: float) -> Any:
    """An empty figure of matplotlib for the file `path`.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"{path.name} needs matplotlib: pip install '.[report]'") from error
    return Figure(figsize=(width_in, height_in), layout='constrained')
