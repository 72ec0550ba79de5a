import pytest
import torch

from timm_repaint.networks.spade import Spade, SpadeResBlock, SpectralConv2d, halve_condition, narrow_condition


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
    torch.testing.assert_close(block(x, condition), block.conv_shortcut(block.spade_shortcut(x, condition)))


def test_half_a_condition_takes_the_mean_of_the_values_in_each_pixel():
    condition = torch.arange(16.0).view(1, 1, 4, 4)
    assert halve_condition(condition).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


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
