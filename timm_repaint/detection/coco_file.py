"""A COCO file as it comes from a tool or a stranger: read and checked, so that a mistake in it is named."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

from timm_repaint.errors import UsageError, as_mistake

MAX_SIDE_PX = 2**31 - 1
LISTS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('image_id', 'category_id', 'bbox'),
    'categories': ('id', 'name'),
}


class CocoFile:
    """The three lists of a COCO file; each item has what `LISTS` says, and ids are numbers alone or texts alone.

    Args:
        content: What the JSON file holds.
        path: The file, for messages.

    Raises:
        UsageError: naming the item and what is wrong with it.
    """

    def __init__(self, content: Any, path: str) -> None:
        self.path = path
        if not isinstance(content, dict):
            raise self.mistake(f'it holds a {type(content).__name__}, but has to be an object with {", ".join(LISTS)}')
        self.images, self.annotations, self.categories = (self._items(content, name) for name in LISTS)
        if not self.images or not self.categories:
            raise UsageError(
                f'{path} lists {len(self.images)} images and {len(self.categories)} categories; it needs some of both'
            )
        self._check_ids('images', self.images)
        self._check_ids('categories', self.categories)
        for number, image in enumerate(self.images):
            self._check_image(number, image)
        if len({image['file_name'] for image in self.images}) < len(self.images):
            raise self.mistake(f'two images are {_twice(image["file_name"] for image in self.images)!r}')

    def mistake(self, text: str) -> UsageError:
        return UsageError(f'{self.path} is no file of COCO annotations: {text}')

    def _items(self, content: dict[str, Any], name: str) -> list[dict[str, Any]]:
        items = content.get(name)
        if not isinstance(items, list):
            raise self.mistake(f'it has no list of {name}' if name not in content else f'{name} is no list')
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.mistake(f'{name}[{number}] is a {type(item).__name__}, but has to be an object')
            for key in LISTS[name]:
                if key not in item:
                    raise self.mistake(f'{name}[{number}] has no {key}')
        return items

    def _check_ids(self, name: str, items: list[dict[str, Any]]) -> None:
        ids = [item['id'] for item in items]
        for number, one in enumerate(ids):
            if not isinstance(one, (int, float, str)) or isinstance(one, bool):
                raise self.mistake(f'{name}[{number}] has the id {one!r}, but needs a number or a text')
            if isinstance(one, str) != isinstance(ids[0], str):
                raise self.mistake(f'{name} have the ids {ids[0]!r} and {one!r}, a number and a text; use one of them')
        if len(set(ids)) < len(ids):
            raise self.mistake(f'two {name} have the id {_twice(ids)!r}')

    def _check_image(self, number: int, image: dict[str, Any]) -> None:
        name = image['file_name']
        if not isinstance(name, str) or not name or '\0' in name:
            raise self.mistake(f'images[{number}] has the file_name {name!r}, but needs the name of a file')
        check_inside(name, self.path)
        for key in ('height', 'width'):
            side = image[key]
            if not is_number(side) or side != int(side) or not 1 <= side <= MAX_SIDE_PX:
                raise self.mistake(f'images[{number}] ({name}) has the {key} {side!r}, but needs its pixels')

    def row(self, number: int, image_number: dict[Any, int], class_of: dict[Any, int]) -> tuple[int, list[float]]:
        """The image of an annotation; its left, top, right, bottom, area, crowd and class.

        Args:
            number: Of the annotation in its list.
            image_number: By id.
            class_of: By id.
        """
        annotation = self.annotations[number]
        image = self.look_up(number, 'image', image_number)
        category = self.look_up(number, 'category', class_of)
        bbox = annotation['bbox']
        if not isinstance(bbox, (list, tuple)) or len(bbox) != 4 or not all(map(is_number, bbox)):
            raise self.mistake(
                f'{self._which(number)} has the bbox {bbox!r}, but needs four numbers: left, top, width, height'
            )
        left, top, width, height = map(float, bbox)
        area, crowd = annotation.get('area', width * height), annotation.get('iscrowd', 0)
        for key, value in (('area', area), ('iscrowd', crowd)):
            if not is_number(value):
                raise self.mistake(f'{self._which(number)} has the {key} {value!r}, but needs a number')
        return image, [left, top, left + width, top + height, float(area), float(crowd), category]

    def _which(self, number: int) -> str:
        annotation = self.annotations[number]
        return f'annotations[{number}]' + (f' (id {annotation["id"]!r})' if 'id' in annotation else '')

    def look_up(self, number: int, kind: str, numbers: dict[Any, int]) -> int:
        """The number of an annotation's image or category.

        Args:
            number: Of the annotation in its list.
            kind: 'image' or 'category'.
            numbers: By id.

        Raises:
            UsageError: if the annotation's id is of another type, or not listed.
        """
        wanted, listed = self.annotations[number][f'{kind}_id'], next(iter(numbers))
        if isinstance(wanted, (int, float, str)) and wanted in numbers:
            return numbers[wanted]
        reason = 'which the file does not list'
        if isinstance(wanted, str) != isinstance(listed, str):
            ours, theirs = ('a text' if isinstance(one, str) else 'a number' for one in (wanted, listed))
            reason = f'{ours}, but the ids of its list, such as {listed!r}, are {theirs}: use one of them'
        raise self.mistake(f'{self._which(number)} is of {kind} {wanted!r}, {reason}')


def read_json(path: str) -> Any:
    """What a JSON file holds, with or without a byte order mark.

    Raises:
        UsageError: if it cannot be read.
    """
    # JSON's, UTF-8's, a number of thousands of digits; lists in lists.
    wrong = as_mistake(f'{path} is no file of COCO annotations', ValueError, RecursionError)
    with as_mistake(f'cannot read {path}'), wrong, open(path, encoding='utf-8-sig') as file:
        return json.load(file)


def is_number(value: Any) -> bool:
    """Whether a value is a number that float32 can hold."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e38
    except OverflowError:  # a whole number beyond float
        return False


def check_inside(name: str, path: str) -> None:
    """Refuse a file name that leads out of the images' folder."""
    normal = os.path.normpath(name)
    if os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir:
        raise UsageError(f'{path} names the image {name!r}, which is not in the folder of its split')


def _twice(values: Iterable[Any]) -> Any:
    """A value that comes again."""
    return Counter(values).most_common(1)[0][0]
