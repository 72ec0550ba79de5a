import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from timm_repaint.networks.generator import (
    GeneratorSpec,
    SpadeGenerator,
    add_upsampled,
    coarse_taps,
    compose,
    generator_spec,
)

FULL_SIZE = GeneratorSpec(((8,), (8, 8), (6,), (4,), (4,), (4,)), 4, kernel_size=3, spectral=True, max_cond_channels=8)


def macs(model, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops() // 2


def test_composition_puts_the_detail_at_its_strength_on_the_colour_and_has_its_gradient():
    painted, detail = torch.randn(2, 6, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    wanted = torch.tanh(painted[:, :3] + painted[:, 3:] * detail)
    torch.testing.assert_close(compose(painted, detail), wanted)
    in_half = compose(painted.bfloat16(), detail)
    assert in_half.dtype == torch.bfloat16 and (in_half - wanted).abs().mean() < 2 / 255  # a grey level
    assert torch.autograd.gradcheck(lambda painted: compose(painted, detail), painted.requires_grad_())


@pytest.mark.parametrize('spec', [generator_spec('light', 4), FULL_SIZE], ids=['light', 'full size'])
@pytest.mark.parametrize('size_hw', [(32, 32), (33, 57), (96, 64), (512, 40)])
def test_output_has_the_conditions_size_and_range(spec, size_hw):
    model = SpadeGenerator(3, 5, spec)
    painted = model(10 * torch.randn(2, 3, *size_hw), 10 * torch.randn(2, 5))
    assert painted.shape == (2, 3, *size_hw)
    assert painted.abs().max() <= 1
    assert painted.std() > 0


def test_padding_inside_equals_a_condition_padded_by_hand():
    model = SpadeGenerator(3, 5, generator_spec('light', 4)).eval()
    condition, z = torch.randn(1, 3, 40, 64), torch.randn(1, 5)
    padded = torch.cat([condition, condition[:, :, -1:].expand(-1, -1, 24, -1)], dim=2)
    torch.testing.assert_close(model(condition, z), model(padded, z)[:, :, :40])


def test_the_global_latent_changes_the_picture():
    model = SpadeGenerator(3, 5, generator_spec('light', 4)).eval()
    condition = torch.zeros(1, 3, 32, 32)
    assert (model(condition, torch.ones(1, 5)) - model(condition, -torch.ones(1, 5))).abs().max() > 1e-3


def test_light_generator_keeps_its_budget_at_224_px():
    model = SpadeGenerator(9, 64, generator_spec('light', 16)).eval()
    assert 200_000 <= sum(p.numel() for p in model.parameters()) <= 350_000
    assert macs(model, torch.zeros(1, 9, 224, 224), torch.zeros(1, 64)) <= 300e6


def test_full_size_generator_has_spades_blocks():
    spec = generator_spec('spade', 16)
    assert [width for stage in spec.stages for width in stage] == [1024, 1024, 1024, 512, 256, 128, 64]
    assert (spec.hidden, spec.kernel_size) == (128, 3)
    with torch.device('meta'):
        model = SpadeGenerator(9, 64, spec)
    assert type(model.head).__name__ == 'FullSizeHead'


def test_a_condition_of_many_classes_is_narrowed_once():
    model = SpadeGenerator(184, 5, generator_spec('light', 4))
    assert model.narrow.weight.shape == (16, 184, 1, 1)
    assert model.stages[0][0].spade_in.shared.in_channels == 16
    assert model(torch.randn(1, 184, 32, 32), torch.randn(1, 5)).shape == (1, 3, 32, 32)


def test_unknown_generator_lists_the_choices():
    with pytest.raises(ValueError, match="unknown generator 'unet'; choose one of light, spade"):
        generator_spec('unet', 16)


def test_the_inside_of_a_flat_segment_is_painted_without_a_checkerboard():
    torch.manual_seed(0)
    model = SpadeGenerator(3, 5, generator_spec('light', 8)).eval()
    painted = model(torch.ones(1, 3, 512, 512), torch.randn(1, 5))[0, :, 240:272, 240:272]
    assert painted.flatten(1).std(1).max() < 1e-3


@pytest.mark.parametrize('upscale', [2, 4])
def test_a_convolution_of_the_upsampled_features_without_upsampling_them(upscale):
    x, weight = torch.randn(2, 3, 5, 4), torch.randn(6, 3, 3, 3)
    large = x.repeat_interleave(upscale, 2).repeat_interleave(upscale, 3)
    painted = torch.randn(2, 6, 5 * upscale, 4 * upscale)
    wanted = painted + F.conv2d(large, weight, padding=1)
    for given in (painted, painted.contiguous(memory_format=torch.channels_last)):
        found = add_upsampled(given, x, weight, coarse_taps(upscale))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        assert found.stride() == given.stride()
