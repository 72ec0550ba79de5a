import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from timm_repaint.networks.spade import (
    HalfSize,
    Modulate,
    Spade,
    SpadeResBlock,
    SpectralConv2d,
    block_weights,
    narrow_condition,
    upsample,
)


@pytest.fixture
def constant_spade():
    """Gamma is twice the condition, beta is 5 plus three times the condition, for a condition that is not negative."""
    spade = Spade(channels=1, cond_channels=1, hidden=1, kernel_size=1)
    with torch.no_grad():
        spade.shared.weight.zero_()
        spade.shared.weight[0, 0, 1, 1] = 1
        spade.shared.bias.zero_()
        spade.gamma_beta.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1, 1))
        spade.gamma_beta.bias.copy_(torch.tensor([0.0, 5.0]))
    return spade


def test_upsampling_stays_in_half_precision_under_a_gpus_autocast():
    was_enabled, dtype = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    torch.set_autocast_enabled('cuda', True)  # torch.autocast switches it off where there is no GPU
    torch.set_autocast_dtype('cuda', torch.bfloat16)
    try:
        with FakeTensorMode():
            x = torch.empty(1, 2, 4, 4, device='cuda', dtype=torch.bfloat16)
            assert upsample(x, 2).dtype == torch.bfloat16 and upsample(x, 2).shape == (1, 2, 8, 8)
            assert torch.is_autocast_enabled('cuda')
    finally:
        torch.set_autocast_enabled('cuda', was_enabled)
        torch.set_autocast_dtype('cuda', dtype)


def test_spade_normalises_over_the_batch_and_modulates_by_the_condition(constant_spade):
    x = torch.tensor([[[[1.0, 1.0]]], [[[3.0, 3.0]]]])  # mean 2, variance 1 over both images
    condition = torch.tensor([[[[0.0, 1.0]]], [[[0.0, 2.0]]]])
    # -1 * (1 + 0) + 5, -1 * (1 + 2) + 5 + 3; 1 * (1 + 0) + 5, 1 * (1 + 4) + 5 + 6
    expected = torch.tensor([[[[4.0, 5.0]]], [[[6.0, 16.0]]]])
    torch.testing.assert_close(constant_spade(x, condition), expected, atol=1e-4, rtol=0)


def test_spade_has_no_parameters_in_its_norm(constant_spade):
    assert list(constant_spade.norm.parameters()) == []


def test_spade_in_evaluation_uses_the_running_statistics(constant_spade):
    constant_spade.eval()
    constant_spade.norm.running_mean.fill_(10)
    constant_spade.norm.running_var.fill_(4)
    x = torch.tensor([[[[12.0]]]])
    assert constant_spade(x, torch.ones(1, 1, 1, 1)).item() == pytest.approx(1 * (1 + 2) + 5 + 3, abs=1e-4)


def test_spade_trains_on_a_single_pixel(constant_spade):
    assert constant_spade(torch.full((1, 1, 1, 1), 2.0), torch.zeros(1, 1, 1, 1)).item() == pytest.approx(7, abs=1e-4)


def test_block_with_equal_widths_adds_to_its_input():
    block = SpadeResBlock(4, 4, cond_channels=2, hidden=3, kernel_size=3)
    torch.nn.init.zeros_(block.conv_out.weight)
    torch.nn.init.zeros_(block.conv_out.bias)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(block(x, torch.randn(2, 2, 3, 3)), x)
    assert not block.has_shortcut


def test_block_with_other_width_learns_its_shortcut():
    block = SpadeResBlock(4, 6, cond_channels=2, hidden=3, kernel_size=1)
    torch.nn.init.zeros_(block.conv_out.weight)
    torch.nn.init.zeros_(block.conv_out.bias)
    x, condition = torch.randn(2, 4, 3, 3), torch.randn(2, 2, 3, 3)
    weights = block_weights([block.spades])[0]
    modulated = block.spade_shortcut.modulate(
        F.batch_norm(x, None, None, training=True), weights.features(condition)[2], weights.biases[2]
    )
    torch.testing.assert_close(block(x, condition), block.conv_shortcut(modulated))


def test_the_weights_of_several_blocks_are_those_of_each_alone():
    blocks = [SpadeResBlock(4, 6, 2, 3, 1), SpadeResBlock(6, 6, 2, 3, 1)]
    together, alone = block_weights([block.spades for block in blocks]), [block_weights([b.spades])[0] for b in blocks]
    torch.testing.assert_close([[*w[:2], *w.biases] for w in together], [[*w[:2], *w.biases] for w in alone])
    spades = blocks[1].spades
    assert torch.equal(together[1].weight, torch.cat([spade.shared.weight for spade in spades]))
    assert torch.equal(together[1].biases[1][:6], spades[1].gamma_beta.bias[:6] + 1)
    assert torch.equal(together[1].biases[1][6:], spades[1].gamma_beta.bias[6:])


def test_a_state_with_the_shortcuts_copy_of_the_statistics_loads():
    block = SpadeResBlock(4, 6, 2, 3, 1)
    state = block.state_dict()
    old = {
        **state,
        **{f'spade_shortcut.norm.{name}': value for name, value in block.spade_in.norm.state_dict().items()},
    }
    assert len(old) == len(state) + 3
    block.load_state_dict(old)


def test_modulation_has_the_gradients_of_its_formula(device):
    x, gamma_beta = (torch.randn(2, c, 4, 5, dtype=torch.float64, device=device) for c in (3, 6))
    inputs = (x.requires_grad_(), gamma_beta.requires_grad_())
    torch.testing.assert_close(Modulate.apply(*inputs), gamma_beta[:, 3:] + x * gamma_beta[:, :3])
    assert torch.autograd.gradcheck(Modulate.apply, inputs)


# Where the side is 2, conditions are padded to multiples of 32: no odd sizes come.
@pytest.mark.parametrize(('side', 'size_hw'), [(2, (6, 8)), (3, (6, 8)), (3, (7, 5))])
def test_half_a_size_is_pooling_on_every_device(side, size_hw, device):
    x, half_size = torch.randn(2, 3, *size_hw, device=device), HalfSize(side).to(device)
    wanted = F.avg_pool2d(x, side, 2, side - 2, count_include_pad=False)
    for _ in range(2):
        torch.testing.assert_close(half_size(x), wanted)
    torch.testing.assert_close(
        half_size.double()(x.double()[..., 2:]),
        F.avg_pool2d(x.double()[..., 2:], side, 2, side - 2, count_include_pad=False),
    )
    assert not half_size.state_dict()


def test_half_a_condition_takes_the_mean_of_the_values_in_each_pixel():
    condition = torch.arange(16.0).view(1, 1, 4, 4)
    assert HalfSize(2)(condition).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_only_a_wide_condition_is_narrowed():
    layer, channels = narrow_condition(20, 16)
    assert channels == 16 and layer(torch.zeros(1, 20, 2, 2)).shape[1] == 16
    layer, channels = narrow_condition(9, 16)
    x = torch.randn(1, 9, 2, 2)
    assert channels == 9 and layer(x) is x


def test_spectral_convolution_has_a_largest_singular_value_of_one():
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, 3)
    for _ in range(50):
        conv(torch.zeros(1, 3, 3, 3))
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=1e-3)


def test_spectral_convolution_takes_two_forwards_before_one_backward_under_autocast():
    conv = SpectralConv2d(3, 4, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = conv(torch.randn(1, 3, 5, 5)).mean() - conv(torch.randn(1, 3, 5, 5)).mean()
    loss.backward()
    assert conv.parametrizations.weight.original.grad.abs().sum() > 0
    assert conv.weight.dtype == torch.float32
