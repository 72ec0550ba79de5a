"""Boxes and classes of a data set's images: COCO's JSON files, held as arrays that loader workers share."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from timm_repaint.detection.coco_file import CocoFile, read_json
from timm_repaint.errors import UsageError


@dataclass(frozen=True)
class Annotations:
    """All boxes of N images; those of image i are the rows first[i] to first[i + 1] - 1.

    Attributes:
        class_names: K names; class k, 1..K, is class_names[k - 1].
        file_names: N names below the images' folder.
        sizes_hw: Height and width of each image, [N, 2] int32.
        first: [N + 1] int64.
        boxes: x0, y0, x1, y1 in pixels, [A, 4] float32.
        classes: 1..K, [A] int64.
        crowds: Whether the box holds a crowd, which is no object to learn and no mistake to find, [A] bool.
        areas: Pixels of the object, which COCO counts inside its outline, [A] float32.
    """

    class_names: tuple[str, ...]
    file_names: tuple[str, ...]
    sizes_hw: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.file_names)

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What there is to learn in an image: boxes [n, 4] of a pixel or more that are no crowds, and classes [n]."""
        rows = slice(*self.first[index : index + 2])
        boxes, whole = cut_boxes(self.boxes[rows], self.sizes_hw[index, ::-1])
        wanted = ~self.crowds[rows] & whole
        return boxes[wanted], self.classes[rows][wanted]

    def _cut(self) -> tuple[np.ndarray, np.ndarray]:
        return cut_boxes(self.boxes, np.repeat(self.sizes_hw[:, ::-1], np.diff(self.first), axis=0))

    def count_slivers(self) -> int:
        """Boxes of which less than a pixel lies in their image, which are neither learned nor looked for."""
        return int((~self.crowds & ~self._cut()[1]).sum())

    def select(self, indices: np.ndarray) -> 'Annotations':
        """Those of some of the images, in the order of `indices`, [N] whole numbers."""
        counts = np.diff(self.first)[indices]
        rows = [np.arange(self.first[index], self.first[index + 1]) for index in indices]
        chosen = np.concatenate([np.zeros(0, np.int64), *rows])
        first = np.concatenate([np.zeros(1, np.int64), counts.cumsum()])
        names = tuple(self.file_names[index] for index in indices)
        per_box = (self.boxes[chosen], self.classes[chosen], self.crowds[chosen], self.areas[chosen])
        return Annotations(self.class_names, names, self.sizes_hw[indices], first, *per_box)

    def to_coco(self) -> dict[str, Any]:
        """What there is to find, in COCO's words for its evaluators: image i has the id i + 1, class k the id k.

        Boxes are those that are learned, and crowds.
        """
        images = [
            {'id': number, 'file_name': name, 'height': int(height), 'width': int(width)}
            for number, (name, (height, width)) in enumerate(zip(self.file_names, self.sizes_hw, strict=True), start=1)
        ]
        image_ids = np.repeat(np.arange(1, len(self) + 1), np.diff(self.first))
        boxes, whole = self._cut()
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        columns = (image_ids, corners, self.classes, self.crowds, self.areas)
        rows = zip(*(column[whole | self.crowds] for column in columns), strict=True)
        annotations = [
            {
                'id': number,
                'image_id': int(image_id),
                'category_id': int(class_id),
                'bbox': box.tolist(),
                'area': float(area),
                'iscrowd': int(crowd),
            }
            for number, (image_id, box, class_id, crowd, area) in enumerate(rows, start=1)
        ]
        categories = [{'id': number, 'name': name} for number, name in enumerate(self.class_names, start=1)]
        return {'info': {}, 'images': images, 'annotations': annotations, 'categories': categories}


def cut_boxes(boxes: np.ndarray, sizes_wh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut at their images, and which of them have a pixel or more left.

    Args:
        boxes: x0, y0, x1, y1 in pixels, [A, 4].
        sizes_wh: Width and height of each one's image, [A, 2], or of the image of all, [2].

    Returns:
        [A, 4] float32, and [A] bool.
    """
    boxes = boxes.clip(0, np.tile(sizes_wh, 2)).astype(np.float32)
    return boxes, ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)


def annotation_path(root: str, split: str) -> str:
    """COCO's place for the boxes of a split."""
    return os.path.join(root, 'annotations', f'instances_{split}.json')


@lru_cache(maxsize=4)  # the model asks for the classes, then the data sets for everything; a large file takes a minute
def read_coco(root: str, split: str) -> Annotations:
    """Read `ROOT/annotations/instances_<split>.json`.

    Category ids may have gaps (COCO's go from 1 to 90 and are 80): classes are numbered 1..K in the order of the ids.
    Images come in the order of their ids, those without boxes too.

    Raises:
        UsageError: if the file is missing or wrong: see `CocoFile`.
    """
    path = annotation_path(root, split)
    if not os.path.isfile(path):
        raise UsageError(f'{path} does not exist; the data folder needs annotations/ and {split}/, as COCO has them')
    return parse_coco(read_json(path), path)


def parse_coco(content: Any, path: str) -> Annotations:
    """The content of a COCO file as arrays; see `read_coco`."""
    file = CocoFile(content, path)
    categories = sorted(file.categories, key=lambda category: category['id'])
    images = sorted(file.images, key=lambda image: image['id'])
    class_of = {category['id']: number for number, category in enumerate(categories, start=1)}
    number_of = {image['id']: number for number, image in enumerate(images)}
    boxes: list[list[list[float]]] = [[] for _ in images]
    for number in range(len(file.annotations)):
        image, row = file.row(number, number_of, class_of)
        boxes[image].append(row)
    rows = np.array([row for image in boxes for row in image], dtype=np.float64).reshape(-1, 7)
    return Annotations(
        class_names=tuple(str(category['name']) for category in categories),
        file_names=tuple(image['file_name'] for image in images),
        sizes_hw=np.array([(image['height'], image['width']) for image in images], dtype=np.int32),
        first=np.cumsum([0, *map(len, boxes)]),
        boxes=rows[:, :4].astype(np.float32),
        classes=rows[:, 6].astype(np.int64),
        crowds=rows[:, 5] != 0,
        areas=rows[:, 4].astype(np.float32),
    )
