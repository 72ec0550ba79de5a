"""Batches for a detector: targets in one tensor, masks from every source."""

import argparse
import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import split_labels
from timm_repaint.detection.annotations import parse_coco
from timm_repaint.detection.coco_loaders import (
    NO_CLASS,
    DetectionDataset,
    build_loaders,
    check_boxes,
    coco_split,
    collate,
    pad_objects,
)
from timm_repaint.detection.images import CocoImages
from timm_repaint.detection.options import build_parser
from timm_repaint.detection.transforms import eval_transform, train_transform
from timm_repaint.engine.masks import build_masks
from timm_repaint.engine.setup import Network, Precision
from timm_repaint.errors import UsageError
from timm_repaint.masks.cache import Folders, list_images, make_masks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.folder import CachedMasks, FolderMasks
from timm_repaint.masks.manifest import claim_folder, describe

MEAN = (0.485, 0.456, 0.406)
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def coco(shared_data):
    return shared_data / 'coco-mini'


def options(coco, *argv):
    args = build_parser().parse_args(['--data-dir', str(coco), '--device', 'cpu', '-j', '0', *map(str, argv)])
    return argparse.Namespace(**{**vars(args), 'distributed': False, 'world_size': 1, 'rank': 0})


def config(size_px=128):
    return {
        'input_size': (3, size_px, size_px), 'mean': MEAN, 'std': (0.229, 0.224, 0.225), 'interpolation': 'bilinear'
    }  # fmt: skip


def load(args, size_px=128):
    precision = Precision(None, nullcontext, None)
    return build_loaders(Network(args, CPU, precision, torch.nn.Identity(), config(size_px)), fresh_workers=True)


def test_objects_are_filled_up_with_no_class():
    padded = pad_objects([torch.tensor([[1.0, 2, 3, 4, 5]]), torch.zeros(0, 5), torch.ones(2, 5)])
    assert padded.shape == (3, 2, 5)
    assert padded[..., 4].tolist() == [[5, NO_CLASS], [NO_CLASS, NO_CLASS], [1, 1]]
    assert pad_objects([torch.zeros(0, 5)] * 2).shape == (2, 1, 5)


def test_a_target_is_in_the_order_of_effdet(coco):
    dataset = DetectionDataset(CocoImages(str(coco), 'train2017'), eval_transform(128, MEAN))
    _, objects = dataset[0]
    boxes, classes = dataset.annotations.objects(0)
    height, width = dataset.annotations.sizes_hw[0]
    assert torch.allclose(objects[:, :4], torch.from_numpy(boxes[:, [1, 0, 3, 2]]) * 128 / max(height, width))
    assert objects[:, 4].tolist() == classes.tolist()


def test_a_split_that_is_called_train_is_that_one(coco, tmp_path):
    for folder in ('annotations', 'train2017', 'val2017'):
        (tmp_path / folder).symlink_to(coco / folder)
    assert coco_split(str(tmp_path), 'train') == 'train2017' and coco_split(str(tmp_path), 'mine') == 'mine'
    (tmp_path / 'annotations').unlink()
    annotations = shutil.copytree(coco / 'annotations', tmp_path / 'annotations')
    shutil.copyfile(annotations / 'instances_train2017.json', annotations / 'instances_train.json')
    assert coco_split(str(tmp_path), 'train') == 'train2017', "COCO's own comes first"
    (annotations / 'instances_train2017.json').unlink()
    (tmp_path / 'train2017').rename(tmp_path / 'train')
    assert len(load(options(tmp_path, '-b', 4)).train) == len(load(options(coco, '-b', 4)).train)


def test_training_batches_hold_boxes_and_validation_batches_the_numbers_of_the_images(coco):
    loaders = load(options(coco, '-b', 4))
    images, target = next(iter(loaders.train))
    assert images.shape == (4, 3, 128, 128) and target.shape[0] == 4 and target.shape[2] == 5
    assert len(loaders.train) == 3  # 13 images: the last one is left out
    numbers = torch.cat([batch for _, batch in loaders.eval])
    assert numbers.tolist() == list(range(8))
    first, _ = next(iter(loaders.eval))
    plain = DetectionDataset(CocoImages(str(coco), 'val2017'), eval_transform(128, MEAN))[0][0]
    assert torch.allclose(first[0] * torch.tensor(config()['std']).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1),
                          plain / 255, atol=1e-5)  # fmt: skip


def test_masks_on_the_fly_are_those_of_the_finished_image(coco):
    loaders = load(options(coco, '-b', 2, '--repaint', '--mask', 'fh', '--fh-backend', 'skimage', '--no-aug'))
    images, _ = next(iter(loaders.train))
    image_norm, labels = split_labels(images)
    image_u8 = (image_norm[0] * torch.tensor(config()['std']).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    expected = loaders.masks(image_u8.round().byte().permute(1, 2, 0).contiguous().numpy())
    assert np.array_equal(labels[0].numpy(), expected % 256) and len(np.unique(expected)) > 3


def test_stuff_maps_move_along_and_the_space_around_the_image_is_unknown(coco):
    masks = FolderMasks(coco / 'stuffthingmaps', coco, 182)
    images = CocoImages(str(coco), 'train2017')
    moved, labels, _ = DetectionDataset(images, eval_transform(128, MEAN), masks).read(0)
    height, width = images.annotations.sizes_hw[0]
    stored = np.asarray(Image.open(coco / 'stuffthingmaps/train2017' / images.filename(0).replace('.jpg', '.png')))
    rows = round(height * 128 / max(height, width))
    small = np.asarray(Image.fromarray(stored).resize((128, rows), Image.Resampling.NEAREST))
    assert (labels[:rows] == small).mean() > 0.995  # two libraries round differently in between two pixels
    assert (labels[rows:] == 255).all() and set(np.unique(labels)) <= {*np.unique(stored), 255}
    assert labels.max() <= 255 and moved.image.shape == (3, 128, 128)


def test_the_cache_of_a_coco_tree_is_found_and_its_padding_is_a_segment_of_its_own(coco, tmp_path):
    folders, source = Folders(str(coco), str(tmp_path)), FelzenszwalbMasks(scale=90, backend='skimage')
    claim_folder(tmp_path, describe('fh', source, folders.size_px))
    make_masks(folders, [path for path in list_images(folders) if '2017/' in path and 'stuff' not in path], source, 1)
    args = options(coco, '-b', 2, '--repaint', '--mask', 'fh', '--mask-dir', tmp_path)
    images = CocoImages(str(coco), 'train2017')
    masks = build_masks(args, images)
    assert isinstance(masks, CachedMasks)
    _, labels, _ = DetectionDataset(images, eval_transform(128, MEAN), masks).read(0)
    height, width = images.annotations.sizes_hw[0]
    rows = round(height * 128 / max(height, width))
    assert set(np.unique(labels[rows:])) == {0} and 0 not in np.unique(labels[:rows])
    batch, _ = next(iter(load(args).train))
    assert batch.shape == (2, 4, 128, 128)


def test_a_folder_without_the_images_masks_is_refused(coco, tmp_path):
    args = options(coco, '--repaint', '--mask', 'folder', '--mask-dir', tmp_path, '--mask-classes', 182)
    with pytest.raises(UsageError, match=r'no mask for .*train2017'):
        load(args)


def test_a_mask_with_labels_beyond_the_classes_names_its_file(coco):
    masks = FolderMasks(coco / 'stuffthingmaps', coco, 3)
    dataset = DetectionDataset(CocoImages(str(coco), 'train2017'), eval_transform(128, MEAN), masks)
    with pytest.raises(UsageError, match=r'stuffthingmaps/train2017/\d+\.png has label \d+, classes are 0 to 2'):
        dataset[0]


def test_too_few_images_for_a_batch_are_refused(coco):
    with pytest.raises(UsageError, match='13 training images do not fill a batch of 14'):
        load(options(coco, '-b', 14))


def test_workers_draw_the_same_crops_again_from_the_same_seed(coco):
    dataset = DetectionDataset(CocoImages(str(coco), 'train2017'), train_transform(128, MEAN))

    def batch(seed):
        torch.manual_seed(seed)
        return collate([dataset[index] for index in range(3)])

    (first, boxes), (again, same), (other, _) = batch(0), batch(0), batch(1)
    assert torch.equal(first, again) and torch.equal(boxes, same)
    assert not torch.equal(first, other)


def test_boxes_outside_of_validation_images_are_told_too(coco, tmp_path, caplog):
    (tmp_path / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (tmp_path / split).symlink_to(coco / split)
        content = json.loads((coco / f'annotations/instances_{split}.json').read_text())
        first = content['annotations'][0]
        count = len(content['annotations']) + 1
        if split == 'val2017':
            content['annotations'].append({**first, 'id': 0, 'bbox': [9000, 9000, 9, 9]})
        (tmp_path / f'annotations/instances_{split}.json').write_text(json.dumps(content))
    load(options(tmp_path, '-b', 2))
    told = [record.message for record in caplog.records if 'left out' in record.message]
    assert told == [
        f'1 of {count} boxes of the validation images have less than a pixel in their image and are left out.'
    ]


def test_splits_that_share_images_are_refused_unless_one_name_says_so(coco, tmp_path):
    (tmp_path / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (tmp_path / split).symlink_to(coco / 'train2017')
        path = tmp_path / 'annotations' / f'instances_{split}.json'
        path.symlink_to(coco / 'annotations/instances_train2017.json')
    with pytest.raises(UsageError, match='13 images are trained on and validated on, first '):
        load(options(tmp_path, '-b', 2))
    load(options(tmp_path, '-b', 2, '--val-split', 'train'))


@pytest.mark.parametrize(
    ('boxes', 'message'),
    [
        ([], 'nothing to learn: of 0 boxes'),
        ([(0.1, 0.1, 0.5, 0.5)], '1 have less than a pixel in their image; a bbox is left, top, width and height in'),
    ],
)
def test_training_images_without_any_box_of_a_pixel_are_refused(boxes, message):
    annotated = [{'image_id': 1, 'category_id': 1, 'bbox': bbox} for bbox in boxes]
    images = [{'id': 1, 'file_name': 'a.jpg', 'height': 9, 'width': 9}]
    content = {'images': images, 'annotations': annotated, 'categories': [{'id': 1, 'name': 'x'}]}
    with pytest.raises(UsageError, match=message):
        check_boxes(parse_coco(content, 'file.json'))
    content['annotations'] = [*annotated, {'image_id': 1, 'category_id': 1, 'bbox': (0, 0, 5, 5)}]
    check_boxes(parse_coco(content, 'file.json'))
