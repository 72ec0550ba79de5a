import pytest
import torch

from timm_repaint.losses import kl_divergence, segment_kl_divergence
from timm_repaint.repainter import Repainter, sample_latent


@pytest.fixture(autouse=True)
def seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def quadrants(batch, height, width, ids=(3, 700, 65535, 12)):
    """Four segments; the ids are beyond the number of slots on purpose."""
    labels = torch.empty(batch, height, width, dtype=torch.long)
    labels[:, : height // 2, : width // 2], labels[:, : height // 2, width // 2 :] = ids[0], ids[1]
    labels[:, height // 2 :, : width // 2], labels[:, height // 2 :, width // 2 :] = ids[2], ids[3]
    return labels


def random_image(batch, height, width):
    return torch.rand(batch, 3, height, width) * 2 - 1


def condition_of(repainter, image_pm1, labels):
    return repainter.condition(repainter(image_pm1, labels).posterior, labels)


VARIANTS = {
    'segment': {},
    'global': {'latent': 'global'},
    'segment, semantic': {'num_labels': 3},
    'global, semantic': {'latent': 'global', 'num_labels': 3},
    'segment, swapped detail': {'detail': 'swap'},
}


@pytest.mark.parametrize('options', VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize('size_hw', [(32, 32), (33, 57), (96, 64), (512, 32)])
def test_repaint_keeps_size_and_range(options, size_hw):
    repainter = Repainter(width=4, **options)
    repaint = repainter(random_image(2, *size_hw), quadrants(2, *size_hw))
    assert repaint.image_pm1.shape == (2, 3, *size_hw)
    assert repaint.image_pm1.abs().max() <= 1
    condition = repainter.condition(repaint.posterior, quadrants(2, *size_hw))
    assert condition.shape == (2, repainter.cond_channels, *size_hw)


@pytest.mark.parametrize('options', VARIANTS.values(), ids=VARIANTS.keys())
def test_two_draws_differ_and_a_seeded_generator_repeats_itself(options):
    repainter = Repainter(width=4, **options).eval()
    image, labels = random_image(1, 64, 64), quadrants(1, 64, 64)
    first, second = repainter(image, labels).image_pm1, repainter(image, labels).image_pm1
    assert (first - second).abs().mean() > 1e-4
    seeded = [repainter(image, labels, torch.Generator().manual_seed(5)).image_pm1 for _ in range(2)]
    torch.testing.assert_close(*seeded, rtol=0, atol=0)


@pytest.mark.parametrize('options', VARIANTS.values(), ids=VARIANTS.keys())
def test_every_parameter_gets_a_finite_gradient(options):
    repainter = Repainter(width=4, **options)
    repaint = repainter(random_image(2, 64, 64), quadrants(2, 64, 64))
    posterior = repaint.posterior
    loss = repaint.image_pm1.square().mean() + kl_divergence(posterior.global_mu, posterior.global_logvar)
    loss.backward()
    for name, parameter in repainter.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() for p in repainter.encoder.parameters()) > 0


def test_image_gradient_reaches_the_encoder_through_the_painted_codes():
    repainter = Repainter(width=4)
    repainter(random_image(2, 64, 64), quadrants(2, 64, 64)).image_pm1.mean().backward()
    assert repainter.encoder.segment_head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('width', [8, 16])
def test_a_segments_code_changes_mostly_its_own_segment(width):
    repainter = Repainter(width=width).eval()
    labels = quadrants(1, 128, 128)
    condition = condition_of(repainter, random_image(1, 128, 128), labels)
    changed = condition.clone()
    inside = labels[0] == 700
    changed[0, :8, inside] += 1
    z = torch.randn(1, 64)
    difference = (repainter.generator(changed, z) - repainter.generator(condition, z)).abs().mean(1)[0]
    assert difference[inside].mean() > 10 * difference[~inside].mean()


def test_the_output_depends_on_a_code_only_near_its_segment():
    repainter = Repainter(width=8).eval()
    labels = torch.zeros(1, 256, 256, dtype=torch.long)
    labels[:, 96:160, 96:160] = 1
    condition = condition_of(repainter, random_image(1, 256, 256), labels).detach().requires_grad_()
    painted = repainter.generator(condition, torch.randn(1, 64))
    (grad,) = torch.autograd.grad(painted[:, :, 96:160, 96:160].sum(), condition)
    strength = grad[0, :8].abs().sum(0)
    assert strength[labels[0] == 1].sum() > 0.7 * strength.sum()


def test_presence_follows_the_labels_of_each_image():
    repainter = Repainter(width=4)
    labels = torch.cat([quadrants(1, 64, 64), torch.full((1, 64, 64), 9)])
    present = repainter(random_image(2, 64, 64), labels).posterior.segment_present
    assert present.nonzero().tolist() == [[0, 3], [0, 12], [0, 700 % 256], [0, 255], [1, 9]]


def test_condition_is_the_painted_latent_and_the_boundary():
    repainter = Repainter(width=4, num_labels=3)
    labels = quadrants(1, 32, 32, ids=(0, 1, 2, 255))
    condition = condition_of(repainter, random_image(1, 32, 32), labels)[0]
    codes, boundary, classes = condition[:8], condition[8], condition[9:]
    assert codes[:, :16, :16].flatten(1).std(1).max() == 0
    assert (codes[:, 0, 0] - codes[:, 0, 31]).abs().max() > 0
    assert boundary.sum() == 4 * 32 - 4
    assert classes.argmax(0)[[0, 0, 31, 31], [0, 31, 0, 31]].tolist() == [0, 1, 2, 3]


def test_sampling_has_the_wanted_mean_and_spread():
    z = sample_latent(torch.full((20000,), 3.0), torch.full((20000,), 2 * torch.log(torch.tensor(0.5)).item()))
    assert z.mean().item() == pytest.approx(3, abs=0.02)
    assert z.std().item() == pytest.approx(0.5, abs=0.02)


def test_autocast_keeps_the_kl_in_float32():
    repainter = Repainter(width=4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        repaint = repainter(random_image(2, 64, 64), quadrants(2, 64, 64))
        p = repaint.posterior
        kl = kl_divergence(p.global_mu, p.global_logvar)
        segment_kl = segment_kl_divergence(p.segment_mu, p.segment_logvar, p.segment_present)
    assert repaint.image_pm1.dtype == torch.bfloat16 and kl.dtype == segment_kl.dtype == torch.float32
    (repaint.image_pm1.mean() + kl + segment_kl).backward()
    assert all(parameter.grad.isfinite().all() for parameter in repainter.parameters())


def test_one_image_of_32_px_trains():
    repaint = Repainter(width=4)(random_image(1, 32, 32), quadrants(1, 32, 32))
    repaint.image_pm1.mean().backward()
    assert repaint.image_pm1.isfinite().all()


def test_config_rebuilds_the_same_repainter():
    repainter = Repainter(latent='global', width=4, num_labels=3).eval()
    copy = Repainter(**repainter.config).eval()
    copy.load_state_dict(repainter.state_dict())
    assert all(isinstance(value, (str, int, float, type(None))) for value in repainter.config.values())
    image, labels = random_image(1, 32, 32), quadrants(1, 32, 32)
    draws = [model(image, labels, torch.Generator().manual_seed(1)).image_pm1 for model in (repainter, copy)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)


def test_a_short_training_brings_the_repaint_closer_to_the_image():
    repainter = Repainter(width=8)
    optimizer = torch.optim.Adam(repainter.parameters(), lr=3e-3)
    labels = quadrants(4, 32, 32)
    image = torch.rand(4, 3, 2, 2).mul(2).sub(1).repeat_interleave(16, 2).repeat_interleave(16, 3)
    losses = []
    for _ in range(100):
        loss = (repainter(image, labels).image_pm1 - image).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(
    ('image_shape', 'label_shape', 'message'),
    [
        ((1, 1, 64, 64), (1, 64, 64), r'\(1, 1, 64, 64\), must be \[B, 3, H, W\]'),
        ((3, 64, 64), (1, 64, 64), r'\(3, 64, 64\), must be \[B, 3, H, W\]'),
        ((1, 3, 31, 64), (1, 31, 64), '31x64 px, repainting needs 32; use a larger input size'),
        ((1, 3, 64, 64), (1, 32, 32), r'label maps are \(1, 32, 32\), the images need \(1, 64, 64\)'),
    ],
)
def test_wrong_inputs_say_what_was_got_and_wanted(image_shape, label_shape, message):
    with pytest.raises(ValueError, match=message):
        Repainter(width=4)(torch.zeros(image_shape), torch.zeros(label_shape, dtype=torch.long))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'latent': 'pixel'}, "unknown latent 'pixel'; choose one of segment, global"),
        ({'generator': 'unet'}, "unknown generator 'unet'; choose one of light, spade"),
        ({'width': 0}, 'width is 0, must be at least 1'),
        ({'latent_dim': 0}, 'latent_dim is 0'),
        ({'num_labels': -1}, 'num_labels is -1'),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Repainter(**options)


@pytest.mark.parametrize('detail', ['keep', 'swap', 'none'])
def test_the_whole_path_compiles_without_a_graph_break(detail):
    repainter = torch.compile(Repainter(width=4, detail=detail), backend='eager', fullgraph=True)
    assert repainter(random_image(1, 64, 64), quadrants(1, 64, 64)).image_pm1.isfinite().all()


def test_a_compiled_repainter_takes_batches_of_several_sizes():
    torch.compiler.reset()
    repainter = Repainter(width=8, detail='swap')
    repainter.compile(backend='eager')
    for count in (4, 2, 6, 3):  # from the second size on the compiler leaves the size open
        image_pm1 = torch.rand(count, 3, 32, 32) * 2 - 1
        repaint = repainter(image_pm1, torch.randint(0, 5, (count, 32, 32)))
        assert repaint.image_pm1.shape == image_pm1.shape
    torch.compiler.reset()
