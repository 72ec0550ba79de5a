"""The manifest of a mask cache: what its masks were made from, so that two kinds of masks never share a folder."""

import hashlib
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from timm_repaint.claim import MANIFEST_NAME, claim, read_values
from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.version import __version__

FORMAT = 1
MAX_LABELS = 255


@dataclass(frozen=True)
class Manifest:
    """What decides the masks of a cache.

    Attributes:
        source: name of the mask source.
        kind: 'segment' or 'semantic'.
        num_labels: number of classes of a semantic source, else None.
        size_px: longest length of a mask's shorter side.
        parameters: the source's own settings, plain values.
        timm_repaint: version of this package; another one does not make another cache.
        format: layout of the cache.
    """

    source: str
    kind: str
    num_labels: int | None
    size_px: int
    parameters: dict[str, Any] = field(default_factory=dict)
    timm_repaint: str = __version__
    format: int = FORMAT


def describe(name: str, source: Any, size_px: int = 0, checkpoint: str = '') -> Manifest:
    """The manifest of the masks that a source makes.

    Args:
        name: the source's name behind `--mask`.
        source: a mask source; its `settings`, if it has any, are recorded.
        size_px: see mask_size.
        checkpoint: file of its weights; recorded by name and SHA-256.

    Raises:
        UsageError: if the checkpoint cannot be read.
    """
    parameters = dict(getattr(source, 'settings', {}))
    if checkpoint:
        parameters['checkpoint'] = os.path.basename(checkpoint)
        parameters['checkpoint_sha256'] = sha256(checkpoint)
    return Manifest(name, source.kind, source.num_labels, size_px, parameters)


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with as_mistake(f'checkpoint {path}'), open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(mask_dir: str | Path) -> Manifest:
    """Reads the manifest of a cache.

    Raises:
        UsageError: if there is none, or it is not one.
    """
    path = Path(mask_dir) / MANIFEST_NAME
    with as_mistake(str(path), advice=f'; make the masks with: timm-repaint masks IMAGES {mask_dir}'):
        values = read_values(mask_dir)
    for one in fields(Manifest):
        value = values.get(one.name)
        wanted: Any = dict if one.name == 'parameters' else one.type
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UsageError(f'{path} is not the manifest of a mask cache: {one.name} is {value!r}')
    if len(values) > len(fields(Manifest)) or values['format'] != FORMAT:
        raise UsageError(f'{path} is not the manifest of a mask cache of format {FORMAT}')
    labels, kind = values['num_labels'], values['kind']
    fits = kind == 'segment' if labels is None else kind == 'semantic' and 1 <= labels <= MAX_LABELS
    if not fits or values['size_px'] < 1:
        raise UsageError(
            f'{path} is not the manifest of a mask cache: masks of kind {kind!r} with num_labels {labels!r} and '
            f'size_px {values["size_px"]}'
        )
    return Manifest(**values)


def claim_folder(mask_dir: str | Path, manifest: Manifest) -> None:
    """Writes the manifest of a new cache, or checks that an old one's is the same: see `claim`."""
    claim(mask_dir, asdict(manifest))
    read_manifest(mask_dir)
