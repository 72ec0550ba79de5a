import numpy as np
import pytest
from PIL import Image

from timm_repaint.errors import UsageError
from timm_repaint.monitor.gallery import colorize_labels, save_gallery


def plain(colour: tuple[int, int, int], height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_the_first_thousand_labels_have_distinct_colours():
    colours = colorize_labels(np.arange(1000).reshape(20, 50)).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == 1000


def test_neighbouring_labels_differ_clearly():
    colours = colorize_labels(np.arange(255)[None])[0].astype(int)
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() >= 60


def test_only_label_255_is_grey():
    colours = colorize_labels(np.arange(65536).reshape(256, 256)).reshape(-1, 3).astype(int)
    assert colours[255].tolist() == [128, 128, 128]
    spread = colours.max(axis=1) - colours.min(axis=1)
    assert np.flatnonzero(spread < 30).tolist() == [255]


def test_a_label_keeps_its_colour_in_every_map_and_dtype():
    first = colorize_labels(np.array([[3, 700]], np.uint16))
    second = colorize_labels(np.array([[700], [3]], np.int64))
    np.testing.assert_array_equal(first[0], second[::-1, 0])


def test_rows_are_original_mask_and_repaints_and_columns_are_images(tmp_path):
    originals = [plain((255, 0, 0)), plain((0, 255, 0))]
    labels = [np.full((32, 32), 5), np.full((32, 32), 6)]
    repaints = [[plain((0, 0, 255)), plain((9, 9, 9))], [plain((80, 0, 80)), plain((1, 99, 1))]]
    save_gallery(tmp_path / 'new' / 'gallery.png', originals, labels, repaints)
    sheet = np.asarray(Image.open(tmp_path / 'new' / 'gallery.png'))
    assert sheet.shape == (4 * 100 + 4, 72 + 2 * 100 + 4, 3)  # cells of 96 px, 4 px apart, captions of 72 px
    rows, columns = [4 + 100 * row + 48 for row in range(4)], [72 + 4 + 100 * column + 48 for column in range(2)]
    found = [[sheet[row, column].tolist() for column in columns] for row in rows]
    masks = [colorize_labels(label_map)[0, 0].tolist() for label_map in labels]
    assert found == [[[255, 0, 0], [0, 255, 0]], masks, [[0, 0, 255], [9, 9, 9]], [[80, 0, 80], [1, 99, 1]]]


def test_every_row_has_a_caption_at_the_left(tmp_path):
    white = plain((255, 255, 255))
    save_gallery(tmp_path / 'gallery.png', [white], [np.zeros((32, 32), int)], [[white]] * 2)
    captions = np.asarray(Image.open(tmp_path / 'gallery.png').convert('L'))[:, :72]
    ink = [int((captions[4 + 100 * row : 100 + 100 * row] < 128).sum()) for row in range(4)]
    assert min(ink) > 20
    assert ink[0] != ink[1] != ink[2]


def test_small_images_are_enlarged_with_their_pixels_kept(tmp_path):
    image_u8 = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    save_gallery(tmp_path / 'gallery.png', [image_u8], [np.zeros((40, 50), int)], [])
    sheet = np.asarray(Image.open(tmp_path / 'gallery.png'))
    np.testing.assert_array_equal(sheet[4 : 4 + 120, 76 : 76 + 150], image_u8.repeat(3, 0).repeat(3, 1))


def test_large_images_keep_their_size(tmp_path):
    save_gallery(tmp_path / 'gallery.png', plain((1, 2, 3), 224, 224)[None], np.zeros((1, 224, 224), int), [])
    assert Image.open(tmp_path / 'gallery.png').size == (72 + 228 + 4, 2 * 228 + 4)


def test_a_gallery_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / 'gallery.png'
    path.write_bytes(b'old')
    save_gallery(str(path), [plain((7, 8, 9))], [np.zeros((32, 32), int)], [])
    assert np.asarray(Image.open(path))[50, 120].tolist() == [7, 8, 9]
    assert [file.name for file in tmp_path.iterdir()] == ['gallery.png']


def test_a_failed_write_keeps_the_old_gallery(tmp_path):
    path = tmp_path / 'gallery.png'
    path.mkdir()  # a folder in the way: the move fails after the file was written
    with pytest.raises(UsageError, match='Is a directory'):
        save_gallery(path, [plain((7, 8, 9))], [np.zeros((32, 32), int)], [])
    assert [file.name for file in tmp_path.iterdir()] == ['gallery.png']
