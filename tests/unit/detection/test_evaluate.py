"""COCO's metrics: worked by hand, against pycocotools, and through a detector."""

import argparse
import contextlib
import io
import math

import numpy as np
import pytest
import torch
from effdet import DetBenchPredict
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.unit.detection.tiny import tiny_detector
from timm_repaint.detection.annotations import Annotations, parse_coco
from timm_repaint.detection.coco_loaders import DetectionDataset, collate
from timm_repaint.detection.evaluate import average_precision, bench_target, create_bench, to_results, validate
from timm_repaint.detection.shapes_boxes import DetectionShapes
from timm_repaint.detection.transforms import eval_transform

CPU = torch.device('cpu')
ARGS = argparse.Namespace(
    distributed=False, world_size=1, rank=0, no_prefetcher=True, channels_last=False, log_interval=50
)


def annotated(*images, crowds=()):
    """Annotations of images of 100 px; each a list of (x, y, w, h, class)."""
    boxes = [
        {'id': 0, 'image_id': number, 'category_id': row[4], 'bbox': row[:4], 'iscrowd': int((number, row) in crowds)}
        for number, rows in enumerate(images)
        for row in rows
    ]
    listed = [
        {'id': number, 'file_name': f'{number}.jpg', 'height': 100, 'width': 100} for number in range(len(images))
    ]
    categories = [{'id': number, 'name': str(number)} for number in (1, 2, 3)]
    return parse_coco({'images': listed, 'annotations': boxes, 'categories': categories}, 'file.json')


def detected(*images):
    """Detections (x, y, w, h, score, class) as effdet gives them, [N, M, 6]."""
    width = max(map(len, images))
    rows = np.zeros((len(images), width, 6), dtype=np.float32)
    for image, found in zip(rows, images, strict=True):
        for row, (x, y, w, h, score, class_id) in zip(image, found, strict=False):
            row[:] = x, y, x + w, y + h, score, class_id
    return torch.from_numpy(rows)


def test_perfect_detections_have_a_precision_of_100():
    truth = annotated([(10, 10, 40, 40, 1)], [(20, 20, 30, 50, 2), (60, 60, 20, 20, 1)])
    found = detected([(10, 10, 40, 40, 0.9, 1)], [(20, 20, 30, 50, 0.8, 2), (60, 60, 20, 20, 0.3, 1)])
    assert average_precision(truth, [0, 1], found) == pytest.approx((100, 100))


def test_a_detection_counts_from_its_overlap_on():
    truth = annotated([(0, 0, 100, 50, 1)])
    # Overlap 0.72: right at 0.5, 0.55, 0.6, 0.65, 0.7 and wrong at the other five thresholds.
    found = detected([(0, 0, 100, 36, 0.9, 1)])
    assert average_precision(truth, [0], found) == pytest.approx((50, 100))


def test_half_of_the_objects_found_is_half_the_precision_and_a_wrong_class_is_none():
    truth = annotated([(10, 10, 20, 20, 1), (50, 50, 20, 20, 1)])
    found = detected([(10, 10, 20, 20, 0.9, 1), (50, 50, 20, 20, 0.8, 2)])
    assert average_precision(truth, [0], found)[1] == pytest.approx(100 * 51 / 101)  # 101 points of recall, 0 to 0.5


def test_what_is_found_in_a_crowd_is_no_mistake():
    rows = [(10, 10, 20, 20, 1), (40, 40, 50, 50, 1)]
    found = detected([(45, 45, 10, 10, 0.95, 1), (10, 10, 20, 20, 0.9, 1)])
    crowd = annotated(rows, crowds=((0, rows[1]),))
    assert average_precision(crowd, [0], found) == pytest.approx((100, 100))
    assert average_precision(annotated(rows[:1]), [0], found)[1] == pytest.approx(50)


def test_an_image_that_comes_twice_counts_once_and_nothing_found_is_zero():
    truth = annotated([(10, 10, 40, 40, 1)], [(20, 20, 30, 50, 2)])
    found = detected([(10, 10, 40, 40, 0.9, 1)], [(20, 20, 30, 50, 0.8, 2)], [(10, 10, 40, 40, 0.9, 1)])
    assert average_precision(truth, [0, 1, 0], found) == pytest.approx((100, 100))
    assert average_precision(truth, [0, 1], torch.zeros(2, 5, 6)) == (0, 0)
    assert all(map(math.isnan, average_precision(annotated([], []), [0, 1], torch.zeros(2, 5, 6))))


def test_objects_of_an_image_that_was_not_looked_at_are_not_missed():
    truth = annotated([(10, 10, 40, 40, 1)], [(20, 20, 30, 50, 2)], [(5, 5, 9, 9, 1)])
    found = detected([(5, 5, 9, 9, 0.9, 1)], [(10, 10, 40, 40, 0.9, 1)])
    assert average_precision(truth, [2, 0], found) == pytest.approx((100, 100))
    crowd = annotated([(10, 10, 40, 40, 1)], [(20, 20, 30, 50, 2)], crowds=((0, (10, 10, 40, 40, 1)),))
    assert all(map(math.isnan, average_precision(crowd, [0], torch.zeros(1, 5, 6))))


def test_a_box_that_reaches_out_of_its_image_is_found_by_the_part_inside():
    truth = annotated([(80, 80, 60, 60, 1)], [(-30, 10, 60, 40, 2), (99.5, 0, 9, 9, 2)])
    found = detected([(80, 80, 20, 20, 0.9, 1)], [(0, 10, 30, 40, 0.8, 2)])
    assert average_precision(truth, [0, 1], found) == pytest.approx((100, 100))


@pytest.mark.parametrize('rows', [[(10, 10, 40, 40, 1)], [(200, 200, 9, 9, 1)]])
def test_images_with_nothing_but_crowds_or_boxes_outside_have_no_precision(rows):
    truth = annotated(rows, crowds=((0, (10, 10, 40, 40, 1)),))
    for found in (detected([(10, 10, 40, 40, 0.9, 1)]), torch.zeros(1, 5, 6)):
        assert all(map(math.isnan, average_precision(truth, [0], found)))


def random_case(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, 12)
    starts, sizes = rng.uniform(0, 60, (counts.sum(), 2)), rng.uniform(5, 40, (counts.sum(), 2))
    truth = Annotations(
        ('a', 'b', 'c'),
        tuple(map(str, range(12))),
        np.full((12, 2), 100, np.int32),
        np.cumsum([0, *counts]),
        np.concatenate([starts, starts + sizes], axis=1).astype(np.float32),
        rng.integers(1, 4, counts.sum()),
        rng.random(counts.sum()) < 0.1,
        sizes.prod(axis=1).astype(np.float32),
    )
    found = np.zeros((12, 20, 6), np.float32)
    found[..., :2] = rng.uniform(0, 60, (12, 20, 2))
    found[..., 2:4] = found[..., :2] + rng.uniform(5, 40, (12, 20, 2))
    found[..., 4], found[..., 5] = rng.random((12, 20)), rng.integers(1, 4, (12, 20))
    for index in range(12):
        rows = slice(*truth.first[index : index + 2])
        found[index, : counts[index], :4] = truth.boxes[rows] + rng.normal(0, 2, (counts[index], 4))
        found[index, : counts[index], 5] = truth.classes[rows]
    return truth, torch.from_numpy(found)


@pytest.mark.parametrize('seed', range(4))
def test_the_figures_are_those_of_pycocotools(seed):
    truth, found = random_case(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth.to_coco()
        reference.createIndex()
        results = np.concatenate([to_results(index + 1, found[index].numpy()) for index in range(12)])
        evaluation = COCOeval(reference, reference.loadRes(results), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = average_precision(truth, range(12), found)
    assert ours == pytest.approx(tuple(100 * evaluation.stats[:2]), abs=1e-9)
    assert 5 < ours[0] < 95


def test_the_benchs_target_brings_detections_back_to_the_images_pixels():
    truth = annotated([(10, 20, 40, 40, 1)])
    target = bench_target(truth, [0], 128, CPU)
    assert torch.allclose(target['bbox'], torch.tensor([[[25.6, 12.8, 76.8, 64.0]]]))
    assert target['img_scale'].item() == pytest.approx(100 / 128) and target['img_size'].tolist() == [[100, 100]]


def loader(count, size_px=128):
    images = DetectionShapes('validation', count, size_px)
    dataset = DetectionDataset(images, eval_transform(size_px, (0.5, 0.5, 0.5)), training=False)

    def as_float(samples):
        pixels, numbers = collate(samples)
        return pixels.float() / 255, numbers

    return torch.utils.data.DataLoader(dataset, batch_size=4, collate_fn=as_float)


def test_validation_of_a_detector_gives_the_three_columns_and_trains_nothing():
    model = tiny_detector(num_classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    metrics = validate(model, loader(6), torch.nn.CrossEntropyLoss(), ARGS, CPU)
    assert list(metrics) == ['loss', 'map', 'ap50']
    assert metrics['loss'] > 0 and 0 <= metrics['map'] <= metrics['ap50'] < 5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_detector_of_one_class_has_fewer_scores_than_effdet_asks_for():
    bench = create_bench(tiny_detector(num_classes=1), DetBenchPredict)
    assert bench(torch.zeros(1, 3, 128, 128)).shape == (1, 100, 6)
