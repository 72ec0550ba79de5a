"""Image files below a folder, and pixels of more than 8 bits."""

import os

import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets

from timm_repaint.errors import UsageError
from timm_repaint.pictures import convert_picture, find_pictures, read_picture, walk


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_images_are_found_in_timms_order_whatever_their_endings_case(tmp_path):
    make(tmp_path, 'b/10.PNG', 'b/9.jpg', 'B/1.jpeg', 'a/x.JPG', 'a/notes.txt', 'a/c.webp', '2.png', '10.png', '.png')
    found, _ = find_images_and_targets(str(tmp_path))
    assert [str(tmp_path / name) for name in find_pictures(tmp_path)] == [path for path, _ in found]


def test_digits_that_are_no_numbers_stop_nothing(tmp_path):
    assert set(find_pictures(make(tmp_path, '3²4.png', '3.png'))) == {'3²4.png', '3.png'}


def test_hidden_folders_are_left_out_and_links_followed(tmp_path):
    make(tmp_path / 'store', 'ant/1.png')
    make(tmp_path / 'data', '.cache/x.png', 'bee/.thumbs/y.png', 'bee/2.png', 'bee/._2.png').joinpath('ant').symlink_to(
        '../store/ant'
    )
    assert find_pictures(tmp_path / 'data') == ['ant/1.png', 'bee/2.png']


def test_a_link_to_a_folder_above_is_named_and_two_links_to_one_folder_are_right(tmp_path):
    make(tmp_path / 'data', 'ant/1.png')
    (tmp_path / 'data/bee').symlink_to('ant')
    assert find_pictures(tmp_path / 'data') == ['ant/1.png', 'bee/1.png']
    (tmp_path / 'data/ant/up').symlink_to('..')
    with pytest.raises(UsageError, match=r'data/ant/up leads back to .*data, which is above it: remove the link'):
        list(walk(tmp_path / 'data'))


def test_a_pipe_that_nobody_fills_is_named_and_a_link_to_nowhere_is_a_file(tmp_path):
    make(tmp_path, 'a.png').joinpath('b.png').symlink_to('gone.png')
    assert find_pictures(tmp_path) == ['a.png', 'b.png']
    os.mkfifo(tmp_path / 'c.png')
    with pytest.raises(UsageError, match=r'c\.png is no file but a pipe'):
        find_pictures(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'cannot read the folder .*gone: No such file'):
        find_pictures(tmp_path / 'gone')


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 1, 255]], np.uint16), [0, 1, 255]),
        (np.array([[-5, 255 * 9, 65535]], np.int32), [0, 9, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[0, 7, 200]], np.uint8), [0, 7, 200]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[-3, 9, 200]], np.float32), [0, 9, 200]),
        (np.array([[np.nan, 257, 65535]], np.float32), [0, 1, 255]),
    ],
)
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_grey_values_of_more_than_8_bits_are_scaled_and_others_kept(values, expected, mode):
    picture = convert_picture(Image.fromarray(values), mode)
    assert picture.mode == mode
    assert np.asarray(picture.convert('L'))[0].tolist() == expected


def test_an_image_stays_as_it_is_without_a_mode_or_in_its_own(tmp_path):
    Image.fromarray(np.full((2, 2), 999, np.uint16)).save(tmp_path / 'a.png')
    with Image.open(tmp_path / 'a.png') as picture:
        for mode in (None, picture.mode):  # 'I;16', before Pillow 10 'I'
            assert convert_picture(picture, mode).getpixel((0, 0)) == 999
    assert read_picture(tmp_path / 'a.png').getpixel((0, 0)) == (4, 4, 4)
