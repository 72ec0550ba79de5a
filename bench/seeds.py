"""Paired differences over seeds, and pandas for the tables of the benches."""

import sys

from timm_repaint.report.seeds import Difference, paired_difference

try:
    import pandas as pd
except ImportError as missing:
    sys.exit(f"error: the benches need {missing.name}: pip install '.[bench]'")

__all__ = ['Difference', 'paired_difference', 'pd']
