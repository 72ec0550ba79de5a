"""Images that are no files of their own, in tars, webdataset's shards or Hugging Face's tables, and their masks.

A mask is named after its image's bytes, not after their place: it stays the image's in other shards, in another
order and in a part of the data set, and another image cannot have it.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from timm_repaint.errors import UsageError
from timm_repaint.masks.folder import CachedMasks, FolderMasks, StoredMasks
from timm_repaint.masks.label_png import digest
from timm_repaint.timm_data import create_timm_dataset

PREFIXES = ('hfds', 'wds')  # of --dataset
RANDOM_ACCESS = ('ReaderHfds',)  # by name: their packages may not be there
SHARDS = ('ReaderWds',)


def is_packed_name(images: str) -> bool:
    """Whether images are named as `--dataset` names them, or lie in a tar."""
    return not os.path.isdir(images) and (images.partition('/')[0].lower() in PREFIXES or images.endswith('.tar'))


@dataclass(frozen=True)
class PackedImages:
    """Which packed images are meant; worker processes get this, not the lists of a million names behind it.

    Args:
        images: a tar, or hfds/NAME or wds/ as for `--dataset`.
        root: as `--data-dir` for the training.
        split: as `--train-split`.
        input_key: as `--input-key`.
    """

    images: str
    root: str | None = None
    split: str = 'train'
    input_key: str | None = None

    @property
    def dataset(self) -> Any:
        """timm's data set, opened once in a process and its children.

        Raises:
            UsageError: if it cannot be read.
        """
        return _open(self)


@lru_cache(maxsize=1)
def _open(packed: PackedImages) -> Any:
    is_tar = packed.images.endswith('.tar')
    if is_tar and not os.path.isfile(packed.images):
        raise UsageError(f'tar {packed.images} does not exist')
    if packed.images.lower().startswith('wds') and not packed.root:
        raise UsageError(f'{packed.images} needs --data-dir, the folder of the shards')
    root = packed.images if is_tar else packed.root
    return create_timm_dataset('' if is_tar else packed.images, packed.split, root=root, input_key=packed.input_key)


def is_random_access(dataset: Any) -> bool:
    """Whether a data set's images are in a tar or a table, where any can be read at any time."""
    reader = getattr(dataset, 'reader', None)
    return isinstance(reader, ReaderImageInTar) or type(reader).__name__ in RANDOM_ACCESS


def is_sharded(dataset: Any) -> bool:
    """Whether a data set is a stream of webdataset's shards."""
    return type(getattr(dataset, 'reader', None)).__name__ in SHARDS


def packed_parts(dataset: Any) -> Sequence[Any]:
    """What `read_packed` reads one by one: numbers of images, or paths of shards."""
    if is_sharded(dataset):
        return [os.path.join(dataset.reader.root, name) for name in dataset.reader.split_info.filenames]
    return range(len(dataset.reader))


def read_packed(dataset: Any, part: Any) -> Iterator[tuple[str, bytes]]:
    """The images of a part of a packed data set: what to call each in a message, and its encoded bytes."""
    if not is_sharded(dataset):
        yield f'image {part}', content_of(dataset, part)
        return
    import webdataset
    from webdataset.filters import getfirst

    for sample in webdataset.DataPipeline(webdataset.SimpleShardList([part]), webdataset.tarfile_to_samples()):
        image = getfirst(sample, dataset.reader.input_key, default=None, missing_is_error=False)
        if image is not None:
            yield f'{part}: {sample["__key__"]}', image


def content_of(dataset: Any, index: int) -> bytes:
    """The encoded bytes of an image of a data set with random access."""
    with dataset.reader[index][0] as file:
        return file.read()


def packed_name(content: bytes) -> str:
    """Where the mask of an image lies, as if the image were a file: folders of some hundreds for a million."""
    name = digest(content)
    return f'{name[:3]}/{name}.image'


class NamedDecode:
    """timm's decoding of a sample of a shard, whose picture comes with the name of its mask.

    Args:
        decode: timm's.
        input_key: where a sample has its image.
    """

    def __init__(self, decode: Callable[[dict[str, Any]], Any], input_key: str) -> None:
        self.decode, self.input_key = decode, input_key

    def __call__(self, sample: dict[str, Any]) -> Any:
        """A sample, its image encoded -> the same with (picture, packed_name); None where timm leaves it out."""
        from webdataset.filters import getfirst

        decoded = self.decode(sample)
        return decoded and {**decoded, 'jpg': (decoded['jpg'], packed_name(getfirst(sample, self.input_key)))}


def keep_names(reader: Any) -> None:
    """Lets timm's reader of shards give (picture, packed_name) instead of pictures."""
    import webdataset

    if reader.ds is None:
        reader._lazy_init()
    stages = reader.ds.pipeline
    decode, kwargs = stages[-2].args[0], stages[-2].kw
    if not isinstance(decode, NamedDecode):
        stages[-2] = webdataset.map(NamedDecode(decode, reader.input_key), **kwargs)


class ArchiveMasks(StoredMasks):
    """Masks that `timm-repaint masks` made of images in tars, shards or tables.

    Args:
        mask_dir: folder of the masks.

    Attributes:
        manifest: what the masks were made from.

    Raises:
        UsageError: if mask_dir is not a mask cache.
    """

    def __init__(self, mask_dir: str | Path) -> None:
        self._files = CachedMasks(mask_dir, mask_dir)  # as if the images lay there
        self.mask_dir, self.manifest = self._files.mask_dir, self._files.manifest
        self.kind, self.num_labels = self._files.kind, self._files.num_labels

    def check_first(self, dataset: Any, advice: str) -> None:
        """Look whether the first image of a data set has a mask.

        Raises:
            UsageError: with the advice, if it has none.
        """
        for name, content in itertools.islice(read_packed(dataset, packed_parts(dataset)[0]), 1):
            if not os.path.isfile(self._files.mask_path(self._as_file(packed_name(content)))):
                raise UsageError(f'no mask for {name} in {self.mask_dir}; {advice}')

    def of(self, dataset: Any, index: int, image_hw: tuple[int, int]) -> np.ndarray:
        """See `StoredMasks`; [h, w] of mask_size. Raises as `read` does."""
        return self.read(packed_name(content_of(dataset, index)), image_hw)

    def read(self, name: str, image_hw: tuple[int, int]) -> np.ndarray:
        """The mask of an image by its `packed_name`.

        Raises:
            UsageError: if the mask is missing, unreadable, of another size or has labels beyond the classes.
        """
        return FolderMasks.read(self._files, self._as_file(name), image_hw)

    def _as_file(self, name: str) -> str:
        return os.path.join(self._files.image_root, name)
