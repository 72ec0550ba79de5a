"""RandomRepaint in torchvision's and albumentations' pipelines, and with_masks in a DataLoader's workers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from timm_repaint import FelzenszwalbMasks, RandomRepaint, with_masks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(seed=0, size=64):
    """A bright disc on a dark ground, [H, W, 3] uint8."""
    rows, columns = np.mgrid[:size, :size]
    disc = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 4) ** 2
    noise = np.random.default_rng(seed).integers(0, 20, (size, size, 3))
    return (np.where(disc[..., None], (200, 160, 90), (40, 60, 80)) + noise).astype(np.uint8)


@pytest.mark.parametrize('masks', ['fh', 'superpixels'])
@pytest.mark.parametrize('kind', ['PIL', 'tensor', 'tv image', 'array'])
def test_what_goes_in_comes_out_of_the_same_kind_and_size(kind, masks):
    array = picture()
    image = {
        'PIL': lambda: Image.fromarray(array),
        'tensor': lambda: torch.from_numpy(array).permute(2, 0, 1),
        'tv image': lambda: tv_tensors.Image(torch.from_numpy(array).permute(2, 0, 1)),
        'array': lambda: array,
    }[kind]()
    repaint = RandomRepaint(p=1, masks=masks)(image)
    assert type(repaint) is type(image)
    plain = np.asarray(repaint) if kind in ('PIL', 'array') else repaint.permute(1, 2, 0).numpy()
    assert plain.shape == array.shape and plain.dtype == np.uint8
    assert np.abs(plain.astype(int) - array).mean() > 5


def test_each_segment_is_shifted_as_a_whole():
    array = picture()
    torch.manual_seed(0)
    labels = FelzenszwalbMasks()(array)
    change = RandomRepaint(p=1)(array).astype(int) - array
    for label in np.unique(labels):
        inside = change[(labels == label) & (array > 60).all(2) & (array < 190).all(2)]
        assert len(inside) == 0 or (inside.std(axis=0) < 1).all() or (change[labels == label] == 0).any()


def test_randconv_asks_for_no_masks():
    class NoMasks:
        kind, num_labels, on_device = 'segments', None, False

        def __call__(self, image_u8):
            raise AssertionError

    array = picture()
    changed = RandomRepaint(p=1, painter='randconv', masks=NoMasks())(array)
    assert changed.shape == array.shape and not np.array_equal(changed, array)


def test_the_share_is_p_and_the_draws_are_torchs():
    array = picture(size=32)
    torch.manual_seed(0)
    transform = RandomRepaint(p=0.3, masks=Halves())
    changed = [not np.array_equal(transform(array), array) for _ in range(300)]
    assert 0.22 < np.mean(changed) < 0.38
    torch.manual_seed(0)
    again = RandomRepaint(p=0.3, masks=Halves())
    assert [not np.array_equal(again(array), array) for _ in range(300)] == changed
    assert np.array_equal(RandomRepaint(p=0)(array), array)


class Halves:
    kind, num_labels, on_device = 'segment', None, False

    def __call__(self, image_u8):
        labels = np.zeros(image_u8.shape[:2], np.uint16)
        labels[:, image_u8.shape[1] // 2 :] = 1
        return labels


def test_boxes_masks_and_labels_beside_the_image_stay_as_they_are():
    image = tv_tensors.Image(torch.from_numpy(picture()).permute(2, 0, 1))
    target = {
        'boxes': tv_tensors.BoundingBoxes(torch.tensor([[4, 4, 30, 30]]), format='XYXY', canvas_size=(64, 64)),
        'masks': tv_tensors.Mask(torch.ones(1, 64, 64, dtype=torch.uint8)),
        'labels': torch.tensor([3]),
    }
    repaint, same = v2.Compose([RandomRepaint(p=1)])(image, target)
    assert not torch.equal(repaint, image)
    assert all(torch.equal(same[key], value) and type(same[key]) is type(value) for key, value in target.items())


def test_an_array_beside_a_picture_is_no_image():
    mask = picture(1)
    repaint, same = RandomRepaint(p=1)(Image.fromarray(picture()), mask)
    assert not np.array_equal(np.asarray(repaint), picture()) and np.array_equal(same, picture(1))


@pytest.mark.parametrize(
    'beside',
    [
        tv_tensors.BoundingBoxes(torch.tensor([[4, 4, 30, 30]]), format='XYXY', canvas_size=(64, 64)),
        torch.tensor(3),
        torch.eye(5)[2],
        np.ones((64, 64), np.uint8),
    ],
    ids=['boxes', 'label', 'one-hot', 'mask'],
)
def test_an_array_is_the_image_where_nothing_else_is_one(beside):
    repaint, same = RandomRepaint(p=1)(picture(), beside)
    assert isinstance(repaint, np.ndarray) and not np.array_equal(repaint, picture())
    assert same is beside


def test_it_works_in_albumentations():
    albumentations = pytest.importorskip('albumentations')
    pipeline = albumentations.Compose([albumentations.Lambda(image=RandomRepaint(p=1), p=1)])
    mask = np.ones((64, 64), np.uint8)
    result = pipeline(image=picture(), mask=mask)
    assert result['image'].dtype == np.uint8 and not np.array_equal(result['image'], picture())
    assert np.array_equal(result['mask'], mask)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (torch.rand(3, 64, 64), r'got an image Tensor \(3, 64, 64\) torch.float32; RandomRepaint takes RGB'),
        (Image.fromarray(picture()).convert('L'), r'got an image Image L; RandomRepaint takes RGB'),
        (picture()[:, :, 0], r'got an image ndarray \(64, 64\) uint8'),
        (picture(size=16), r'16x16 px, repainting needs 32'),
    ],
)
def test_an_image_of_another_kind_is_named(image, message):
    with pytest.raises(ValueError, match=message):
        RandomRepaint(p=1)(image)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'p': 2}, 'p is 2; it must be from 0 to 1'),
        ({'painter': 'oil'}, "painter is 'oil'; choose one of mean, jitter, shift"),
        ({'masks': None}, "must work on the CPU, image by image: 'fh', 'superpixels'"),
        ({'detail': 'wool'}, "detail is 'wool'; choose one of keep, swap, none"),
        ({'painter': 'jitter', 'detail': 'wool'}, "detail is 'wool'"),
        ({'p': 'x'}, "p is 'x'"),
        ({'painter': 'mean', 'detail': 'swap'}, 'paints without detail'),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        RandomRepaint(**options)


# with_masks -----------------------------------------------------------------------------------------------------------


class Pictures(torch.utils.data.Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.transform(Image.fromarray(picture(index)))


@pytest.mark.parametrize(
    'transform',
    [
        transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        transforms.PILToTensor(),
    ],
    ids=['torchvision', 'v2', 'not normalised', 'uint8'],
)
def test_workers_give_images_with_their_label_maps(transform):
    (batch,) = DataLoader(Pictures(with_masks(transform)), batch_size=4, num_workers=2)
    assert batch.shape == (4, 4, 64, 64)
    for index, each in enumerate(batch):
        assert torch.equal(each[:3], torch.as_tensor(transform(Image.fromarray(picture(index)))))
        assert np.array_equal(each[3].numpy(), FelzenszwalbMasks()(picture(index)) % 256)


def test_images_whose_normalisation_is_unknown_are_refused_and_mean_and_std_help():
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def transform(image):
        return normalise(image)

    with pytest.raises(ValueError, match='give with_masks the mean and std of the transform'):
        with_masks(transform)(Image.fromarray(picture()))
    joined = with_masks(transform, mean=MEAN, std=STD)(Image.fromarray(picture()))
    assert np.array_equal(joined[3].numpy(), FelzenszwalbMasks()(picture()) % 256)


@pytest.mark.parametrize('seed', range(4))
def test_erasing_by_noise_ahead_of_the_masks_passes(seed):
    torch.manual_seed(seed)
    transform = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Compose([transforms.Normalize(MEAN, STD)]),
            transforms.RandomErasing(p=1, scale=(0.2, 0.3), value='random'),
        ]
    )
    assert with_masks(transform)(Image.fromarray(picture())).shape == (4, 64, 64)


def test_one_of_mean_and_std_alone_is_refused():
    with pytest.raises(ValueError, match='got one of mean and std; give both'):
        with_masks(transforms.ToTensor(), mean=MEAN)


def test_a_source_for_the_device_is_sent_to_repaint():
    class Net(Halves):
        on_device = True
        to = labels = Halves.__call__

    with pytest.raises(ValueError, match=r'must work on the CPU, .* a network belongs into Repaint\(masks=…\)'):
        with_masks(transforms.ToTensor(), masks=Net())


@pytest.mark.parametrize('given', [picture(), [picture()]], ids=['picture', 'list'])
def test_a_transform_that_gives_no_tensor_is_named(given):
    transform = with_masks(lambda _: Image.fromarray(given) if isinstance(given, np.ndarray) else given)
    with pytest.raises(ValueError, match=r'the transform gave a (Image|list); masks need a tensor or array'):
        transform(None)
    with pytest.raises(ValueError, match='mean and std of an RGB image'):
        with_masks(transforms.ToTensor(), mean=0.5, std=0.5)


def test_what_is_given_by_name_is_refused_and_the_image_is_missed():
    with pytest.raises(ValueError, match=r'got target=…; RandomRepaint takes .* by place: \(image, target\)'):
        RandomRepaint(p=0)(Image.fromarray(picture()), target={'boxes': 1})
    with pytest.raises(TypeError, match='image'):
        RandomRepaint(p=0)(img=3)


def test_the_picture_is_found_behind_plain_boxes():
    image, boxes = torch.from_numpy(picture()).permute(2, 0, 1), torch.tensor([[4.0, 4.0, 30.0, 30.0]])
    result = RandomRepaint(p=1)({'boxes': boxes, 'image': image})
    assert result['boxes'] is boxes and not torch.equal(result['image'], image)


def test_a_film_is_refused():
    with pytest.raises(ValueError, match='got an image Video'):
        RandomRepaint(p=1)(tv_tensors.Video(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)))


def test_numbers_of_numpy_and_no_masks_for_random_filters_are_taken():
    assert not np.array_equal(RandomRepaint(p=np.float32(1), painter='randconv', masks=None)(picture()), picture())
