"""What is counted as found, and boxes in galleries."""

import numpy as np
import torch

from timm_repaint.detection.detection_watch import BOX_COLOUR, draw_boxes, found_objects

OBJECTS = torch.tensor([[10.0, 10, 30, 30, 1], [50.0, 50, 90, 90, 2]])  # y0, x0, y1, x1, class


def found(*detections):
    """Which objects the detections (x0, y0, x1, y1, score, class) find."""
    return found_objects(OBJECTS, torch.tensor(detections, dtype=torch.float32).view(-1, 6)).tolist()


def test_an_object_is_found_by_the_surest_detection_that_overlaps_it():
    right, wrong = (10, 10, 30, 30, 0.5, 1), (11, 11, 30, 30, 0.9, 3)
    assert found(right) == [True, False]
    assert found(wrong, right) == [False, False]
    assert found((10, 10, 30, 30, 0.9, 1), (11, 11, 30, 30, 0.5, 3)) == [True, False]
    assert found(right, (50, 50, 90, 90, 0.4, 2)) == [True, True]


def test_a_detection_elsewhere_or_of_no_class_finds_nothing():
    assert found() == [False, False]
    assert found((10, 10, 30, 20, 0.9, 1)) == [True, False]  # overlap 0.5
    assert found((10, 10, 30, 19, 0.9, 1)) == [False, False]
    assert found((10, 10, 30, 30, 0.0, 0)) == [False, False]


def test_boxes_are_drawn_where_they_are_and_the_image_stays_as_it_was():
    image_u8 = np.zeros((64, 64, 3), dtype=np.uint8)
    drawn = draw_boxes(image_u8, torch.tensor([[8.0, 4, 40, 60, 1]]))
    rows, columns = np.nonzero((drawn == BOX_COLOUR).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 40, 4, 60)
    assert (drawn[9:39, 5:59] == 0).all() and (image_u8 == 0).all()
    assert (draw_boxes(image_u8, torch.zeros(0, 5)) == 0).all()
