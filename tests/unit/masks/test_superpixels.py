"""Segments on the device: what they are on pictures worked out by hand, and beside FH's on photographs."""

import pickle

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import v2

from timm_repaint import Repaint, SuperpixelMasks, with_masks
from timm_repaint.masks.choice import MaskOptions, create_mask_source
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks


def photographs(side_px: int) -> torch.Tensor:
    """Three photographs, [3, 3, S, S] in [-1, 1]."""
    pictures = [getattr(skimage.data, name)()[:300, :300] for name in ('astronaut', 'chelsea', 'coffee')]
    image_pm1 = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.interpolate(image_pm1, size=(side_px, side_px), mode='bilinear', antialias=True)


def plain(height: int, width: int, colour: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, height, width).clone()


def segments(image_pm1: torch.Tensor) -> torch.Tensor:
    return SuperpixelMasks().labels(image_pm1)


@pytest.mark.parametrize('side_px', [32, 64, 128, 224, 250])
def test_a_picture_of_one_colour_is_one_segment(side_px):
    assert segments(plain(side_px, side_px, (0.3, -0.2, 0.9))).unique().tolist() == [0]


@pytest.mark.parametrize('edge_px', [16, 32, 40, 70])
@pytest.mark.parametrize(('side_px', 'least_px'), [(80, 1), (128, 1), (224, 2)])
def test_two_plain_halves_are_two_segments_with_the_edge_between_them(side_px, least_px, edge_px):
    image_pm1 = plain(side_px, side_px, (-1.0, -1.0, -1.0))
    image_pm1[..., edge_px:] = torch.tensor([0.9, -0.6, -0.6]).view(3, 1, 1)
    labels = segments(image_pm1)[0]
    assert len(labels.unique()) == 2
    edges = (labels[:, 1:] != labels[:, :-1]).nonzero()[:, 1] + 1
    assert len(edges) == side_px and (edges - edge_px).abs().max() < least_px


def test_a_speck_joins_its_neighbour_and_a_spot_stays():
    image_pm1 = plain(64, 64, (0.0, 0.0, 0.0))
    image_pm1[..., 10:13, 10:13] = 1.0  # 9 pixels of at least 20
    assert segments(image_pm1).unique().tolist() == [0]
    image_pm1[..., 10:15, 10:15] = 1.0
    labels = segments(image_pm1)[0]
    assert labels.unique().tolist() == [0, 1] and (labels == labels[12, 12]).sum() == 25


def test_hues_of_one_brightness_are_told_apart():
    image_pm1 = plain(64, 64, (0.5, -0.2547, 0.0))
    image_pm1[..., 32:] = torch.tensor([-0.5, 0.2547, 0.0]).view(3, 1, 1)
    grey = 0.299 * image_pm1[:, 0] + 0.587 * image_pm1[:, 1] + 0.114 * image_pm1[:, 2]
    assert grey.std() < 1e-3
    assert segments(image_pm1).unique().tolist() == [0, 1]


@pytest.mark.parametrize('side_px', [64, 224])
def test_an_image_has_the_segments_it_has_alone(side_px):
    image_pm1 = photographs(side_px)
    alone = torch.cat([segments(image[None]) for image in image_pm1])
    assert torch.equal(segments(image_pm1), alone)
    assert torch.equal(segments(image_pm1.contiguous(memory_format=torch.channels_last)), alone)


@pytest.mark.parametrize('size_hw', [(1, 1), (1, 300), (33, 47), (97, 131), (120, 400), (333, 500)])
def test_images_of_any_size_have_small_ids(size_hw):
    image_pm1 = torch.rand(2, 3, *size_hw, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = segments(image_pm1)
    assert labels.shape == (2, *size_hw) and labels.dtype == torch.int64
    assert labels.min() >= 0 and all(one.max() < 1.1 * len(one.unique()) + 1 for one in labels)


@pytest.mark.parametrize('side_px', [32, 64, 128, 224])
def test_photographs_have_some_tens_of_segments_that_explain_more_of_their_colours_than_fh_does(side_px):
    fh = FelzenszwalbMasks(backend='skimage')
    shares = []
    for image_pm1, labels in zip(photographs(side_px), segments(photographs(side_px)), strict=True):
        image_u8 = ((image_pm1 + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        assert 12 <= labels.max() + 1 <= 130
        shares.append([explained(image_u8, labels.numpy()), explained(image_u8, fh(image_u8))])
    ours, of_fh = np.mean(shares, axis=0)
    assert ours > of_fh


def explained(image_u8: np.ndarray, labels: np.ndarray) -> float:
    """Share of the colours' variance that the segments' means explain."""
    ids = np.arange(labels.max() + 1)
    means = np.stack([ndimage.mean(image_u8[..., channel], labels, ids) for channel in range(3)], axis=-1)
    spread = image_u8 - image_u8.mean(axis=(0, 1))
    return 1 - ((image_u8 - means[labels]) ** 2).sum() / (spread**2).sum()


def test_without_a_finer_copy_segments_hang_together_and_none_is_small():
    for labels in segments(photographs(64)).numpy():
        for segment in range(labels.max() + 1):
            assert ndimage.label(labels == segment)[1] == 1
        assert np.bincount(labels.ravel()).min() >= 20  # of FH's at 64 px


@pytest.mark.parametrize('side_px', [64, 224])
def test_shapes_follow_from_the_images_size_alone(side_px):
    with FakeTensorMode():  # knows no values: whatever looks at one raises
        assert segments(torch.empty(2, 3, side_px, side_px)).shape == (2, side_px, side_px)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('side_px', [64, 224])
def test_a_gpu_gives_the_segments_of_a_cpu_but_for_ties(side_px):
    image_pm1 = photographs(side_px)
    torch.cuda.set_sync_debug_mode('error')
    try:
        on_gpu = segments(image_pm1.pin_memory().to('cuda', non_blocking=True))
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert (on_gpu.cpu() == segments(image_pm1)).float().mean() > 0.99


def test_a_single_image_has_the_segments_of_a_batch():
    image_u8 = skimage.data.chelsea()[:224, :224]
    image_pm1 = torch.from_numpy(image_u8.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    labels = SuperpixelMasks()(image_u8)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, segments(image_pm1)[0].numpy())


def test_a_single_image_is_cut_where_the_source_was_moved_to(monkeypatch):
    where = []
    monkeypatch.setattr(SuperpixelMasks, 'labels', lambda self, image_pm1: where.append(image_pm1.device))
    with pytest.raises(TypeError):  # there is nothing to cut on a device without memory
        SuperpixelMasks().to('meta')(np.zeros((64, 64, 3), np.uint8))
    assert where == [torch.device('meta')] and not SuperpixelMasks().state_dict()


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r'RGB images \[B, 3, H, W\], got \(1, 4, 8, 8\)'):
        segments(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r'RGB image \[H, W, 3\] uint8, got \(8, 8\) uint8'):
        SuperpixelMasks()(np.zeros((8, 8), np.uint8))


def test_the_source_has_a_name_and_pickles():
    source = create_mask_source(MaskOptions(mask='superpixels'))
    assert isinstance(source, SuperpixelMasks)
    assert (source.kind, source.num_labels, source.on_device) == ('segment', None, True)
    assert isinstance(pickle.loads(pickle.dumps(source)), SuperpixelMasks)


def test_workers_cut_them_image_by_image():
    image_u8 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = with_masks(v2.functional.pil_to_tensor, masks='superpixels')(Image.fromarray(image_u8))
    assert np.array_equal(image[3], SuperpixelMasks()(image_u8).astype(np.uint8)) and len(image[3].unique()) > 10


def test_repaint_cuts_them_itself():
    repaint = Repaint((0.5,) * 3, (0.5,) * 3, masks='superpixels', generator='shift', prob=1.0)
    image_pm1 = photographs(64)
    repainted = repaint(image_pm1)
    assert repainted.shape == image_pm1.shape and not torch.equal(repainted, image_pm1)
    assert list(repaint.state_dict()) == list(Repaint((0.5,) * 3, (0.5,) * 3, generator='shift').state_dict())
