"""matplotlib, for the benches' plots."""

from pathlib import Path
from typing import Any

from timm_repaint.optional import load_optional


def new_figure(path: Path, width_in: float, height_in: float) -> Any:
    """An empty figure of matplotlib for the file `path`.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    figure = load_optional('matplotlib.figure', path.name, 'bench')
    return figure.Figure(figsize=(width_in, height_in), layout='constrained')
