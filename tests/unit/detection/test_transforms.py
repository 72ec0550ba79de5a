"""Image, mask and boxes move together: from the image that comes out, its mask and boxes can be computed again."""

import numpy as np
import pytest
import torch
from PIL import Image

from timm_repaint.detection.transforms import Augmentation, eval_transform, fit_scale, move, train_transform

MEAN = (0.485, 0.456, 0.406)
COLOURS = np.array([(250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20)])
OBJECTS = ((10, 20, 90, 70), (100, 15, 126, 100), (30, 80, 85, 118))  # x0, y0, x1, y1


def scene(height=120, width=160):
    """A picture of four flat colours, its label map + 1, its boxes and classes."""
    labels = np.zeros((height, width), dtype=np.uint8)
    for number, (left, top, right, bottom) in enumerate(OBJECTS, start=1):
        labels[top:bottom, left:right] = number
    picture = Image.fromarray(COLOURS[labels].astype(np.uint8))
    return picture, np.array(OBJECTS, dtype=np.float32), np.arange(1, 4), labels + 1


def labels_from_pixels(image):
    """The label + 1 whose colour is nearest; 0 for the colour outside the image."""
    colours = torch.from_numpy(np.vstack([[round(255 * value) for value in MEAN], COLOURS])).float()
    distances = torch.cdist(image.permute(1, 2, 0).reshape(-1, 3).float(), colours)
    return distances.argmin(dim=1).view(image.shape[1:]).numpy()


def away_from_borders(labels, margin=2):
    """Where all labels in a square of 2 * margin + 1 pixels are the same."""
    shifted = [np.roll(labels, (y, x), (0, 1)) for y in range(-margin, margin + 1) for x in range(-margin, margin + 1)]
    inner = np.all(np.stack(shifted) == labels, axis=0)
    inner[:margin] = inner[-margin:] = False
    inner[:, :margin] = inner[:, -margin:] = False
    return inner


TRANSFORMS = {
    'augmented': train_transform(128, MEAN, Augmentation(vflip=0.5)),
    'smaller': train_transform(128, MEAN, Augmentation((0.3, 0.6))),
    'larger': train_transform(128, MEAN, Augmentation((1.5, 3.0), hflip=1.0)),
    'plain': eval_transform(128, MEAN),
}


@pytest.mark.parametrize('name', TRANSFORMS)
@pytest.mark.parametrize('size_hw', [(120, 160), (200, 150), (130, 130)])
def test_mask_and_boxes_are_those_of_the_image_that_comes_out(name, size_hw):
    picture, boxes, classes, labels = scene(*size_hw)
    seen = 0
    for seed in range(40):
        torch.manual_seed(seed)
        moved = move(TRANSFORMS[name], picture, boxes, classes, labels)
        expected = labels_from_pixels(moved.image)
        inner = away_from_borders(expected)
        agreement = (moved.labels == expected)[inner]
        assert moved.labels.dtype == labels.dtype and moved.image.shape == (3, 128, 128)
        assert inner.sum() > 1000 and agreement.mean() >= 0.99
        for (left, top, right, bottom), number in zip(moved.boxes.tolist(), moved.classes.tolist(), strict=True):
            rows, columns = np.nonzero(moved.labels == number + 1)
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
            if right - left < 3 or bottom - top < 3:  # of a sliver no pixel need be left
                continue
            assert np.abs(np.subtract(found, (left, top, right, bottom))).max() <= 1.1, (seed, number)
            seen += 1
    assert seen > 20


def test_an_image_that_is_narrower_than_a_pixel_after_the_jitter_keeps_one():
    picture = Image.new('RGB', (900, 50), 'red')
    labels = np.ones((50, 900), dtype=np.uint8)
    small = train_transform(128, MEAN, Augmentation((0.02, 0.1)))
    for seed in range(10):
        torch.manual_seed(seed)
        moved = move(small, picture, np.array([[0, 0, 900, 50]], np.float32), np.array([1]), labels)
        assert moved.image.shape == (3, 128, 128) and moved.labels.any()


def test_a_flipped_image_has_flipped_boxes_to_the_pixel():
    picture, boxes, classes, labels = scene(128, 128)
    moved = move(train_transform(128, MEAN, Augmentation((1, 1), 1.0, 1.0)), picture, boxes, classes, labels)
    expected = np.stack([128 - boxes[:, 2], 128 - boxes[:, 3], 128 - boxes[:, 0], 128 - boxes[:, 1]], axis=1)
    assert np.allclose(moved.boxes.numpy(), expected)
    assert np.array_equal(moved.labels, labels[::-1, ::-1])
    assert np.array_equal(moved.image.permute(1, 2, 0).numpy(), np.asarray(picture)[::-1, ::-1])


def test_validation_puts_the_image_into_the_upper_left_corner():
    picture, boxes, classes, _ = scene(120, 160)
    scale, new_hw = fit_scale((120, 160), 128)
    assert (scale, new_hw) == (0.8, (96, 128))
    moved = move(eval_transform(128, MEAN), picture, boxes, classes, None)
    assert moved.labels is None
    assert np.allclose(moved.boxes.numpy(), boxes * 0.8)
    outside = moved.image[:, 96:].permute(1, 2, 0).reshape(-1, 3)
    assert (outside == torch.tensor([round(255 * value) for value in MEAN])).all()


def test_objects_that_a_crop_leaves_out_are_dropped_with_their_classes():
    picture, boxes, classes, labels = scene()
    torch.manual_seed(0)
    counts = set()
    for _ in range(30):
        moved = move(train_transform(128, MEAN, Augmentation((8, 8))), picture, boxes, classes, labels)
        visible = {number for number in (1, 2, 3) if (moved.labels == number + 1).any(axis=0).sum() > 2}
        assert len(moved.boxes) == len(moved.classes) and visible == {*moved.classes.tolist()} & visible
        counts.add(len(moved.classes))
    assert {0, 1} <= counts


def test_colour_jitter_changes_pixels_only():
    picture, boxes, classes, labels = scene(128, 128)
    torch.manual_seed(1)
    moved = move(
        train_transform(128, MEAN, Augmentation((1, 1), hflip=0, color_jitter=0.4)), picture, boxes, classes, labels
    )
    assert np.array_equal(moved.labels, labels) and np.allclose(moved.boxes.numpy(), boxes)
    assert not np.array_equal(moved.image.permute(1, 2, 0).numpy(), np.asarray(picture))


def test_an_image_without_boxes_stays_one():
    picture, _, _, labels = scene()
    none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    for transform in TRANSFORMS.values():
        moved = move(transform, picture, *none, labels)
        assert moved.boxes.shape == (0, 4) and moved.classes.shape == (0,)


def test_a_label_map_of_as_many_rows_as_there_are_boxes_stays_whole():
    picture, _, _, labels = scene(128, 128)
    boxes = np.tile(np.array([[10, 20, 90, 70]], dtype=np.float32), (128, 1))
    boxes[5] = (10, 20, 10, 20)  # nothing is left of it
    moved = move(eval_transform(128, MEAN), picture, boxes, np.ones(128, dtype=np.int64), labels)
    assert len(moved.boxes) == len(moved.classes) == 127
    assert np.array_equal(moved.labels, labels)
