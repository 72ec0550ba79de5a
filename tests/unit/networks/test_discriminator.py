import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from timm_repaint.losses import discriminator_loss, generator_loss
from timm_repaint.networks.discriminator import Discriminator, split_logits
from timm_repaint.networks.spade import LEAKY_SLOPE


@pytest.mark.parametrize('num_layers', [3, 4])
@pytest.mark.parametrize('size_hw', [(32, 32), (33, 57), (224, 96)])
def test_every_scale_ends_in_logits_of_at_least_two_by_two(num_layers, size_hw):
    model = Discriminator(2, width=4, num_layers=num_layers)
    logits, features = split_logits(model(torch.randn(2, 3, *size_hw), torch.randn(2, 2, *size_hw)))
    assert len(logits) == len(features) == 2
    for scale_logits, scale_features in zip(logits, features, strict=True):
        assert scale_logits.shape[:2] == (2, 1)
        assert min(scale_logits.shape[2:]) >= 2
        assert len(scale_features) == num_layers
        assert scale_features[-1].shape[2:] == scale_logits.shape[2:]
    assert logits[0].shape[3] > logits[1].shape[3]


def test_logits_depend_on_image_and_condition():
    model = Discriminator(2, width=4, num_layers=3).eval()
    image, condition = torch.zeros(1, 3, 32, 32), torch.zeros(1, 2, 32, 32)
    base = model(image, condition)[0][-1]
    assert (model(image + 1, condition)[0][-1] - base).abs().max() > 1e-4
    assert (model(image, condition + 1)[0][-1] - base).abs().max() > 1e-4


def test_batches_behind_each_other_share_a_condition(device):
    model = Discriminator(20, width=4, num_layers=3).eval().to(device)
    image, condition = torch.randn(6, 3, 32, 40, device=device), torch.randn(3, 20, 32, 40, device=device)
    torch.testing.assert_close(model(image, condition), model(image, torch.cat([condition, condition])))


def test_the_first_layer_sees_image_and_condition_as_if_they_were_one_tensor():
    model = Discriminator(5, width=4, num_layers=3).eval()
    image, condition = torch.randn(4, 3, 32, 40), torch.randn(2, 5, 32, 40)
    layer, joined = model.scales[0].layers[0], torch.cat([image, torch.cat([condition, condition])], dim=1)
    torch.testing.assert_close(model(image, condition)[0][0], F.leaky_relu(layer(joined), LEAKY_SLOPE))


def test_a_few_updates_tell_bright_from_dark_images():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Discriminator(1, width=4, num_layers=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.0, 0.999))
    bright, dark = 0.5 + 0.1 * torch.randn(4, 3, 32, 32), -0.5 + 0.1 * torch.randn(4, 3, 32, 32)
    condition = torch.zeros(4, 1, 32, 32)
    for _ in range(30):
        real, _ = split_logits(model(bright, condition))
        fake, _ = split_logits(model(dark, condition))
        loss = discriminator_loss(real, fake, 'hinge')
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # 2 at the start
    assert generator_loss(real, 'hinge') < generator_loss(fake, 'hinge')


def test_the_number_of_scales_is_free():
    outputs = Discriminator(2, width=4, num_layers=2, num_scales=3)(
        torch.randn(1, 3, 32, 32), torch.randn(1, 2, 32, 32)
    )
    assert [scale[-1].shape[2] for scale in outputs] == [16, 8, 4]


def test_light_discriminator_keeps_its_budget_at_224_px():
    model = Discriminator(9, width=16).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224), torch.zeros(1, 9, 224, 224))
    assert counter.get_total_flops() / 2 <= 110e6


def test_too_small_images_and_too_few_layers_are_refused():
    with pytest.raises(ValueError, match='got 16x32 px, needs 32; use fewer layers or scales'):
        Discriminator(1, width=4)(torch.zeros(1, 3, 16, 32), torch.zeros(1, 1, 16, 32))
    with pytest.raises(ValueError, match='got num_layers 1, num_scales 2; want at least 2 and 1'):
        Discriminator(1, width=4, num_layers=1)
