import pickle
import time

import numpy as np
import pytest
import torch

from timm_repaint.data.shapes import (
    AREA_SHARE,
    CLASSES,
    OUTLINES,
    TEXTURES,
    ShapesDataset,
    draw_outline,
    draw_texture,
    place_outline,
)

SPLITS = ('train', 'validation', 'cue-conflict')


def pixels(dataset: ShapesDataset, index: int) -> np.ndarray:
    return np.asarray(dataset[index][0])


def area(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_default_splits_have_2000_500_and_500_images():
    assert [len(ShapesDataset(split)) for split in SPLITS] == [2000, 500, 500]


def test_images_are_rgb_of_the_asked_size_and_the_target_is_the_shape():
    dataset = ShapesDataset(image_size=40)
    image, target = dataset[13]
    assert (image.mode, image.size, target, CLASSES[target]) == ('RGB', (40, 40), 3, 'star')


@pytest.mark.parametrize('split', SPLITS)
def test_classes_are_balanced(split):
    dataset = ShapesDataset(split)
    assert np.bincount([dataset.target(index) for index in range(len(dataset))]).tolist() == [len(dataset) // 10] * 10


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_a_shape_wears_its_own_texture_nine_times_out_of_ten(split):
    dataset = ShapesDataset(split, num_samples=3000)
    own = np.mean([dataset.texture_label(index) == dataset.target(index) for index in range(3000)])
    assert 0.88 < own < 0.92  # binomial standard deviation: 0.0055


def test_a_cue_conflict_shape_wears_each_foreign_texture_and_never_its_own():
    dataset = ShapesDataset('cue-conflict', num_samples=3000)
    counts = np.zeros((10, 10), int)
    for index in range(3000):
        counts[dataset.target(index), dataset.texture_label(index)] += 1
    assert np.diag(counts).tolist() == [0] * 10
    assert (counts + 100 * np.eye(10)).min() > 10  # 33 expected in each cell


def test_the_background_wears_neither_the_shape_s_texture_nor_the_class_s_own():
    for split in SPLITS:
        dataset = ShapesDataset(split, num_samples=300)
        for index in range(300):
            texture, background, _ = dataset._choose_textures(index)
            assert background not in (texture, dataset.target(index))


def test_the_same_split_seed_and_index_give_the_same_image():
    first, second = ShapesDataset('train', num_samples=20), pickle.loads(pickle.dumps(ShapesDataset('train')))
    order = [7, 3, 19]
    expected = {index: pixels(first, index) for index in order}
    for index in reversed(order):
        np.testing.assert_array_equal(pixels(second, index), expected[index])


def test_loader_workers_and_global_seeds_do_not_change_the_images():
    dataset = ShapesDataset('validation', num_samples=8)
    expected = [pixels(dataset, index) for index in range(8)]
    np.random.seed(1)
    torch.manual_seed(1)
    dataset.transform = np.asarray
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2)
    np.testing.assert_array_equal(torch.cat([images for images, _ in loader]).numpy(), np.stack(expected))


def test_no_image_appears_twice_within_or_across_splits_or_seeds():
    datasets = [ShapesDataset(split, num_samples=200) for split in SPLITS] + [ShapesDataset(num_samples=200, seed=1)]
    seen = {pixels(dataset, index).tobytes() for dataset in datasets for index in range(200)}
    assert len(seen) == 800


def test_all_outlines_have_area_1_and_are_centred():
    assert tuple(OUTLINES) == CLASSES
    for corners in OUTLINES.values():
        assert area(corners) == pytest.approx(1)
        np.testing.assert_allclose(corners.min(axis=0) + corners.max(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize('name', CLASSES)
def test_a_drawn_outline_covers_its_area_and_has_soft_edges(name):
    slanted = OUTLINES[name] @ np.array([[0.8, 0.6], [-0.6, 0.8]])  # upright edges may fall between pixels
    coverage = draw_outline(0.5 + 0.5 * slanted, image_size=64)
    assert coverage.mean() == pytest.approx(0.25, abs=0.02)
    assert ((coverage > 0.2) & (coverage < 0.8)).sum() >= 16


def test_the_ring_has_a_hole_and_the_circle_has_none():
    centre = {name: draw_outline(0.5 + 0.5 * OUTLINES[name], 64)[32, 32] for name in ('ring', 'circle')}
    assert centre == {'ring': 0.0, 'circle': 1.0}


@pytest.mark.parametrize('name', CLASSES)
def test_placed_shapes_stay_inside_the_picture(name):
    for seed in range(50):
        corners = place_outline(OUTLINES[name], AREA_SHARE, np.random.default_rng(seed))
        assert corners.min() >= 0
        assert corners.max() <= 1
        assert 0.12 < area(corners) < 0.34 + 1e-9


def nearest_texture(sample: np.ndarray, references: list[np.ndarray]) -> int:
    return int(np.argmin([np.abs(sample - reference).sum() for reference in references]))


def test_textures_are_told_apart_by_their_colours_and_edges_alone():
    def describe(picture: np.ndarray) -> np.ndarray:
        across, down = np.abs(np.diff(picture, axis=1)).mean(), np.abs(np.diff(picture, axis=0)).mean()
        return np.array([*picture.mean((0, 1)), *np.percentile(picture, [10, 90], axis=(0, 1)).ravel(), across, down])

    draws = [
        [describe(draw_texture(texture, 64, np.random.default_rng(seed))) for seed in range(20)] for texture in TEXTURES
    ]
    references = [np.mean(samples[:10], axis=0) for samples in draws]
    hits = [nearest_texture(sample, references) == k for k, samples in enumerate(draws) for sample in samples[10:]]
    assert np.mean(hits) > 0.8  # chance: 0.1


@pytest.mark.parametrize('size', [16, 33, 64])
@pytest.mark.parametrize('texture', TEXTURES, ids=lambda texture: texture.name)
def test_textures_fill_any_size_with_variation(texture, size):
    picture = draw_texture(texture, size, np.random.default_rng(0))
    assert picture.shape == (size, size, 3)
    assert picture.std(axis=(0, 1)).min() > 4


@pytest.mark.parametrize('split', SPLITS)
def test_the_outline_is_where_the_shape_s_texture_is(split):
    dataset = ShapesDataset(split, 30)
    for index in range(30):
        outline = dataset.outline(index)
        assert outline.shape == (64, 64) and outline.dtype == np.uint8 and set(np.unique(outline)) == {0, 1}
        assert AREA_SHARE[0] - 0.02 < outline.mean() < AREA_SHARE[1] + 0.02
        texture = TEXTURES[dataset.texture_label(index)]
        colours = np.array([texture.first_rgb, texture.second_rgb])
        # Pixels near one of the texture's two colours lie inside rather than outside.
        distance = np.abs(pixels(dataset, index)[:, :, None].astype(float) - colours).max(axis=3).min(axis=2)
        assert distance[outline == 1].mean() < distance[outline == 0].mean()


def test_transforms_are_applied_to_image_and_target():
    dataset = ShapesDataset()
    dataset.transform = lambda image: image.size
    dataset.target_transform = lambda target: -target
    assert dataset[4] == ((64, 64), -4)


def test_what_is_done_to_an_image_does_not_reach_the_kept_one(monkeypatch):
    dataset = ShapesDataset('train', 3, image_size=32)
    before = [pixels(dataset, index).copy() for index in range(3)]
    for index in range(3):
        dataset[index][0].paste((0, 0, 0), (0, 0, 32, 32))
        np.testing.assert_array_equal(pixels(dataset, index), before[index])
    monkeypatch.setattr('timm_repaint.data.shapes.KEPT_PIXELS', 2 * 32 * 32)
    short = ShapesDataset('train', 3, image_size=32)  # the third image finds no room
    for index in (0, 1, 2, 2, 0):
        np.testing.assert_array_equal(pixels(short, index), before[index])
    assert len(short._drawn) == 2


def test_drawing_takes_few_milliseconds_an_image():
    dataset = ShapesDataset()
    dataset[0]
    start = time.process_time()
    for index in range(50):
        dataset[index]
    assert (time.process_time() - start) / 50 < 0.01  # about 1.4 ms on an idle core


def test_iterating_ends_after_the_last_image():
    assert [target for _, target in ShapesDataset(num_samples=12)] == [*range(10), 0, 1]


@pytest.mark.parametrize('index', [-1, 12])
def test_an_index_outside_the_split_is_an_index_error(index):
    with pytest.raises(IndexError, match=f'image {index} of 12'):
        ShapesDataset(num_samples=12).texture_label(index)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'split': 'test'}, "no split 'test'; choose one of: train, validation, cue-conflict"),
        ({'num_samples': 0}, 'at least 1 image, got num_samples 0'),
        ({'image_size': 15}, 'image_size 16 or more, got 15'),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShapesDataset(**arguments)
