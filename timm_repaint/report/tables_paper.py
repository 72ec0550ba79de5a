"""The figures of the paper's tables, as printed, and the recipes that reproduce them: `paper_tables.csv`.

A line there is a figure: its table; its row, and where a row has several arms, the arm; its metric, a key of `METRICS`;
the recipe in `recipes/tables`, and the one that it is compared with, itself for the baseline; the value in %; the gain
over the baseline in percentage points, with the lowest and highest of five runs. What is not printed is empty.

Known faults of the print: Table 4's averages are the sums of its six rows divided by five, and the lowest average of
Table 5's DeepLab-v2 (1.17) is not that of its rows (1.02); no row of ours stands for averages. The DeepLab-v2 gains of
Tables 4 and 5 are those of Tables 1 and 2, so the masks of these are DeepLab-v2's.
"""

from functools import cache
from pathlib import Path
from typing import Any

from timm_repaint.optional import load_optional

FIGURES = Path(__file__).with_name('paper_tables.csv')
# Columns of summary.csv, %.
METRICS = {'top1': 'eval_top1', 'top5': 'eval_top5', 'map': 'eval_map', 'ap50': 'eval_ap50'}
TITLES = {
    1: 'Top-1 accuracy on ImageNet',
    2: 'mAP@0.5:0.95 on COCO',
    3: 'Methods compared, ResNet-50, top-1 accuracy on ImageNet',
    4: 'Gains by source of the masks, top-1 on ImageNet',
    5: 'Gains by source of the masks, mAP@0.5:0.95 on COCO',
    6: 'ResNet-50 by share of the training images',
    7: 'EfficientDet-D0 by share of the training images',
}


def load_pandas() -> Any:
    """pandas, which the tables are made with.

    Raises:
        UsageError: if it is not installed.
    """
    return load_optional('pandas', 'report tables')


@cache
def paper_figures() -> Any:
    """The figures as a data frame, in the order of the tables."""
    return load_pandas().read_csv(FIGURES)
