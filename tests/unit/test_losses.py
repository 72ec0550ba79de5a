import math

import pytest
import torch
import torch.nn.functional as F

from timm_repaint.losses import (
    GAN_LOSSES,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    segment_kl_divergence,
)

REAL = [torch.tensor([[[[2.0, 0.5]]]]), torch.tensor([[[[-1.0]]]])]
FAKE = [torch.tensor([[[[-3.0, 1.0]]]]), torch.tensor([[[[0.0]]]])]


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ('kind', 'scales'),
    [
        # hinge: real relu(1 - 2), relu(1 - 0.5); fake relu(1 - 3), relu(1 + 1); second scale relu(1 + 1), relu(1 + 0)
        ('hinge', [(0 + 0.5) / 2 + (0 + 2) / 2, 2 + 1]),
        (
            'original',
            [(softplus(-2) + softplus(-0.5)) / 2 + (softplus(-3) + softplus(1)) / 2, softplus(1) + softplus(0)],
        ),
    ],
)
def test_discriminator_loss_is_the_mean_over_patches_then_scales(kind, scales):
    assert discriminator_loss(REAL, FAKE, kind).item() == pytest.approx(sum(scales) / 2)


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('hinge', ((3 - 1) / 2 + 0) / 2),
        ('original', ((softplus(3) + softplus(-1)) / 2 + softplus(0)) / 2),
    ],
)
def test_generator_loss_is_the_mean_over_patches_then_scales(kind, expected):
    assert generator_loss(FAKE, kind).item() == pytest.approx(expected)


@pytest.mark.parametrize('kind', GAN_LOSSES)
def test_generator_loss_pushes_logits_up_and_discriminator_loss_pushes_fakes_down(kind):
    logits = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    (up,) = torch.autograd.grad(generator_loss([logits], kind), logits)
    (down,) = torch.autograd.grad(discriminator_loss([torch.zeros(1, 1, 2, 2)], [logits], kind), logits)
    assert (up <= 0).all() and up.sum() < 0
    assert (down >= 0).all() and down.sum() > 0


def test_original_loss_stays_finite_on_extreme_half_precision_logits():
    real, fake = [torch.full((1, 1, 1, 1), -6e4, dtype=torch.float16)], [torch.full((1, 1, 1, 1), 6e4).half()]
    loss = discriminator_loss(real, fake, 'original')
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(12e4, rel=1e-3)


def test_unknown_gan_loss_lists_the_choices():
    with pytest.raises(ValueError, match="unknown GAN loss 'wgan'; choose one of hinge, original"):
        discriminator_loss(REAL, FAKE, 'wgan')
    with pytest.raises(ValueError, match='hinge, original'):
        generator_loss(FAKE, 'wgan')


def test_unequal_logits_say_what_was_got():
    with pytest.raises(ValueError, match=r'logits: real \[\(1, 1, 1, 2\)\] and fake \[\(1, 1, 1, 1\)\]'):
        discriminator_loss(REAL[:1], FAKE[1:])
    with pytest.raises(ValueError, match='equal shapes'):
        discriminator_loss(REAL, FAKE[:1])
    with pytest.raises(ValueError, match='at least one'):
        generator_loss([])


def test_feature_matching_is_the_mean_of_the_layers_l1_distances():
    real = [[torch.tensor([1.0, 2.0]), torch.tensor([0.0])], [torch.tensor([5.0])]]
    fake = [[torch.tensor([2.0, 5.0]), torch.tensor([-1.0])], [torch.tensor([5.0])]]
    assert feature_matching_loss(real, fake).item() == pytest.approx((2 + 1 + 0) / 3)


def test_feature_matching_sends_no_gradient_to_the_real_side():
    real, fake = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    feature_matching_loss([[real]], [[fake]]).backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, torch.full((3,), -1 / 3))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_feature_matching_is_torchs_l1_loss_with_its_gradients(dtype, device):
    torch.manual_seed(0)
    real = [torch.randn(3, 4, 5).to(device, dtype), torch.randn(2, 7).to(device, dtype)]
    fake = [torch.randn(3, 4, 5).to(device, dtype), real[1]]
    fakes = [[t.clone().requires_grad_() for t in fake] for _ in range(2)]
    ours = feature_matching_loss([real], [fakes[0]])
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    theirs = sum(F.l1_loss(f.to(exact), r.to(exact)) for f, r in zip(fakes[1], real, strict=True)) / 2
    assert ours.dtype == exact
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-3 if dtype == torch.bfloat16 else 1e-6)
    for loss in (ours, theirs):
        (3 * loss).backward()
    torch.testing.assert_close([t.grad for t in fakes[0]], [t.grad for t in fakes[1]])


def test_feature_matching_of_large_layers_has_gradients_in_half_precision_too(device):
    scale, sizes = 65536.0, (7_000_000, 30_000)  # a gradient scaler's; 1 / size is nothing in float16
    fake = [torch.ones(size, device=device, dtype=torch.float16, requires_grad=True) for size in sizes]
    (scale * feature_matching_loss([[torch.zeros_like(one) for one in fake]], [fake])).backward()
    for one, size in zip(fake, sizes, strict=True):
        torch.testing.assert_close(
            one.grad[:9].float(), one.new_full((9,), scale / (2 * size)).float(), rtol=2e-3, atol=0
        )


def test_feature_matching_refuses_features_of_other_shapes():
    with pytest.raises(ValueError, match=r'features: real \[\(2,\)\] and fake \[\(3,\)\]'):
        feature_matching_loss([[torch.zeros(2)]], [[torch.zeros(3)]])


def test_kl_divergence_sums_dimensions_and_averages_images():
    mu = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    logvar = torch.tensor([[0.0, 0.0], [math.log(4.0), 0.0]])
    first, second = 0.5 * 1 + 0.5 * 4, 0.5 * (4 - math.log(4) - 1)
    assert kl_divergence(mu, logvar).item() == pytest.approx((first + second) / 2)


def test_kl_divergence_agrees_with_torch_distributions():
    torch.manual_seed(0)
    mu, logvar = torch.randn(5, 7), torch.randn(5, 7)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(kl_divergence(mu, logvar), expected)


def test_kl_divergence_of_half_precision_does_not_overflow():
    assert kl_divergence(torch.zeros(1, 1).half(), torch.full((1, 1), 12.0).half()).item() == pytest.approx(
        0.5 * (math.exp(12) - 13), rel=1e-4
    )


def test_segment_kl_divergence_averages_over_present_segments_of_the_whole_batch():
    mu = torch.tensor([[[1.0, 1.0], [9.0, 9.0]], [[2.0, 0.0], [0.0, 0.0]]])
    present = torch.tensor([[True, False], [True, True]])
    assert segment_kl_divergence(mu, torch.zeros_like(mu), present).item() == pytest.approx((1 + 2 + 0) / 3)


def test_segment_kl_divergence_without_segments_is_zero_with_finite_gradients():
    mu = torch.full((1, 2, 3), 5.0, requires_grad=True)
    logvar = torch.full((1, 2, 3), 200.0, requires_grad=True)  # exp() is inf
    loss = segment_kl_divergence(mu, logvar.clamp(-10, 10), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not mu.grad.any() and not logvar.grad.any()
