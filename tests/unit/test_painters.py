import pytest
import torch

from tests.helpers import REPAINT, load_checkpoint, load_repaint, train_here
from timm_repaint.painters import PAINTERS, SegmentPainter, create_repainter
from timm_repaint.repainter import Repainter
from timm_repaint.saved import load_repainter


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
    assert 0.25 < shifts_left.std() < PAINTERS['jitter']
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


@pytest.mark.parametrize(('generator', 'kind'), [('jitter', SegmentPainter), ('light', Repainter)])
def test_a_repainter_is_made_from_its_config(generator, kind):
    repainter = create_repainter({'generator': generator, 'num_labels': None})
    assert isinstance(repainter, kind)
    again = create_repainter(repainter.config)
    assert again.config == repainter.config


def test_what_a_painter_does_not_use_is_not_in_its_config():
    assert SegmentPainter('jitter', None, 'swap').config == {'generator': 'jitter', 'num_labels': None}
    assert SegmentPainter('shift', None, 'swap').config['detail'] == 'swap'
    with pytest.raises(ValueError, match="unknown detail 'wool'; choose one of keep, swap, none"):
        SegmentPainter('shift', None, 'wool')


@pytest.mark.parametrize('options', [('jitter',), ('shift', '--repaint-detail', 'swap')], ids=['jitter', 'shift'])
def test_a_run_without_a_network_trains_no_gan_and_its_checkpoint_paints(tmp_path, options):
    phases = ('--epochs', '2', '--repaint-epochs', '1')
    run = train_here(tmp_path, *REPAINT, *phases, '--repaint-generator', *options)
    repainter = load_repainter(str(run / 'last.pth.tar'))
    assert isinstance(repainter, SegmentPainter)
    repaint = load_repaint(run / 'last.pth.tar')
    assert isinstance(repaint.repainter, SegmentPainter)
    assert repaint.optimizers == {} and repaint.discriminator is None
    assert set(load_checkpoint(run / 'last.pth.tar')['repaint']) == {'_extra_state'}
