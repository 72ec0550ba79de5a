"""The bench of segmentation: classes, a training on a few pictures, mIoU over the folds, and the table."""

from argparse import Namespace

import pytest
import torch
from torch import nn

from bench import segmentation
from bench.segmentation import ARMS, CLASSES, TESTS, UNKNOWN, add_folds, coarse, count, mean_iou, table, train


class TinySegmenter(nn.Conv2d):
    def __init__(self, weights: str) -> None:
        super().__init__(3, len(CLASSES), 3, padding=1)


@pytest.fixture
def pairs():
    """Two pictures of a dark ground and a bright sky, with a row of which nothing is known."""
    torch.manual_seed(0)
    labels = torch.full((64, 70), CLASSES.index('sky'))
    labels[32:], labels[31] = CLASSES.index('ground and water'), UNKNOWN
    brightness = 0.6 * (labels == CLASSES.index('sky'))
    return [(0.4 * torch.rand(3, 64, 70) + brightness, labels) for _ in range(2)]


def test_classes_become_six_and_the_unknown_stays():
    ids = torch.tensor([[0, 1, 90], [156, 154, 168], [171, 181, 255]], dtype=torch.uint8)
    names = [[CLASSES[index] if index < 255 else '?' for index in row] for row in coarse(ids).tolist()]
    assert names == [['person', 'thing', 'thing'], ['sky', 'ground and water', 'plant'], ['rest', 'rest', '?']]


def test_miou_is_the_mean_over_the_classes_that_are_there():
    counts = torch.tensor([[3, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert mean_iou(counts) == pytest.approx(100 * (3 / 5 + 1 / 4) / 2)


@pytest.mark.parametrize('arm', ARMS)
def test_an_arm_trains_and_is_tested_on_the_known_pixels(pairs, arm, monkeypatch):
    monkeypatch.setattr(segmentation, 'Segmenter', TinySegmenter)
    monkeypatch.setattr(segmentation, 'SIZE_PX', 32)
    model = train(pairs, ARMS[arm], Namespace(weights='', epochs=16, lr=0.1))
    assert not model.training
    clean = count(model, pairs, TESTS['clean'])
    assert clean.sum() == 2 * 63 * 64  # a row of 64 is unknown, 6 columns are cut off
    assert all(weight.isfinite().all() for weight in model.parameters())
    if arm == 'plain':  # brightness is all that this network sees, and repaints change it
        assert clean.diagonal().sum() > 0.9 * clean.sum()


@pytest.mark.parametrize('name', TESTS)
def test_a_corruption_changes_every_image_and_not_its_size(pairs, name):
    image = pairs[0][0] * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    changed = TESTS[name](image)
    assert changed.shape == image.shape
    assert ((changed - image).abs().mean() > 0.02) == (name != 'clean')


def test_a_seed_counts_once_all_its_folds_are_there():
    counts = {name: [[2, 0], [1, 1]] for name in TESTS}
    runs = [{'arm': 'plain', 'seed': 0, 'fold': fold, 'cpu_seconds': 5, 'counts': counts} for fold in range(3)]
    assert add_folds(runs[:2]) == []
    (row,) = add_folds(runs)
    assert row == {'arm': 'plain', 'seed': 0, **dict.fromkeys(TESTS, 58.33), 'cpu_seconds': 15}


def test_the_table_has_the_paired_difference():
    plain = [{'arm': 'plain', 'seed': seed, **dict.fromkeys(TESTS, 20.0 + seed)} for seed in (0, 1)]
    repaint = [{'arm': 'repaint', 'seed': seed, **dict.fromkeys(TESTS, 22.0 + 2 * seed)} for seed in (0, 1)]
    *_, first, second = table([*plain, *repaint]).splitlines()
    assert first.startswith('| plain | 2 | 20.5 | 20.5 |')
    assert second.startswith('| repaint | 2 | 23.0 (+2.5 ± 6.4) | 23.0')
