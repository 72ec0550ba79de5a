import argparse
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from timm_repaint.errors import UsageError
from timm_repaint.masks.choice import MASK_SOURCES, MaskOptions, create_mask_source
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks, has_opencv

needs_opencv = pytest.mark.skipif(not has_opencv(), reason="OpenCV with ximgproc is missing: pip install '.[fast]'")


@pytest.fixture(params=['skimage', pytest.param('opencv', marks=needs_opencv)])
def backend(request):
    return request.param


def two_halves(height: int = 32, width: int = 32) -> np.ndarray:
    image_u8 = np.zeros((height, width, 3), np.uint8)
    image_u8[:, width // 2 :] = (250, 40, 40)
    return image_u8


def photographs(folder, pattern: str, side_px: int) -> list[np.ndarray]:
    images_u8 = []
    for path in sorted(folder.glob(pattern))[:12]:
        picture = Image.open(path).convert('RGB')
        scale = side_px / min(picture.size)
        size = (max(side_px, round(picture.width * scale)), max(side_px, round(picture.height * scale)))
        images_u8.append(np.asarray(picture.resize(size, Image.Resampling.BICUBIC))[:side_px, :side_px])
    return images_u8


def test_two_plain_halves_are_two_segments_with_the_edge_between_them(backend):
    labels = FelzenszwalbMasks(sigma=0.0, backend=backend)(two_halves())
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, np.repeat([[0] * 16 + [1] * 16], 32, axis=0) ^ labels[0, 0])


def test_ids_are_contiguous_from_zero(backend):
    image_u8 = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    labels = FelzenszwalbMasks(backend=backend)(image_u8)
    assert labels.shape == (48, 40)
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_no_segment_is_smaller_than_min_size(backend):
    image_u8 = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    labels = FelzenszwalbMasks(scale=1, min_size=25, backend=backend)(image_u8)
    assert np.bincount(labels.ravel()).min() >= 25


def test_more_than_255_segments_keep_their_own_ids(backend):
    image_u8 = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    labels = FelzenszwalbMasks(scale=0.01, sigma=0, min_size=1, backend=backend)(image_u8)
    assert len(np.unique(labels)) == labels.max() + 1 == 1600  # no two neighbours of the noise are alike


def test_more_segments_than_a_label_map_holds_are_refused(backend):
    image_u8 = np.random.default_rng(3).integers(0, 256, (260, 260, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match='a label map holds 65536; raise fh scale or fh min size'):
        FelzenszwalbMasks(scale=0.01, sigma=0, min_size=1, backend=backend)(image_u8)


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (2, 3), (33, 57)])
def test_a_plain_image_of_any_size_is_one_segment(size, backend):
    labels = FelzenszwalbMasks(backend=backend)(np.full((*size, 3), 77, np.uint8))
    np.testing.assert_array_equal(labels, np.zeros(size))


@pytest.mark.parametrize(('side_px', 'expected'), [(1, (1.5625, 1)), (32, (50, 10)), (64, (100, 20)), (224, (350, 70))])
def test_scale_and_min_size_grow_with_the_shorter_side(side_px, expected):
    assert FelzenszwalbMasks().parameters_for(side_px, 3 * side_px) == expected


def test_given_parameters_are_used_at_every_size():
    source = FelzenszwalbMasks(scale=7.0, min_size=3)
    assert source.parameters_for(32, 32) == source.parameters_for(500, 400) == (7.0, 3)


@pytest.mark.parametrize(
    ('pattern', 'side_px'),
    [
        ('cifar10/train/*/0000.jpg', 32),
        ('tiny-imagenet-10/validation/*/*', 64),
        ('imagenet-samples/*/*', 128),
        ('imagenet-samples/*/*', 224),
    ],
)
def test_photographs_of_all_sizes_fall_into_some_dozens_of_segments(shared_data, pattern, side_px, backend):
    source = FelzenszwalbMasks(backend=backend)
    counts = [int(source(image_u8).max()) + 1 for image_u8 in photographs(shared_data, pattern, side_px)]
    assert len(counts) >= 10
    assert 20 <= np.median(counts) <= 60


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'scale': 0}, 'fh scale is 0; it must be above 0'),
        ({'scale': float('nan')}, 'fh scale is nan'),
        ({'sigma': -0.1}, 'fh sigma is -0.1; it must be 0 or above'),
        ({'sigma': 1e30}, r'fh sigma is 1e\+30; it must be 0 or above, at most 100'),
        ({'min_size': 0}, 'fh min size is 0; it must be 1 or above'),
    ],
)
def test_parameters_out_of_range_are_refused_with_the_rule(arguments, message):
    with pytest.raises(ValueError, match=message):
        FelzenszwalbMasks(**arguments)


@pytest.mark.parametrize('image', [np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3))])
def test_other_than_rgb_bytes_are_refused(image):
    with pytest.raises(ValueError, match='FelzenszwalbMasks needs an RGB image'):
        FelzenszwalbMasks()(image)


def test_a_pickled_source_gives_the_same_masks():
    source = FelzenszwalbMasks(scale=20, sigma=0.3, min_size=4)
    image_u8 = np.random.default_rng(4).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))(image_u8), source(image_u8))


def test_the_table_builds_fh_from_its_options():
    args = argparse.Namespace(mask='fh', fh_scale=12.5, fh_sigma=0.2, fh_min_size=6)
    source = create_mask_source(MaskOptions.of(args))
    assert isinstance(source, FelzenszwalbMasks)
    assert (source.scale, source.sigma, source.min_size) == (12.5, 0.2, 6)
    assert (source.kind, source.num_labels) == ('segment', None)


def test_an_unknown_source_name_lists_the_choices():
    with pytest.raises(ValueError, match=rf"mask source 'sam' is unknown; choose one of: {', '.join(MASK_SOURCES)}"):
        create_mask_source(MaskOptions(mask='sam'))


@needs_opencv
def test_both_backends_cut_photographs_into_about_as_many_segments(shared_data):
    images_u8 = photographs(shared_data, 'imagenet-samples/*/*', 128)
    counts = [
        [int(FelzenszwalbMasks(backend=name)(image_u8).max()) + 1 for name in ('opencv', 'skimage')]
        for image_u8 in images_u8
    ]
    assert 0.8 <= np.median([opencv / skimage for opencv, skimage in counts]) <= 1.25


@needs_opencv
def test_auto_takes_opencv_where_it_is_installed():
    assert FelzenszwalbMasks().backend == FelzenszwalbMasks().settings['backend'] == 'opencv'


def test_auto_takes_skimage_where_opencv_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)  # Python's way to say that it cannot be imported
    assert FelzenszwalbMasks().backend == FelzenszwalbMasks().settings['backend'] == 'skimage'


def test_a_missing_opencv_is_said_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(UsageError, match=r"fh backend opencv needs OpenCV .* pip install '\.\[fast\]'"):
        FelzenszwalbMasks(backend='opencv')


def test_an_unknown_backend_lists_the_choices():
    with pytest.raises(ValueError, match="fh backend 'gpu' is unknown; choose one of: auto, skimage, opencv"):
        FelzenszwalbMasks(backend='gpu')
