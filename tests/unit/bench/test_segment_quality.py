"""Measures of segments, on maps worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from bench import segment_quality
from bench.segment_quality import boundary_recall, explained, specks, undersegmentation


def halves(at: int, side: int = 20) -> np.ndarray:
    return np.repeat([[0] * at + [1] * (side - at)], side, axis=0)


@pytest.mark.parametrize(('at', 'recall'), [(10, 1.0), (12, 1.0), (13, 0.0)])
def test_a_boundary_is_found_two_pixels_away(at, recall):
    assert boundary_recall(halves(at), halves(10)) == recall


def test_pixels_of_unknown_objects_do_not_count():
    truth = halves(10)
    truth[:, :10] = 255
    assert boundary_recall(halves(10), truth) == 0.0  # there is no boundary between known objects
    assert undersegmentation(halves(12), truth) == 0.0


def test_undersegmentation_is_the_share_on_the_smaller_side():
    assert undersegmentation(halves(10), halves(10)) == 0.0
    # Two columns of 20 belong to the other object: on both sides of the boundary they are the smaller part
    assert undersegmentation(halves(12), halves(10)) == pytest.approx(2 * 2 / 20)


def test_means_explain_all_of_two_plain_halves_and_nothing_without_segments():
    image_u8 = np.repeat(halves(10)[..., None] * 200, 3, axis=2).astype(np.uint8)
    assert explained(halves(10), image_u8) == pytest.approx(1.0)
    assert explained(np.zeros((20, 20), int), image_u8) == pytest.approx(0.0)


def test_specks_are_small_segments_and_small_pieces_of_large_ones():
    labels = halves(10)
    labels[0, 0] = 2  # a segment of one pixel
    labels[15, 15] = 0  # a piece of one pixel
    assert specks(labels) == (1, 2)


def test_the_tables_and_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(segment_quality, 'SIDE_PX', 32)
    image_u8 = np.repeat(halves(16, 32)[..., None] * 200, 3, axis=2).astype(np.uint8)
    for folder in ('coco/val2017', 'coco/stuffthingmaps/val2017', 'few'):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ('coco/val2017', 'few'):
        Image.fromarray(image_u8).save(tmp_path / folder / '1.png')
    Image.fromarray(halves(16, 32).astype(np.uint8)).save(tmp_path / 'coco/stuffthingmaps/val2017/1.png')
    picture = tmp_path / 'picture.png'
    monkeypatch.setattr('sys.argv', ['', str(tmp_path / 'coco'), str(tmp_path / 'few'), '--picture', str(picture)])
    segment_quality.main()
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith('| superpixels') and '(2 to 2)' in line][:1]
    assert [cell.strip() for cell in line.split('|')[2:4]] == ['100.0', '0.0']
    assert Image.open(picture).width == segment_quality.PICTURE_SIDE_PX
