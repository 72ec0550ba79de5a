"""What lies beside images and is as true of their repaints: boxes in COCO's files, label files, label maps."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from timm_repaint.claim import MANIFEST_NAME
from timm_repaint.detection.coco_file import LISTS, CocoFile, read_json
from timm_repaint.errors import UsageError, as_mistake, one_line
from timm_repaint.files import write_text, write_whole
from timm_repaint.log import logger
from timm_repaint.masks.folder import FolderMasks, mask_name
from timm_repaint.masks.label_png import digest, read_note, save_labels
from timm_repaint.painting.brush import Brush
from timm_repaint.painting.photographs import Photographs
from timm_repaint.pictures import is_inside, read_picture_size, walk

LABEL_ENDINGS = ('.txt', '.xml', '.json')
# Where YOLO and Pascal VOC keep the labels of the images of a folder.
LABEL_FOLDERS = {'images': 'labels', 'JPEGImages': 'Annotations'}
PAINTER_KEY = 'painted_by'  # in the `info` of a COCO file that is ours
PAINTER = 'timm-repaint paint'


@dataclass(frozen=True)
class CocoSet:
    """A COCO file below the images' folder.

    Attributes:
        name: Of the file, relative to that folder.
        base: The folder that its file names are relative to, relative likewise.
        content: What it holds.
    """

    name: str
    base: str
    content: dict[str, Any]


Companions = tuple[list[CocoSet], dict[str, list[str]]]  # COCO files; label files by image, relative to the folder


def find_companions(images: Photographs) -> Companions:
    """COCO files and label files of images; COCO files that do not come along are named.

    Raises:
        UsageError: if a file of COCO's form is wrong.
    """
    known = set(images.names)
    coco: list[CocoSet] = []
    if len(images.folders) == 1:
        for folder, files in walk(images.root):
            names = (os.path.join(folder, file) for file in files if file.endswith('.json'))
            coco += [one for name in names if (one := _read_coco(images.root, name, known)) is not None]
    ours = {one.name for one in coco}
    labels = {name: [file for file in _label_files(images.root, name) if file not in ours] for name in images.names}
    return coco, {name: files for name, files in labels.items() if files}


def _read_coco(root: Path, name: str, known: set[str]) -> CocoSet | None:
    """A JSON file if it is a COCO file of some of the images; one of COCO's that does not come along is named."""
    path = str(root / name)
    with as_mistake(path, advice='; move it away if it is of no use'), open(path, 'rb') as file:
        if b'"images"' not in file.read():
            return None
    content = read_json(path)
    lacks = [key for key in LISTS if key not in content] if isinstance(content, dict) else [*LISTS]
    if 'images' in lacks or len(lacks) > 1:
        return None
    if lacks:
        wrong = f'has no {lacks[0]}'
    elif _is_panoptic(content['annotations']):
        wrong = 'has panoptic segments, which are pictures of their own'
    else:
        base = _base_of(name, _check_coco(content, path), known)
        if base is not None:
            return CocoSet(name, base, content)
        wrong = 'lists none of the images'
    logger.warning('%s does not come along: it %s.', one_line(path), wrong)
    return None


def _is_panoptic(annotations: Any) -> bool:
    rows = annotations if isinstance(annotations, list) else []
    return any(isinstance(row, dict) and 'segments_info' in row for row in rows)


def _check_coco(content: dict[str, Any], path: str) -> list[str]:
    """File names of the images of a COCO file.

    Raises:
        UsageError: if it is none, an annotation is of no image of its list, or `info` is no object.
    """
    file = CocoFile(content, path)
    numbers = {image['id']: number for number, image in enumerate(file.images)}
    for number in range(len(file.annotations)):
        file.look_up(number, 'image', numbers)
    info = content.get('info') or {}
    if not isinstance(info, dict):
        raise file.mistake(f'info is a {type(info).__name__}, but has to be an object')
    return [image['file_name'] for image in file.images]


def _base_of(name: str, listed: list[str], known: set[str]) -> str | None:
    """The folder that a COCO file's names are relative to: its own, the images', or that of the split in its name."""
    stem = os.path.splitext(os.path.basename(name))[0]
    splits = [stem[at + 1 :] for at, letter in enumerate(stem) if letter == '_']
    bases = [os.path.dirname(name), '', *splits]
    found = {base: sum(os.path.normpath(os.path.join(base, one)) in known for one in listed) for base in bases}
    best = max(bases, key=lambda base: found[base])
    return best if found[best] else None


def _label_files(root: Path, name: str) -> Iterator[str]:
    stem, folders = os.path.splitext(name)[0], Path(name).parts[:-1]
    places = [stem]
    for number, folder in enumerate(folders):
        if folder in LABEL_FOLDERS:
            parts = (*folders[:number], LABEL_FOLDERS[folder], *folders[number + 1 :], os.path.basename(stem))
            places.append(os.path.join(*parts))
    for place in places:
        yield from (place + ending for ending in LABEL_ENDINGS if os.path.isfile(root / (place + ending)))


def copy_companions(companions: Companions, brush: Brush, stems: dict[str, str]) -> None:
    """Write what comes along once a repaint, beside the repaints as it lay beside the images.

    Args:
        companions: Of the images.
        brush: What painted them.
        stems: Of the repaints' names, by image; those that were painted.

    Raises:
        UsageError: if a file of another's is in the way.
    """
    coco, labels = companions
    for one in coco:
        path = brush.out / one.name
        if path.exists() and not _is_ours(read_json(str(path))):
            raise UsageError(f'{path} was there before: it is not overwritten; give another OUT')
        write_text(path, json.dumps(painted_coco(one, brush, stems)))
    for name, files in labels.items():
        for file in files if name in stems else ():
            ending = os.path.splitext(file)[1]
            content = (brush.root / file).read_bytes()
            for target in brush.targets(os.path.join(os.path.dirname(file), os.path.basename(stems[name]))):
                _write_once(target.with_suffix(ending), _renamed(content, ending, target.name))
    if isinstance(brush.masks, FolderMasks):
        _copy_masks(brush, brush.masks, stems)


def painted_coco(one: CocoSet, brush: Brush, stems: dict[str, str]) -> dict[str, Any]:
    """The content of a COCO file with each painted image once a repaint, and new ids of images and annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in one.content['annotations']:
        of_image.setdefault(annotation['image_id'], []).append(annotation)
    base = brush.out / one.base
    for image in one.content['images']:
        stem = stems.get(os.path.normpath(os.path.join(one.base, image['file_name'])))
        for target in brush.targets(stem) if stem is not None else ():
            images.append({**image, 'id': len(images) + 1, 'file_name': target.relative_to(base).as_posix()})
            for annotation in of_image.get(image['id'], []):
                annotations.append({**annotation, 'id': len(annotations) + 1, 'image_id': len(images)})
    info = {**(one.content.get('info') or {}), PAINTER_KEY: PAINTER}
    return {**one.content, 'info': info, 'images': images, 'annotations': annotations}


def _is_ours(content: Any) -> bool:
    info = content.get('info') if isinstance(content, dict) else None
    return isinstance(info, dict) and PAINTER_KEY in info


def _renamed(content: bytes, ending: str, name: str) -> bytes:
    """A label file with another name of its image where it says one: Pascal VOC's and LabelMe's do."""
    if ending == '.xml':
        tags = re.compile(rb'<(filename|path)>[^<]*</')
        return tags.sub(lambda tag: b'<%b>%b</' % (tag[1], escape(name).encode()), content)
    if ending == '.json' and b'"imagePath"' in content:
        with suppress(ValueError):
            values = json.loads(content)
            if isinstance(values, dict) and 'imagePath' in values:
                return json.dumps({**values, 'imagePath': name, 'imageData': None}, indent=2).encode()
    return content


def _write_once(path: Path, content: bytes) -> None:
    if not path.exists():
        write_whole(path, lambda file: file.write(content))
    elif path.read_bytes() != content:
        raise UsageError(f'{path} was there before, with other labels: it is not overwritten; give another OUT')


def mask_folder(brush: Brush, masks: FolderMasks) -> Path:
    """Where the repaints' label maps go: as the images' lie in their folder, or else into OUT-masks."""
    if is_inside(masks.mask_dir, str(brush.root)):
        return brush.out / os.path.relpath(os.path.realpath(masks.mask_dir), os.path.realpath(brush.root))
    return Path(f'{os.path.normpath(brush.out)}-masks')


def _copy_masks(brush: Brush, masks: FolderMasks, stems: dict[str, str]) -> None:
    folder = mask_folder(brush, masks)
    manifest = os.path.join(masks.mask_dir, MANIFEST_NAME)
    if os.path.isfile(manifest):
        _write_once(folder / MANIFEST_NAME, Path(manifest).read_bytes())
    for name, stem in stems.items():
        labels = None
        for target in brush.targets(stem):
            path = folder / mask_name(str(target.relative_to(brush.out)))
            note = digest(target.read_bytes())
            if path.exists():
                if read_note(path) == note:
                    continue
                raise UsageError(f'{path} was there before, of another image: it is not overwritten; give another OUT')
            if labels is None:
                image = brush.root / name
                labels = masks.read(image, read_picture_size(image))
            save_labels(path, labels, note)
