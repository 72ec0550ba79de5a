"""Masks of images in a tar, in webdataset's shards and in a Hugging Face data set: made, checked, trained with."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from timm.data import create_dataset

from tests.helpers import call_main, read_summary, train_here
from timm_repaint.data.named import NamedImages
from timm_repaint.data.samples import fixed_samples
from timm_repaint.data.stored import Masked
from timm_repaint.engine.masks import with_stored_masks
from timm_repaint.errors import UsageError
from timm_repaint.masks import __main__ as command
from timm_repaint.masks.archive import ArchiveMasks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.label_png import save_labels
from timm_repaint.masks.manifest import claim_folder, describe

COUNT = 24
KINDS = ('tar', 'wds', 'hfds')


def encoded(index: int) -> bytes:
    """Image `index`: dark left of column 8 + index, bright right of it; a PNG."""
    image_u8 = np.random.default_rng(index).integers(0, 40, (40, 48, 3), dtype=np.uint8)
    image_u8[:, 8 + index :] += np.uint8(160)
    file = io.BytesIO()
    Image.fromarray(image_u8).save(file, 'PNG')
    return file.getvalue()


def write_tar(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, 'w') as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


class Packed:
    """A packed data set: how `timm-repaint masks` and how `train.py` name it."""

    def __init__(self, kind: str, root) -> None:
        self.kind, self.root = kind, root
        if kind == 'tar':
            write_tar(root / 'train.tar', {f'{"ab"[i % 2]}/{i}.png': encoded(i) for i in range(COUNT)})
            self.images, self.training = (root / 'train.tar',), (root / 'train.tar',)
        elif kind == 'wds':
            pytest.importorskip('webdataset')
            for shard in range(2):
                numbers = range(shard, COUNT, 2)
                both = {f'{i:04d}.{end}': encoded(i) if end == 'png' else b'%d' % (i % 2) for i in numbers
                        for end in ('png', 'cls')}  # fmt: skip
                write_tar(root / f'train-{shard:04d}.tar', both)
            split = f'train-{{0000..0001}}.tar|{COUNT}'
            self.images = ('wds/', '--data-dir', root, '--split', split)
            self.training = ('--dataset', 'wds/', '--data-dir', root, '--train-split', split)
        else:
            pytest.importorskip('datasets')
            import pyarrow
            from pyarrow import parquet

            types = {'image': {'_type': 'Image'}, 'label': {'names': ['a', 'b'], '_type': 'ClassLabel'}}
            images = [{'bytes': encoded(i), 'path': f'{i}.png'} for i in range(COUNT)]
            table = pyarrow.table({'image': images, 'label': [i % 2 for i in range(COUNT)]})
            (root / 'set').mkdir()
            table = table.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': types}})})
            parquet.write_table(table, root / 'set' / 'train.parquet')
            self.images = (f'hfds/{root / "set"}', '--data-dir', root / 'cache')
            self.training = ('--dataset', self.images[0], '--data-dir', root / 'cache')

    def make(self, out, *options) -> int:
        return call_main(command.main, self.images[0], out, *self.images[1:], '--workers', 2, *options)

    def masked(self, masks):
        """The images with their stored masks."""
        if self.kind == 'tar':
            dataset = create_dataset('', str(self.root / 'train.tar'))
        else:
            split = self.images[4] if self.kind == 'wds' else 'train'
            dataset = create_dataset(self.images[0], str(self.images[2]), split=split)
        return with_stored_masks(dataset if self.kind == 'wds' else NamedImages(dataset), ArchiveMasks(masks))

    def read(self, masks) -> list:
        """All of them."""
        dataset = self.masked(masks)
        return list(dataset) if self.kind == 'wds' else [dataset[index] for index in range(len(dataset))]

    def train(self, out, masks, *options):
        return train_here(
            out, *self.training, '--num-classes', 2, '--val-split', '', '--repaint', '--repaint-width', 8,
            '--epochs', 2, '--mask', 'fh', '--mask-dir', masks, *options,
        )  # fmt: skip


@pytest.fixture(scope='module', params=KINDS)
def packed(request, tmp_path_factory):
    return Packed(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='module')
def masks(packed, tmp_path_factory):
    out = tmp_path_factory.mktemp('masks') / 'out'
    assert packed.make(out) == 0
    return out


def names(folder) -> set[str]:
    return {path.name for path in folder.rglob('*.png')}


def test_each_image_has_a_mask_and_a_second_call_makes_none(packed, masks, capsys):
    assert len(names(masks)) == COUNT
    packed.make(masks)
    assert f'0 masks made, {COUNT} were there, 0 images failed' in capsys.readouterr().out


def test_shards_make_the_same_masks_together(packed, masks, tmp_path):
    packed.make(tmp_path / 'out', '--shard', '1/2')
    assert len(names(tmp_path / 'out')) == COUNT // 2
    packed.make(tmp_path / 'out', '--shard', '2/2')
    assert names(tmp_path / 'out') == names(masks)


def test_a_check_names_the_image_without_a_mask(packed, tmp_path, capsys):
    packed.make(tmp_path / 'out', '--mask', 'superpixels')
    assert packed.make(tmp_path / 'out', '--check') == 0
    next((tmp_path / 'out').rglob('*.png')).unlink()
    assert packed.make(tmp_path / 'out', '--check') == 1
    told = capsys.readouterr()
    assert f'{COUNT - 1} masks good, 1 bad' in told.out and 'does not exist' in told.err


def test_images_come_with_their_own_masks(packed, masks):
    seen = 0
    for masked, _ in packed.read(masks):
        assert isinstance(masked, Masked) and masked.labels.shape == (40, 48)
        bright = np.asarray(masked.picture)[20, :, 0] > 100
        assert not set(masked.labels[20, bright]) & set(masked.labels[20, ~bright])
        seen += 1
    assert seen == COUNT


def test_a_look_at_a_stream_does_not_start_its_reader(packed, masks):
    dataset = packed.masked(masks)
    samples = fixed_samples(dataset, None, {'input_size': (3, 32, 32), 'interpolation': 'bilinear'}, 4)
    assert all(len(np.unique(labels)) > 1 for labels in samples.labels)
    assert packed.kind != 'wds' or dataset.reader.ds is None


def test_a_mask_that_is_missing_or_another_images_ends_the_reading(packed, masks, tmp_path):
    shutil.copytree(masks, tmp_path / 'out')
    lost = sorted((tmp_path / 'out').rglob('*.png'))[COUNT // 2]
    lost.unlink()
    with pytest.raises(UsageError, match=f'mask .*{lost.name} does not exist'):
        packed.read(tmp_path / 'out')
    save_labels(lost, np.zeros((20, 48), np.uint8))
    with pytest.raises(UsageError, match='is 20x48, its image is 40x48'):
        packed.read(tmp_path / 'out')


def test_a_run_takes_them(packed, masks, tmp_path):
    run = packed.train(tmp_path, masks, '-j', 1)
    (row,) = read_summary(run)
    assert row['train_diversity'] > 0 and (run / 'gallery-0.png').is_file()


def test_a_run_without_them_says_how_they_are_made(packed, tmp_path):
    claim_folder(tmp_path / 'none', describe('fh', FelzenszwalbMasks(), 256))
    with pytest.raises(UsageError, match=r'no mask for .* in .*none; make the masks with timm-repaint masks'):
        packed.train(tmp_path, tmp_path / 'none')
