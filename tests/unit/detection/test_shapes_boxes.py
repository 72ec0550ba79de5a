"""The built-in detection set: boxes that fit, the same pictures each time, textures by split."""

import numpy as np
import pytest

from timm_repaint.data.shapes import CLASSES, draw_outline
from timm_repaint.detection.shapes_boxes import AREA_SHARE, MAX_OVERLAP, DetectionShapes, overlap
from timm_repaint.errors import UsageError


def test_a_picture_depends_on_split_and_number_alone():
    first, again, other = (
        DetectionShapes('train', 5, 96),
        DetectionShapes('train', 3, 96),
        DetectionShapes('validation', 3, 96),
    )
    for index in range(3):
        assert np.array_equal(first.read(index), again.read(index))
        assert first.annotations.objects(index)[0].tolist() == again.annotations.objects(index)[0].tolist()
        assert not np.array_equal(first.read(index), other.read(index))


def test_boxes_hold_their_shapes_to_the_pixel():
    images = DetectionShapes('train', 40, 128)
    for index in range(40):
        shapes, _ = images._arrange(index)
        boxes, classes = images.annotations.objects(index)
        assert [shape.target + 1 for shape in shapes] == classes.tolist()
        for shape, box in zip(shapes, boxes, strict=True):
            rows, columns = np.nonzero(draw_outline(shape.corners, 128) > 0.02)
            drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.subtract(drawn, box)).max() <= 1.3


def test_shapes_are_several_of_all_classes_and_hardly_overlap():
    images = DetectionShapes('train', 300, 64)
    counts = np.diff(images.annotations.first)
    assert set(counts) == {1, 2, 3, 4}
    assert set(images.annotations.classes) == set(range(1, len(CLASSES) + 1))
    for index in range(60):
        shapes, _ = images._arrange(index)
        pairs = [(one, two) for one in shapes for two in shapes if one is not two]
        assert all(overlap(one.box, two.box) <= MAX_OVERLAP for one, two in pairs)
    sides = images.annotations.boxes[:, 2:] - images.annotations.boxes[:, :2]
    assert (sides.prod(axis=1) / 64**2).max() < 4 * AREA_SHARE[1]


def test_in_training_a_shape_wears_its_own_texture_and_in_cue_conflict_never():
    own = {}
    for split in ('train', 'cue-conflict'):
        images = DetectionShapes(split, 200, 64)
        shapes = [shape for index in range(200) for shape in images._arrange(index)[0]]
        own[split] = np.mean([shape.texture == shape.target for shape in shapes])
    assert 0.85 < own['train'] < 0.95 and own['cue-conflict'] == 0


def test_an_unknown_split_or_no_image_is_refused():
    with pytest.raises(UsageError, match="shapes has no split 'val'; choose one of: train, validation, cue-conflict"):
        DetectionShapes('val', 3, 64)
    with pytest.raises(UsageError, match='shapes needs at least 1 image, got num_samples 0'):
        DetectionShapes('train', 0, 64)
