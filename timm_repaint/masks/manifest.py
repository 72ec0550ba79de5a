"""The manifest of a mask cache: what its masks were made from, so that two kinds of masks never share a folder."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timm_repaint.errors import UsageError
from timm_repaint.files import write_text
from timm_repaint.version import __version__

MANIFEST_NAME = 'manifest.json'
FORMAT = 1


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

    def differences(self, other: 'Manifest') -> list[str]:
        """What another manifest has otherwise, one 'name is A, not B' each, A its own value."""
        mine, theirs = ({**asdict(one), **one.parameters} for one in (self, other))
        names = sorted((mine.keys() | theirs.keys()) - {'parameters', 'timm_repaint'})
        return [
            f'{name} is {mine.get(name)}, not {theirs.get(name)}'
            for name in names
            if mine.get(name) != theirs.get(name)
        ]


def describe(name: str, source: Any, size_px: int, checkpoint: str = '') -> Manifest:
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
    try:
        with open(path, 'rb') as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise UsageError(f'checkpoint {path}: {error.strerror}') from error
    return digest.hexdigest()


def read_manifest(mask_dir: str | Path) -> Manifest:
    """Reads the manifest of a cache.

    Raises:
        UsageError: if there is none, or it is not one.
    """
    path = Path(mask_dir) / MANIFEST_NAME
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
        manifest = Manifest(**values)
    except OSError as error:
        raise UsageError(
            f'{path}: {error.strerror}; make the masks with: python -m timm_repaint.masks IMAGES {mask_dir}'
        ) from None
    except (ValueError, TypeError) as error:
        raise UsageError(f'{path} is not the manifest of a mask cache: {error}') from error
    if manifest.format != FORMAT or not isinstance(manifest.size_px, int) or manifest.size_px < 1:
        raise UsageError(f'{path} is not the manifest of a mask cache of format {FORMAT}')
    return manifest


def claim_folder(mask_dir: str | Path, manifest: Manifest) -> None:
    """Writes the manifest of a new cache, or checks that an old one's is the same.

    Of processes that start together one writes it; the others compare.

    Args:
        mask_dir: folder of the cache; it is made.
        manifest: what this run makes.

    Raises:
        UsageError: if the folder holds other masks, other files or cannot be written.
    """
    path = Path(mask_dir) / MANIFEST_NAME
    if not path.exists():
        if _holds_files(path.parent) and not path.exists():  # again: another process may have begun in between
            raise UsageError(f'{mask_dir} holds files, but no {MANIFEST_NAME}; give an empty or a new folder')
        text = json.dumps(asdict(manifest), indent=2) + '\n'
        write_text(path, text, place=_link)
    differences = read_manifest(mask_dir).differences(manifest)
    if differences:
        raise UsageError(f'{path} is of other masks: {"; ".join(differences)}; use the same options, or another folder')


def _holds_files(folder: Path) -> bool:
    try:
        return any(not name.startswith('.') for name in os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f'{folder}: {error.strerror}') from error


def _link(part: Path, path: Path) -> None:
    """Puts a file in its place unless another process was faster; file systems without hard links replace it."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:
        os.replace(part, path)
