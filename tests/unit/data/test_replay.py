import numpy as np
import pytest
import torch
from timm.data import auto_augment, create_transform
from torchvision import transforms

from tests.unit.data.scenes import IMAGE_SIZES, inner, labels_from_colours, paint, random_numbers, scene, seed_all
from timm_repaint.data.replay import COLOUR_OPS, MOVING_OPS, OUTSIDE, Replay
from timm_repaint.data.stored import Masked, WithStoredMask
from timm_repaint.errors import UsageError


def agreement(transform, stored_scale: int, margin: int, seeds: range) -> float:
    """Share of pixels away from borders whose replayed label is that of the colour they have."""
    equal, total = 0, 0
    with_mask = WithStoredMask(transform, 'semantic')
    for seed in seeds:
        labels = scene(*IMAGE_SIZES[seed % len(IMAGE_SIZES)], seed)
        stored = labels[stored_scale // 2 :: stored_scale, stored_scale // 2 :: stored_scale]
        seed_all(seed)
        result = with_mask(Masked(paint(labels), stored.astype(np.uint16))).numpy()
        expected = labels_from_colours(result[:3])
        away = inner(expected, margin)
        equal += (result[3] == expected)[away].sum()
        total += away.sum()
    assert total > 1000 * len(seeds)  # most of the picture counts
    return equal / total


MODES = {
    'rrc': {},
    'rrc, large crops': {'scale': (0.5, 1.0), 'ratio': (0.6, 1.6)},
    'rkrc': {'train_crop_mode': 'rkrc'},
    'rkrr': {'train_crop_mode': 'rkrr'},
    'rkrr, smaller and larger': {'train_crop_mode': 'rkrr', 'scale': (0.4, 2.0), 'ratio': (0.7, 1.4)},
    'no-aug': {'no_aug': True},
    'always flipped': {'hflip': 1.0, 'vflip': 1.0},
    'sometimes flipped': {'hflip': 0.5, 'vflip': 0.5, 'interpolation': 'random'},
}


@pytest.mark.parametrize('size', [96, (64, 128)], ids=['square', 'not square'])
@pytest.mark.parametrize('mode', MODES.values(), ids=MODES)
def test_mask_and_image_agree_in_every_crop_mode(mode, size):
    transform = create_transform(size, is_training=True, color_jitter=None, use_prefetcher=True, **mode)
    assert agreement(transform, stored_scale=1, margin=3, seeds=range(12)) >= 0.99


def test_a_mask_stored_at_half_the_size_agrees_too():
    transform = create_transform(96, is_training=True, color_jitter=None, use_prefetcher=True, scale=(0.5, 1.0))
    assert agreement(transform, stored_scale=2, margin=4, seeds=range(12)) >= 0.99


@pytest.mark.parametrize('interpolation', ['bilinear', 'random'])
@pytest.mark.parametrize('name', sorted(MOVING_OPS))
def test_mask_and_image_agree_under_each_moving_operation(name, interpolation):
    transform = create_transform(
        (96, 112), is_training=True, color_jitter=None, use_prefetcher=True, auto_augment='rand-m9-mstd0.5',
        interpolation=interpolation, scale=(0.5, 1.0),
    )  # fmt: skip
    randaugment = transform.transforms[-2]
    hparams = randaugment.ops[0].hparams
    randaugment.ops = [auto_augment.AugmentOp(name, prob=1.0, magnitude=9, hparams=hparams)]
    assert agreement(transform, stored_scale=1, margin=4, seeds=range(6)) >= 0.99


def test_mask_and_image_agree_under_randaugment_with_colours_that_can_still_be_told():
    transform = create_transform(
        96,
        is_training=True,
        color_jitter=None,
        use_prefetcher=True,
        auto_augment='rand-m9-n3-mstd0.5',
        scale=(0.5, 1.0),
    )
    randaugment = transform.transforms[-2]
    randaugment.ops = [op for op in randaugment.ops if op.name in MOVING_OPS | {'AutoContrast', 'Sharpness'}]
    assert agreement(transform, stored_scale=1, margin=5, seeds=range(24)) >= 0.99


POLICIES = ['rand-m9-mstd0.5-inc1', 'rand-m7-n4-mstd101', 'rand-m9-tweights', 'rand-m9-n1-t3aw', 'v0', 'v0r-mstd0.5']
POLICIES += ['original', 'originalr', '3a', 'augmix-m5-w4', 'augmix-m3-d2', 'augmix-m5-b1']


class Watched(Replay):
    """Keeps the numbers that would come next after the label map's way through the transform."""

    def _set_random_state(self, state):
        self.after_mask = random_numbers()
        super()._set_random_state(state)


@pytest.mark.parametrize('policy', POLICIES)
def test_image_and_mask_draw_the_same_numbers_under_every_policy(policy):
    transform = create_transform(
        64, is_training=True, color_jitter=None, auto_augment=policy, vflip=0.5, interpolation='random'
    )
    replay = Watched(transform)
    labels = scene(90, 120, 0)
    for seed in range(40):
        seed_all(seed)
        replay(paint(labels), labels)
        assert random_numbers() == replay.after_mask


@pytest.mark.parametrize('policy', [None, 'rand-m9-mstd0.5-inc1', 'augmix-m5', '3a'])
def test_a_run_with_stored_masks_sees_the_same_images_as_one_without(policy):
    transform = create_transform(
        64, is_training=True, auto_augment=policy, use_prefetcher=True, color_jitter_prob=0.5, grayscale_prob=0.3,
        gaussian_blur_prob=0.3,
    )  # fmt: skip
    with_mask = WithStoredMask(transform, 'segment')
    labels = scene(90, 120, 1)
    picture = paint(labels)
    seed_all(5)
    plain = [transform(picture) for _ in range(20)]
    next_numbers = random_numbers()
    seed_all(5)
    masked = [with_mask(Masked(picture, labels)) for _ in range(20)]
    assert random_numbers() == next_numbers
    for one, other in zip(plain, masked, strict=True):
        assert torch.equal(one, other[:3])


def test_every_operation_of_timms_policies_is_known_to_move_pixels_or_not():
    assert set(auto_augment.NAME_TO_OP) == MOVING_OPS | COLOUR_OPS
    assert not MOVING_OPS & COLOUR_OPS


def test_labels_follow_the_copy_that_shows_most_in_augmix():
    transform = create_transform(64, is_training=True, no_aug=True, use_prefetcher=True)
    flip_like = auto_augment.AugmentOp('TranslateX', prob=1.0, magnitude=10, hparams={'translate_const': 32})
    augmix = auto_augment.AugMixAugment([flip_like], width=1, depth=1)
    transform.transforms.insert(2, augmix)
    labels = np.repeat([[1] * 32 + [2] * 32], 64, axis=0)
    unmoved = 0
    for seed in range(20):
        seed_all(seed)
        np.random.dirichlet([1.0])
        mixed = np.random.beta(1.0, 1.0)
        seed_all(seed)
        _, moved = Replay(transform)(paint(labels), labels)
        stayed = (moved == labels + 1).all()
        unmoved += stayed
        assert stayed == (mixed <= 0.5)  # one copy: it shows as much as the image at a half
        assert stayed or (moved == OUTSIDE).mean() == 0.5
    assert 5 < unmoved < 15


class Swirl:
    def __call__(self, picture):
        return picture


@pytest.mark.parametrize(
    ('steps', 'name'),
    [
        ([Swirl()], 'Swirl'),
        ([transforms.RandomRotation(10)], 'RandomRotation'),
        ([transforms.Resize(8), Swirl()], 'Swirl'),
        ([transforms.Resize(8), transforms.ColorJitter(), transforms.CenterCrop(4)], 'CenterCrop after ColorJitter'),
        ([transforms.Resize(8), transforms.RandomApply([Swirl()])], 'RandomApply'),
    ],
)
def test_a_transform_whose_effect_on_masks_is_not_known_is_refused_by_name(steps, name):
    with pytest.raises(UsageError, match=f'stored masks cannot follow the transform {name}; leave it out'):
        Replay(transforms.Compose(steps))
