import pytest
import torch

from timm_repaint.networks.encoder import Encoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder('segment', global_dim=5, segment_dim=3, width=4)


def halves(height, width):
    """Slot 7 on the left, slot 9 on the right."""
    slots = torch.full((1, height, width), 7)
    slots[:, :, width // 2 :] = 9
    return slots


def test_absent_slots_have_the_prior(encoder):
    posterior = encoder(torch.rand(1, 3, 32, 32), halves(32, 32))
    assert posterior.segment_present.nonzero().tolist() == [[0, 7], [0, 9]]
    absent = ~posterior.segment_present
    assert not posterior.segment_mu[absent].any() and not posterior.segment_logvar[absent].any()
    assert posterior.segment_mu[posterior.segment_present].abs().min() > 0


def test_a_segment_lost_in_the_small_copy_is_not_present(encoder):
    slots = halves(224, 224)
    slots[0, 0, 0] = 200  # one pixel of the 4x4 that become one
    posterior = encoder(torch.rand(1, 3, 224, 224), slots)
    assert posterior.segment_present.nonzero().tolist() == [[0, 7], [0, 9]]


def test_a_segments_latent_follows_its_own_colours(encoder):
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, :, :20] = 1  # well inside the left half, out of reach of the right half's pixels but a few
    before, after = encoder(image, halves(64, 64)), encoder(changed, halves(64, 64))
    difference = (after.segment_mu - before.segment_mu).abs().sum(-1)[0]
    assert difference[9] < 1e-6 < 0.01 < difference[7]


def test_the_encoder_sees_an_area_average_of_large_images(encoder):
    small = torch.rand(1, 3, 64, 64) * 2 - 1
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)  # 256 px: factor 4
    for got, want in zip(encoder(large, halves(256, 256)), encoder(small, halves(64, 64)), strict=True):
        torch.testing.assert_close(got, want)


def test_global_encoder_has_no_segment_parts():
    encoder = Encoder('global', global_dim=5, segment_dim=3, width=4)
    posterior = encoder(torch.rand(2, 3, 40, 33), halves(40, 33).repeat(2, 1, 1))
    assert posterior.global_mu.shape == (2, 5)
    assert posterior.segment_mu is posterior.segment_logvar is posterior.segment_present is None
    assert not any('segment' in name for name, _ in encoder.named_parameters())


def test_posterior_is_float32_and_bounded_under_autocast(encoder):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        posterior = encoder(torch.rand(1, 3, 32, 32) * 1e4, halves(32, 32))
    for value in posterior[:4]:
        assert value.dtype == torch.float32
    for logvar in (posterior.global_logvar, posterior.segment_logvar):
        assert logvar.abs().max() <= 10


def test_unknown_latent_lists_the_choices():
    with pytest.raises(ValueError, match="unknown latent 'pixel'; choose one of segment, global"):
        Encoder('pixel', 5, 3, 4)
