"""The figures of the paper's Tables 1, 3, 4 and 6, as printed, and the recipes that reproduce them.

Known faults of the print: Table 4's averages are the sums of its six rows divided by five; no row of ours stands for
them. Its DeepLab-v2 gains are those of Table 1, so Table 1's masks are DeepLab-v2's.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A figure of the paper.

    Attributes:
        table: Its number.
        row: The row's name, and where a row has several arms, the arm's.
        recipe: File in `recipes/tables`, without its ending.
        baseline: Recipe that it is compared with; itself for the baseline.
        value: Accuracy, %; None where only a gain is printed.
        gain: Over the baseline, percentage points, as printed; None where none is.
        low, high: Lowest and highest gain of five runs, as printed.
        metric: 'top1' or 'top5'.
    """

    table: int
    row: str
    recipe: str
    baseline: str
    value: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    metric: str = 'top1'


# Model: baseline, Repaint without task loss, Repaint, gain.
TABLE_1 = {
    'MobileNetV2': (74.63, 74.94, 75.15, 0.52),
    'ResNet-50': (77.06, 77.64, 78.05, 0.99),
    'EfficientNet-B0': (76.66, 77.0, 77.24, 0.58),
    'EfficientNet-B1': (78.59, 78.92, 79.15, 0.56),
    'EfficientNet-B2': (79.24, 79.61, 79.83, 0.60),
    'EfficientNet-B3': (80.87, 81.2, 81.45, 0.58),
}
# Method: recipe behind 'resnet50-', top-1.
TABLE_3 = {
    'Baseline': ('baseline', 77.06),
    'MixUp': ('mixup', 77.9),
    'CutOut': ('cutout', 77.1),
    'CutMix': ('cutmix', 78.6),
    'AutoAugment': ('autoaugment', 77.6),
    'DropBlock': ('dropblock', 78.1),
    'ISDA': ('isda', 78.1),
    'Shape-ResNet': ('shape-resnet', 77.42),
    'SPADE + task loss': ('spade', 78.02),
    'Repaint': ('repaint', 78.05),
    'CutMix + Repaint': ('cutmix-repaint', 79.11),
    'CutMix + DropBlock + Repaint': ('cutmix-dropblock-repaint', 79.19),
}
# Model: gain, lowest, highest with DeepLab-v2; the same with Felzenszwalb-Huttenlocher.
TABLE_4 = {
    'MobileNetV2': ((0.52, 0.38, 0.69), (0.44, 0.28, 0.60)),
    'ResNet-50': ((0.99, 0.71, 1.28), (0.79, 0.51, 1.03)),
    'EfficientNet-B0': ((0.58, 0.41, 0.75), (0.51, 0.34, 0.68)),
    'EfficientNet-B1': ((0.56, 0.39, 0.72), (0.48, 0.31, 0.65)),
    'EfficientNet-B2': ((0.60, 0.42, 0.77), (0.50, 0.33, 0.67)),
    'EfficientNet-B3': ((0.58, 0.40, 0.76), (0.49, 0.29, 0.66)),
}
TABLE_4_AVERAGES = ((0.77, 0.54, 0.99), (0.64, 0.41, 0.85))
# Metric and share of the data in %: baseline, Repaint, gain.
TABLE_6 = {
    ('top1', 1): (14.63, 18.72, 4.09),
    ('top1', 10): (57.13, 59.55, 2.42),
    ('top1', 100): (77.06, 78.05, 0.99),
    ('top5', 1): (31.61, 35.55, 3.94),
    ('top5', 10): (79.60, 81.13, 1.53),
    ('top5', 100): (93.57, 93.97, 0.40),
}
TITLES = {
    1: 'Top-1 accuracy on ImageNet',
    3: 'Methods compared, ResNet-50, top-1 accuracy on ImageNet',
    4: 'Gains by source of the masks, top-1 on ImageNet',
    6: 'ResNet-50 by share of the training images',
}


def all_entries() -> list[Entry]:
    """Every figure that has a recipe, in the order of the tables."""
    return [*_table_1(), *_table_3(), *_table_4(), *_table_6()]


def _table_1() -> list[Entry]:
    entries = []
    for model, (baseline, no_task_loss, repaint, gain) in TABLE_1.items():
        name = _file_name(model)
        reference = f'{name}-baseline'
        entries += [
            Entry(1, f'{model}, baseline', reference, reference, baseline),
            Entry(1, f'{model}, Repaint w/o task loss', f'{name}-repaint-no-task-loss', reference, no_task_loss),
            Entry(1, f'{model}, Repaint', f'{name}-repaint', reference, repaint, gain),
        ]
    return entries


def _table_3() -> list[Entry]:
    return [
        Entry(3, method, f'resnet50-{recipe}', 'resnet50-baseline', value)
        for method, (recipe, value) in TABLE_3.items()
    ]


def _table_4() -> list[Entry]:
    masks = (('DeepLab-v2', 'repaint'), ('FH', 'repaint-fh'))
    return [
        Entry(4, f'{model}, {mask}', f'{_file_name(model)}-{arm}', f'{_file_name(model)}-baseline', None, *gains)
        for model, both in TABLE_4.items()
        for (mask, arm), gains in zip(masks, both, strict=True)
    ]


def _table_6() -> list[Entry]:
    entries = []
    for (metric, percent), (baseline, repaint, gain) in TABLE_6.items():
        ending = '' if percent == 100 else f'-{percent}percent'
        reference = f'resnet50-baseline{ending}'
        row = f'{"top-1" if metric == "top1" else "top-5"}, {percent} %'
        entries += [
            Entry(6, f'{row}, baseline', reference, reference, baseline, metric=metric),
            Entry(6, f'{row}, Repaint', f'resnet50-repaint{ending}', reference, repaint, gain, metric=metric),
        ]
    return entries


def _file_name(model: str) -> str:
    return model.lower().replace('resnet-50', 'resnet50')
