"""COCO files as arrays: ids with gaps, crowds, images without boxes, and what is refused."""

import json

import numpy as np
import pytest

from timm_repaint.detection.annotations import parse_coco, read_coco
from timm_repaint.detection.images import CocoImages
from timm_repaint.errors import UsageError

CATEGORIES = [{'id': 90, 'name': 'toothbrush'}, {'id': 1, 'name': 'person'}, {'id': 13, 'name': 'stop sign'}]


def image(number, **values):
    return {'id': number, 'file_name': f'{number}.jpg', 'height': 60, 'width': 80, **values}


def box(image_id, category_id, bbox, **values):
    area = bbox[2] * bbox[3]
    return {'id': 1, 'image_id': image_id, 'category_id': category_id, 'bbox': bbox, 'area': area, **values}


def coco(images, annotations):
    return {'images': images, 'annotations': annotations, 'categories': CATEGORIES}


def parsed():
    annotations = [
        box(7, 90, [10, 20, 30, 15], iscrowd=0),
        box(3, 13, [5, 5, 100, 10]),
        box(7, 1, [0, 0, 80, 60], iscrowd=1),
        box(7, 1, [40, 40, 0.4, 10]),
    ]
    return parse_coco(coco([image(7), image(3), image(5)], annotations), 'file.json')


def test_ids_with_gaps_become_classes_in_their_order():
    annotations = parsed()
    assert annotations.class_names == ('person', 'stop sign', 'toothbrush')
    boxes, classes = annotations.objects(2)  # image 7
    assert boxes.tolist() == [[10, 20, 40, 35]] and classes.tolist() == [3]


def test_crowds_and_slivers_are_not_learned_but_kept_for_the_evaluator():
    annotations = parsed()
    assert annotations.crowds.tolist() == [False, False, True, False]
    kept = annotations.to_coco()['annotations']
    assert [(row['image_id'], row['category_id'], row['iscrowd']) for row in kept] == [
        (1, 2, 0), (3, 3, 0), (3, 1, 1), (3, 1, 0),
    ]  # fmt: skip
    assert kept[1]['bbox'] == [10, 20, 30, 15] and kept[1]['area'] == 450


def test_boxes_are_cut_at_the_image_and_an_image_without_boxes_has_none():
    annotations = parsed()
    assert annotations.objects(0)[0].tolist() == [[5, 5, 80, 15]]
    boxes, classes = annotations.objects(1)
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32 and classes.shape == (0,)


def test_some_of_the_images_keep_their_boxes():
    annotations = parsed().select(np.array([2, 1]))
    assert annotations.file_names == ('7.jpg', '5.jpg')
    assert annotations.objects(0)[1].tolist() == [3] and len(annotations.classes) == 3
    assert len(annotations.objects(1)[1]) == 0


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'is no file of COCO annotations: JSONDecodeError'),
        ('[]', 'is no file of COCO annotations: TypeError'),
        ({'images': [], 'categories': CATEGORIES}, 'lists 0 images and 3 categories'),
        (
            coco([image(1)], [box(2, 1, [0, 0, 5, 5])]),
            'is of image 2 and category 1, which the file does not both list',
        ),
        (coco([image(1)], [box(1, 2, [0, 0, 5, 5])]), 'is of image 1 and category 2'),
        (coco([image(1)], [{'image_id': 1, 'category_id': 1}]), "no file of COCO annotations: KeyError 'bbox'"),
        (coco([image(1)], [{**box(1, 1, [0, 0, 5, 5]), 'bbox': []}]), 'is no file of COCO annotations: ValueError'),
        (coco([image(1, file_name='../1.jpg')], []), "names the image '../1.jpg', which is not in the folder"),
        (coco([image(1, file_name='/1.jpg')], []), "names the image '/1.jpg'"),
    ],
)
def test_files_that_cannot_be_right_are_refused(tmp_path, content, message):
    path = tmp_path / 'annotations' / 'instances_train2017.json'
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match=r'instances_train2017\.json') as error:
        read_coco(str(tmp_path), 'train2017')
    assert message in str(error.value)


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'instances_val2017\.json does not exist; the data folder needs annotations/'):
        read_coco(str(tmp_path), 'val2017')
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val2017.json').write_text(json.dumps(coco([image(1)], [])))
    with pytest.raises(UsageError, match='val2017 does not exist; it has to hold the images of split val2017'):
        CocoImages(str(tmp_path), 'val2017')


def test_an_image_that_is_missing_or_of_another_size_is_named(shared_data, tmp_path):
    content = json.loads((shared_data / 'coco-mini/annotations/instances_val2017.json').read_text())
    content['images'][0]['width'] += 1
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val2017.json').write_text(json.dumps(content))
    (tmp_path / 'val2017').mkdir()
    name = content['images'][0]['file_name']
    (tmp_path / 'val2017' / name).write_bytes((shared_data / 'coco-mini/val2017' / name).read_bytes())
    images = CocoImages(str(tmp_path), 'val2017')
    first = images.annotations.file_names.index(name)
    with pytest.raises(UsageError, match=f'{name} is 640x426, its annotations are for 641x426'):
        images.read(first)
    with pytest.raises(UsageError, match='cannot read the image'):
        images.read((first + 1) % len(images.annotations))


def test_a_share_of_the_images_is_part_of_a_larger_share(shared_data):
    root = str(shared_data / 'coco-mini')
    quarter, half, all_of_them = (CocoImages(root, 'train2017', share).annotations for share in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(all_of_them)) == (3, 6, 13)
    assert set(quarter.file_names) < set(half.file_names) < set(all_of_them.file_names)
    name = quarter.file_names[0]
    ours, theirs = (part.objects(part.file_names.index(name))[0] for part in (quarter, all_of_them))
    assert ours.tolist() == theirs.tolist()
