import logging

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageDataset, IterableImageDataset, create_dataset, create_loader

from timm_repaint.data.folders import check_classes
from timm_repaint.data.named import NamedImages
from timm_repaint.errors import UsageError


def make_folder(root, names, broken=()):
    """Images of one grey level each: number times 10; the broken ones are no images at all."""
    for number, name in enumerate(names):
        path = root / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in broken:
            path.write_bytes(b'not an image')
        else:
            Image.fromarray(np.full((32, 32, 3), 10 * number, np.uint8)).save(path)
    return root


NAMES = ['cat/a.png', 'cat/b.png', 'dog/c.png', 'dog/d.png']


def named(root, broken=(), names=NAMES):
    dataset = create_dataset('', root=make_folder(root, names, broken), split='train')
    assert isinstance(dataset, ImageDataset)
    return NamedImages(dataset)


def level(sample):
    return np.asarray(sample[0]).flat[0], sample[1]


def test_readable_images_come_as_they_are(tmp_path):
    dataset = named(tmp_path)
    assert [level(dataset[index]) for index in range(4)] == [(0, 0), (10, 0), (20, 1), (30, 1)]
    assert len(dataset) == 4 and dataset.skipped == 0


def test_an_unreadable_image_is_named_counted_and_replaced_by_the_next_with_its_label(tmp_path, caplog):
    dataset = named(tmp_path, broken=['cat/b.png'])
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        assert level(dataset[1]) == (20, 1)
    assert dataset.skipped == 1
    assert 'cat/b.png skipped (1 skipped so far): cannot identify image' in caplog.text
    dataset[1]
    assert dataset.skipped == 2


def test_the_last_image_is_replaced_by_the_first(tmp_path):
    assert level(named(tmp_path, broken=['dog/d.png'])[3]) == (0, 0)


def test_a_truncated_photograph_counts_as_unreadable(tmp_path):
    dataset = named(tmp_path)
    whole = (tmp_path / 'train/cat/a.png').read_bytes()
    (tmp_path / 'train/cat/a.png').write_bytes(whole[: len(whole) // 2])
    assert level(dataset[0]) == (10, 0) and dataset.skipped == 1


def test_images_of_16_bits_are_scaled_where_pillow_cuts_them_and_that_is_said_once(tmp_path, caplog):
    dataset = named(tmp_path)
    for name, value in (('cat/a.png', 257 * 100), ('cat/b.png', 257 * 200), ('dog/c.png', 90)):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / 'train' / name)
    assert [level(dataset[index]) for index in range(3)] == [(100, 0), (200, 0), (90, 1)]
    assert [line for line in caplog.messages if '16 bits' in line] == [
        'cat/a.png has 16 bits a pixel or more: such images are scaled to 8 bits.'
    ]


@pytest.mark.parametrize(
    'content', [b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + b'\xff' * 30, b'BM', b'', b'<html>404</html>'], ids=repr
)
def test_whatever_a_file_holds_it_is_skipped(content, tmp_path):
    dataset = named(tmp_path)
    (tmp_path / 'train/cat/a.png').write_bytes(content)
    assert level(dataset[0]) == (10, 0)


def test_an_image_above_pillows_limit_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500)
    dataset = named(tmp_path)
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / 'train/cat/b.png')
    assert level(dataset[0]) == (7, 0)


def test_it_gives_up_after_as_many_in_a_row_as_timm_and_names_the_first(tmp_path):
    names = [f'cat/{number:02}.png' for number in range(12)]
    dataset = named(tmp_path, broken=names[:11], names=names)
    with pytest.raises(UsageError, match=r'10 unreadable images in a row, from .*cat/00\.png on'):
        dataset[0]
    assert dataset.skipped == 10
    assert level(dataset[2]) == (110, 0)  # nine bad ones, then a good one


def test_a_transforms_own_error_is_not_taken_for_an_unreadable_image(tmp_path):
    dataset = named(tmp_path)

    def fail(image):
        raise RuntimeError('on purpose')

    dataset.transform = fail
    with pytest.raises(RuntimeError, match='on purpose'):
        dataset[0]
    assert dataset.skipped == 0


def test_an_image_without_a_name_gets_its_number(tmp_path):
    dataset = named(tmp_path)

    class Nameless:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise OSError('gone')

    dataset.reader = Nameless()
    with pytest.raises(UsageError, match='in a row, from number 2 on: gone'):
        dataset[2]


def test_skips_in_worker_processes_are_counted_together(tmp_path):
    dataset = named(tmp_path, broken=['cat/b.png', 'dog/d.png'])
    loader = create_loader(
        dataset, (3, 32, 32), batch_size=2, num_workers=2, persistent_workers=False, device=torch.device('cpu')
    )
    images = torch.cat([batch for batch, _ in loader])
    assert len(images) == 4 and dataset.skipped == 2


class StreamReader:
    """Like timm's readers of Hugging Face and WebDataset data: a folder and classes, but no list of files."""

    def __init__(self, root):
        self.root, self.class_to_idx = str(root), {'cat': 0, 'dog': 1}


def test_data_sets_whose_reader_lists_no_files_are_not_taken_for_image_folders(tmp_path):
    (tmp_path / 'shards').mkdir()
    check_classes(IterableImageDataset('', reader=StreamReader(tmp_path)), 'train', 2, None)
