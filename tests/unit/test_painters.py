import pytest
import torch
import torch.nn.functional as F

from tests.helpers import REPAINT, load_checkpoint, load_repaint, train_here
from timm_repaint.painters import PAINTERS, SHIFTS, SegmentPainter, create_repainter
from timm_repaint.precision import call_cast_once
from timm_repaint.repainter import Repainter
from timm_repaint.saved import load_repainter

AMP = ('--amp', '--amp-dtype', 'bfloat16')


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy images [2, 3, 32, 32], left half dark and right half bright, and their label maps."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[:, :, 16:] = 7
    image_pm1 = torch.where(labels[:, None] == 0, -0.5, 0.5) + 0.1 * torch.randn(2, 3, 32, 32, generator=draws)
    return image_pm1.clamp(-1, 1), labels


def test_mean_paints_each_segment_in_its_own_mean_colour():
    image_pm1, labels = halves()
    repaint_pm1 = SegmentPainter('mean')(image_pm1, labels).image_pm1
    for half in (slice(0, 16), slice(16, 32)):
        expected = image_pm1[..., half].mean(dim=(2, 3), keepdim=True).expand(2, 3, 32, 16)
        torch.testing.assert_close(repaint_pm1[..., half], expected)


def test_jitter_shifts_segments_of_one_image_each_by_its_own_draw_and_stays_in_range():
    image_pm1, labels = halves()
    painter = SegmentPainter('jitter')
    flat = SegmentPainter('mean')(image_pm1, labels).image_pm1
    shifts = torch.stack([(painter(image_pm1, labels).image_pm1 - flat)[:, :, 0, [0, 31]] for _ in range(400)])
    assert shifts.abs().max() > 0.5
    shifts_left, shifts_right = shifts[..., 0].flatten(), shifts[..., 1].flatten()
    assert abs(torch.corrcoef(torch.stack([shifts_left, shifts_right]))[0, 1]) < 0.1
    # Clamping to [-1, 1] cuts one tail of a normal distribution at 0.5 / 0.4 standard deviations and more.
    assert 0.25 < shifts_left.std() < SHIFTS['jitter']
    assert painter(image_pm1, labels).image_pm1.abs().max() <= 1


def test_shift_moves_the_colours_of_whole_segments_and_keeps_what_is_in_them():
    image_pm1, labels = halves()
    image_pm1 = image_pm1 * 0.2  # far from the ends of the range
    torch.manual_seed(0)
    painter = SegmentPainter('shift')
    painter.shift_std = 0.1
    change = painter(image_pm1, labels).image_pm1 - image_pm1
    for half in (change[..., :16], change[..., 16:]):
        torch.testing.assert_close(half, half[:, :, :1, :1].expand_as(half), atol=1e-5, rtol=0)
    assert (change[..., 0, 0] - change[..., 0, 31]).abs().min() > 1e-3
    assert SegmentPainter('shift')(halves()[0], labels).image_pm1.abs().max() <= 1


def test_shift_without_detail_is_jitter_and_with_swapped_detail_is_neither():
    image_pm1, labels = halves()
    painted = {
        (generator, detail): SegmentPainter(generator, None, detail)(
            image_pm1, labels, torch.Generator().manual_seed(3)
        ).image_pm1
        for generator, detail in (('jitter', 'keep'), ('shift', 'none'), ('shift', 'keep'), ('shift', 'swap'))
    }
    assert torch.equal(painted['jitter', 'keep'], painted['shift', 'none'])
    assert not torch.equal(painted['shift', 'keep'], painted['shift', 'swap'])
    assert not torch.equal(painted['shift', 'none'], painted['shift', 'swap'])


def test_a_generator_of_random_numbers_repeats_the_repaint():
    image_pm1, labels = halves()
    one, other = (
        SegmentPainter('jitter')(image_pm1, labels, torch.Generator().manual_seed(3)).image_pm1 for _ in range(2)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('generator', PAINTERS)
def test_autocast_changes_nothing_but_rounding(generator, dtype):
    painter, (image_pm1, labels) = SegmentPainter(generator), halves()
    torch.manual_seed(0)
    wanted = painter(image_pm1, labels).image_pm1
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=dtype):
        found = call_cast_once(painter, image_pm1, labels).image_pm1
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.01)


def test_randconv_answers_a_dot_with_normal_filters_of_its_four_sizes():
    images, at = 400, 16
    image_pm1 = torch.zeros(images, 3, 32, 32)
    image_pm1[:, 0, at, at] = 0.1
    labels = torch.zeros(images, 32, 32, dtype=torch.int64)
    painted = SegmentPainter('randconv')(image_pm1, labels, torch.Generator().manual_seed(0)).image_pm1
    sizes_px = (painted != 0).any(dim=3).any(dim=1).sum(dim=1)
    assert sorted(sizes_px.unique().tolist()) == [1, 3, 5, 7]
    for size_px in (1, 3, 5, 7):
        here = painted[sizes_px == size_px]
        assert 0.18 < len(here) / images < 0.32
        reach = size_px // 2
        answer = here[:, 1:, at - reach : at + reach + 1, at - reach : at + reach + 1]
        # the mean of (1 - share)^2 is 1/3, the filter's variance 1 / (3 k^2)
        assert (answer / 0.1).square().mean() == pytest.approx(1 / 9 / size_px**2, rel=0.3)
        assert answer.mean().abs() < 0.1 * answer.std() * 3


def test_randconv_is_the_image_mixed_with_itself_under_its_own_filter():
    image_pm1, labels = halves()
    painted = SegmentPainter('randconv')(image_pm1, labels, torch.Generator().manual_seed(3)).image_pm1
    draws = torch.Generator().manual_seed(3)
    chosen, share = torch.special.ndtr(torch.randn(2, 2, generator=draws))
    weights = torch.randn(2, 3, 3, 7, 7, generator=draws)
    for i in range(2):
        size_px = 2 * int(4 * chosen[i]) + 1
        inside = slice(3 - size_px // 2, 4 + size_px // 2)
        kernel = weights[i, :, :, inside, inside] / (3 * size_px**2) ** 0.5
        padded = F.pad(image_pm1[i : i + 1], (size_px // 2,) * 4, mode='reflect')
        wanted = share[i] * image_pm1[i] + (1 - share[i]) * F.conv2d(padded, kernel)[0]
        torch.testing.assert_close(painted[i], wanted.clamp(-1, 1))


def test_every_second_image_is_filtered_after_the_shift():
    images = 200
    image_pm1, labels = (t[:1].expand(images, *t.shape[1:]) for t in halves())
    shifted, painted = (
        SegmentPainter(name)(image_pm1, labels, torch.Generator().manual_seed(0)).image_pm1
        for name in ('shift', 'shift-randconv')
    )
    same = (painted == shifted).flatten(1).all(dim=1)
    assert 0.4 < same.float().mean() < 0.6
    assert (painted - shifted)[~same].abs().flatten(1).mean(dim=1).min() > 0.001


@pytest.mark.parametrize(
    ('generator', 'kind'), [('jitter', SegmentPainter), ('randconv', SegmentPainter), ('light', Repainter)]
)
def test_a_repainter_is_made_from_its_config(generator, kind):
    repainter = create_repainter({'generator': generator, 'num_labels': None})
    assert isinstance(repainter, kind)
    again = create_repainter(repainter.config)
    assert again.config == repainter.config


def test_an_unknown_painter_is_refused():
    with pytest.raises(ValueError, match="unknown painter 'shfit'; choose one of mean, jitter, shift, shift-randconv"):
        SegmentPainter('shfit')


def test_what_a_painter_does_not_use_is_not_in_its_config():
    assert SegmentPainter('jitter', None, 'swap').config == {'generator': 'jitter', 'num_labels': None}
    for generator in ('shift', 'shift-randconv'):
        assert SegmentPainter(generator, None, 'swap').config['detail'] == 'swap'
    with pytest.raises(ValueError, match="unknown detail 'wool'; choose one of keep, swap, none"):
        SegmentPainter('shift', None, 'wool')


@pytest.mark.parametrize(
    'options', [('jitter',), ('shift', '--repaint-detail', 'swap'), ('randconv', *AMP)], ids=lambda options: options[0]
)
def test_a_run_without_a_network_trains_no_gan_and_its_checkpoint_paints(tmp_path, options):
    phases = ('--epochs', '2', '--repaint-epochs', '1')
    run = train_here(tmp_path, *REPAINT, *phases, '--repaint-generator', *options)
    repainter = load_repainter(str(run / 'last.pth.tar'))
    repaint = load_repaint(run / 'last.pth.tar')
    assert type(repainter) is type(repaint.repainter) is not Repainter
    assert repainter.config['generator'] == options[0]
    assert repaint.optimizers == {} and repaint.discriminator is None
    assert set(load_checkpoint(run / 'last.pth.tar')['repaint']) == {'_extra_state'}
