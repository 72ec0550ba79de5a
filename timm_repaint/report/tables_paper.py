"""The figures of the paper's tables, as printed, and the recipes that reproduce them.

Known faults of the print: Table 4's averages are the sums of its six rows divided by five, and the lowest average of
Table 5's DeepLab-v2 (1.17) is not that of its rows (1.02); no row of ours stands for averages. The DeepLab-v2 gains of
Tables 4 and 5 are those of Tables 1 and 2, so the masks of these are DeepLab-v2's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Gains = tuple[float, float, float]


@dataclass(frozen=True)
class Entry:
    """A figure of the paper.

    Attributes:
        table: Its number.
        row: The row's name, and where a row has several arms, the arm's.
        recipe: Name of a recipe in `recipes/tables`.
        baseline: Recipe that it is compared with; itself for the baseline.
        value: Of the metric, %; None where only a gain is printed.
        gain: Over the baseline, percentage points, as printed; None where none is.
        low, high: Lowest and highest gain of five runs, as printed.
        metric: Key of `METRICS`.
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


@dataclass(frozen=True)
class Metric:
    """What a table measures.

    Attributes:
        name: In the rows of the tables.
        column: Of summary.csv, %.
    """

    name: str
    column: str


METRICS = {
    'top1': Metric('top-1', 'eval_top1'),
    'top5': Metric('top-5', 'eval_top5'),
    'map': Metric('mAP', 'eval_map'),
    'ap50': Metric('AP@0.5', 'eval_ap50'),
}
# Model: baseline, Repaint without task loss, Repaint, gain.
TABLE_1 = {
    'MobileNetV2': (74.63, 74.94, 75.15, 0.52),
    'ResNet-50': (77.06, 77.64, 78.05, 0.99),
    'EfficientNet-B0': (76.66, 77.0, 77.24, 0.58),
    'EfficientNet-B1': (78.59, 78.92, 79.15, 0.56),
    'EfficientNet-B2': (79.24, 79.61, 79.83, 0.60),
    'EfficientNet-B3': (80.87, 81.2, 81.45, 0.58),
}
TABLE_2 = {
    'EfficientDet-D0': (33.87, 34.36, 35.10, 1.23),
    'EfficientDet-D1': (38.98, 39.38, 39.97, 0.99),
    'EfficientDet-D2': (42.25, 42.69, 43.35, 1.10),
    'EfficientDet-D3': (45.27, 45.98, 46.86, 1.59),
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
TABLE_4: dict[str, tuple[Gains, Gains]] = {
    'MobileNetV2': ((0.52, 0.38, 0.69), (0.44, 0.28, 0.60)),
    'ResNet-50': ((0.99, 0.71, 1.28), (0.79, 0.51, 1.03)),
    'EfficientNet-B0': ((0.58, 0.41, 0.75), (0.51, 0.34, 0.68)),
    'EfficientNet-B1': ((0.56, 0.39, 0.72), (0.48, 0.31, 0.65)),
    'EfficientNet-B2': ((0.60, 0.42, 0.77), (0.50, 0.33, 0.67)),
    'EfficientNet-B3': ((0.58, 0.40, 0.76), (0.49, 0.29, 0.66)),
}
TABLE_4_AVERAGES = ((0.77, 0.54, 0.99), (0.64, 0.41, 0.85))
TABLE_5: dict[str, tuple[Gains, Gains]] = {
    'EfficientDet-D0': ((1.23, 1.01, 1.46), (1.02, 0.83, 1.21)),
    'EfficientDet-D1': ((0.99, 0.84, 1.14), (0.78, 0.60, 0.96)),
    'EfficientDet-D2': ((1.10, 0.93, 1.29), (0.89, 0.71, 1.07)),
    'EfficientDet-D3': ((1.59, 1.31, 1.87), (1.17, 0.88, 1.46)),
}
TABLE_5_AVERAGES = ((1.22, 1.17, 1.44), (0.96, 0.75, 1.18))
# Metric and share of the data in %: baseline, Repaint, gain.
TABLE_6 = {
    ('top1', 1): (14.63, 18.72, 4.09),
    ('top1', 10): (57.13, 59.55, 2.42),
    ('top1', 100): (77.06, 78.05, 0.99),
    ('top5', 1): (31.61, 35.55, 3.94),
    ('top5', 10): (79.60, 81.13, 1.53),
    ('top5', 100): (93.57, 93.97, 0.40),
}
TABLE_7 = {
    ('map', 1): (6.21, 10.35, 4.14),
    ('map', 10): (22.44, 24.73, 2.29),
    ('map', 100): (33.87, 35.10, 1.23),
    ('ap50', 1): (23.82, 27.95, 4.13),
    ('ap50', 10): (39.06, 41.58, 2.52),
    ('ap50', 100): (52.36, 53.71, 1.35),
}
TITLES = {
    1: 'Top-1 accuracy on ImageNet',
    2: 'mAP@0.5:0.95 on COCO',
    3: 'Methods compared, ResNet-50, top-1 accuracy on ImageNet',
    4: 'Gains by source of the masks, top-1 on ImageNet',
    5: 'Gains by source of the masks, mAP@0.5:0.95 on COCO',
    6: 'ResNet-50 by share of the training images',
    7: 'EfficientDet-D0 by share of the training images',
}


def all_entries() -> list[Entry]:
    """Every figure that has a recipe, in the order of the tables."""
    return [
        *_models(1, TABLE_1, 'top1'),
        *_models(2, TABLE_2, 'map'),
        *_methods(),
        *_masks(4, TABLE_4, 'top1'),
        *_masks(5, TABLE_5, 'map'),
        *_shares(6, TABLE_6, 'resnet50'),
        *_shares(7, TABLE_7, 'efficientdet-d0'),
    ]


def _models(table: int, rows: Mapping[str, tuple[float, float, float, float]], metric: str) -> list[Entry]:
    entries = []
    for model, (baseline, no_task_loss, repaint, gain) in rows.items():
        name = _file_name(model)
        reference = f'{name}-baseline'
        no_task_loss_arm = (f'{model}, Repaint w/o task loss', f'{name}-repaint-no-task-loss')
        entries += [
            Entry(table, f'{model}, baseline', reference, reference, baseline, metric=metric),
            Entry(table, *no_task_loss_arm, reference, no_task_loss, metric=metric),
            Entry(table, f'{model}, Repaint', f'{name}-repaint', reference, repaint, gain, metric=metric),
        ]
    return entries


def _methods() -> list[Entry]:
    return [
        Entry(3, method, f'resnet50-{recipe}', 'resnet50-baseline', value)
        for method, (recipe, value) in TABLE_3.items()
    ]


def _masks(table: int, rows: Mapping[str, tuple[Gains, Gains]], metric: str) -> list[Entry]:
    masks = (('DeepLab-v2', 'repaint'), ('FH', 'repaint-fh'))
    return [
        Entry(
            *(table, f'{model}, {mask}', f'{_file_name(model)}-{arm}', f'{_file_name(model)}-baseline', None, *gains),
            metric=metric,
        )
        for model, both in rows.items()
        for (mask, arm), gains in zip(masks, both, strict=True)
    ]


def _shares(table: int, rows: Mapping[tuple[str, int], Gains], model: str) -> list[Entry]:
    entries = []
    for (metric, percent), (baseline, repaint, gain) in rows.items():
        ending = '' if percent == 100 else f'-{percent}percent'
        reference = f'{model}-baseline{ending}'
        row = f'{METRICS[metric].name}, {percent} %'
        entries += [
            Entry(table, f'{row}, baseline', reference, reference, baseline, metric=metric),
            Entry(table, f'{row}, Repaint', f'{model}-repaint{ending}', reference, repaint, gain, metric=metric),
        ]
    return entries


def _file_name(model: str) -> str:
    return model.lower().replace('resnet-50', 'resnet50')
