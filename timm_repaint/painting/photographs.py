"""The images that a command line names: files, folders and patterns, and their names below one folder."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm.data.readers.img_extensions import get_img_extensions

from timm_repaint.pictures import ending_of, find_pictures


@dataclass(frozen=True)
class Photographs:
    """Images below a folder.

    Attributes:
        root: The folder that was named, or the one that holds all that were.
        names: Of the images, relative to it.
        folders: Those that were named.
    """

    root: Path
    names: list[str]
    folders: list[str]

    @property
    def stems(self) -> list[str]:
        """Names without an ending; those that would be of several images keep it, as of a.jpg, a.png and a.jpg.png."""
        stems = [os.path.splitext(name)[0] for name in self.names]
        while len(count := Counter(stems)) < len(stems):
            stems = [name if count[stem] > 1 else stem for name, stem in zip(self.names, stems, strict=True)]
        return stems


def find_photographs(items: Sequence[str], mask_dir: str | None = None) -> Photographs:
    """The images of files and folders, at least one, each once; a folder of label maps among them holds none.

    Raises:
        UsageError: as `find_pictures`.
    """
    folders = [path for path in items if os.path.isdir(path)]
    alone = len(items) == len(folders) == 1
    root = items[0] if alone else os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in items])
    named: dict[str, None] = {}
    for path in items:
        below = find_pictures(path, tell=True) if os.path.isdir(path) else [os.curdir]
        named.update(dict.fromkeys(os.path.relpath(os.path.join(path, name), root) for name in below))
    names = list(named)
    if mask_dir:
        masks = os.path.join(os.path.relpath(os.path.realpath(mask_dir), os.path.realpath(root)), '')
        names = [name for name in names if not name.startswith(masks)]
    return Photographs(Path(root), names, folders)


def expand(word: str) -> list[str]:
    """A file or folder, or what a pattern matches: folders, and files that are images; nothing if there is none."""
    if os.path.exists(word):
        return [word]
    endings = get_img_extensions(as_set=True)
    found = sorted(glob.glob(word, recursive=True))
    # ** matches folders and what is in them.
    return [path for path in found if ending_of(path) in endings or ('**' not in word and os.path.isdir(path))]
