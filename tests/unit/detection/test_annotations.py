"""COCO files as arrays: ids with gaps, crowds, images without boxes, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from timm_repaint.detection.annotations import parse_coco, read_coco
from timm_repaint.detection.coco_loaders import DetectionDataset
from timm_repaint.detection.images import CocoImages
from timm_repaint.detection.transforms import eval_transform
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


def test_slivers_are_left_out_and_crowds_are_there_for_the_evaluator_alone():
    annotations = parsed()
    assert annotations.crowds.tolist() == [False, False, True, False]
    kept = annotations.to_coco()['annotations']
    assert [(row['image_id'], row['category_id'], row['iscrowd']) for row in kept] == [
        (1, 2, 0), (3, 3, 0), (3, 1, 1),
    ]  # fmt: skip
    assert kept[0]['bbox'] == [5, 5, 75, 10], 'cut at the image, which is 80 px wide'
    assert kept[1]['bbox'] == [10, 20, 30, 15] and kept[1]['area'] == 450


def test_boxes_are_cut_at_the_image_and_an_image_without_boxes_has_none():
    annotations = parsed()
    assert annotations.objects(0)[0].tolist() == [[5, 5, 80, 15]]
    boxes, classes = annotations.objects(1)
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32 and classes.shape == (0,)


def test_boxes_that_nothing_can_be_learned_from_are_counted():
    annotations = parsed()
    assert annotations.count_slivers() == 1
    boxes = [
        [5, 5, 0, 20],
        [5, 5, -10, 20],
        [200, 200, 20, 20],
        [79.5, 0, 9, 9],
        [-30, -30, 60, 60],
        [70, 50, 500, 500],
    ]
    assert parse_coco(coco([image(1)], [box(1, 1, bbox) for bbox in boxes]), 'file.json').count_slivers() == 4


def test_some_of_the_images_keep_their_boxes():
    annotations = parsed().select(np.array([2, 1]))
    assert annotations.file_names == ('7.jpg', '5.jpg')
    assert annotations.objects(0)[1].tolist() == [3] and len(annotations.classes) == 3
    assert len(annotations.objects(1)[1]) == 0


ONE = [0, 0, 5, 5]


def changed(**values):
    """A right file with other values of one image, category or annotation."""
    content = coco([image(1), image(2)], [box(1, 1, ONE)])
    for name, item in values.items():
        content[name] = [{**content[name][0], **item}, *content[name][1:]]
    return content


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'is no file of COCO annotations: Expecting property name'),
        ('[' * 100_000, 'is no file of COCO annotations: maximum recursion depth'),
        ('[' + '9' * 5000 + ']', 'is no file of COCO annotations: Exceeds the limit'),
        ('[]', 'it holds a list, but has to be an object with images, annotations, categories'),
        ({'images': [], 'categories': CATEGORIES}, 'it has no list of annotations'),
        ({'images': {}, 'annotations': [], 'categories': CATEGORIES}, 'images is no list'),
        ({'images': [3], 'annotations': [], 'categories': CATEGORIES}, 'images[0] is a int, but has to be an object'),
        (coco([], []), 'lists 0 images and 3 categories'),
        (coco([image(1)], [{'image_id': 1, 'category_id': 1}]), 'annotations[0] has no bbox'),
        (coco([image(1)], [box(2, 1, ONE)]), 'annotations[0] (id 1) is of image 2, which the file does not list'),
        (coco([image(1)], [box(1, 2, ONE)]), 'is of category 2, which the file does not list'),
        (coco([image(1)], [box('1', 1, ONE)]), "image '1', a text, but the ids of its list, such as 1, are a number"),
        (coco([image('1')], [box(1, 1, ONE)]), "image 1, a number, but the ids of its list, such as '1', are a text"),
        (coco([image(1)], [box([1], 1, ONE)]), 'is of image [1], which the file does not list'),
        (coco([image(1), image('2')], []), "images have the ids 1 and '2', a number and a text"),
        (coco([image(1), image(1, file_name='2.jpg')], []), 'two images have the id 1'),
        (coco([image(1), image(2, file_name='1.jpg')], []), "two images are '1.jpg'"),
        (changed(categories={'id': 1}), 'two categories have the id 1'),
        (changed(categories={'id': None}), 'categories[0] has the id None, but needs a number or a text'),
        (changed(images={'file_name': '../1.jpg'}), "names the image '../1.jpg', which is not in the folder"),
        (changed(images={'file_name': '/1.jpg'}), "names the image '/1.jpg'"),
        (changed(images={'file_name': 7}), 'images[0] has the file_name 7, but needs the name of a file'),
        (changed(images={'height': '60'}), "images[0] (1.jpg) has the height '60', but needs its pixels"),
        (changed(images={'width': 0}), 'has the width 0'),
        (changed(images={'width': 10**400}), 'has the width 1000'),
        (changed(annotations={'bbox': []}), 'annotations[0] (id 1) has the bbox [], but needs four numbers'),
        (changed(annotations={'bbox': ['0', '0', '5', '5']}), "has the bbox ['0', '0', '5', '5']"),
        (changed(annotations={'bbox': [float('nan'), 0, 5, 5]}), 'has the bbox [nan, 0, 5, 5]'),
        (changed(annotations={'bbox': [10**400, 0, 5, 5]}), 'has the bbox [1000'),
        (changed(annotations={'area': 'large'}), "has the area 'large', but needs a number"),
        (changed(annotations={'iscrowd': None}), 'has the iscrowd None, but needs a number'),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else '',
)
def test_files_that_cannot_be_right_are_refused(tmp_path, content, message):
    path = tmp_path / 'annotations' / 'instances_train2017.json'
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match=r'instances_train2017\.json') as error:
        read_coco(str(tmp_path), 'train2017')
    assert message in str(error.value) and '\n' not in str(error.value)


def test_texts_as_ids_and_a_byte_order_mark_are_right(tmp_path):
    content = coco([image('b'), image('a')], [box('a', 1, ONE)])
    path = tmp_path / 'annotations' / 'instances_train2017.json'
    path.parent.mkdir()
    path.write_bytes(b'\xef\xbb\xbf' + json.dumps(content).encode())
    annotations = read_coco(str(tmp_path), 'train2017')
    assert annotations.file_names == ('a.jpg', 'b.jpg') and len(annotations.objects(0)[0]) == 1


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'instances_val2017\.json does not exist; the data folder needs annotations/'):
        read_coco(str(tmp_path), 'val2017')
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val2017.json').write_text(json.dumps(coco([image(1)], [])))
    with pytest.raises(UsageError, match='val2017 does not exist; it has to hold the images of split val2017'):
        CocoImages(str(tmp_path), 'val2017')


def folder(root, sizes, **exif):
    """COCO's layout with a picture for each (height, width) of the annotations."""
    (root / 'annotations').mkdir(parents=True)
    (root / 'val2017').mkdir()
    images = [image(number, height=height, width=width) for number, (height, width) in enumerate(sizes)]
    (root / 'annotations/instances_val2017.json').write_text(json.dumps(coco(images, [])))
    for number in range(len(sizes)):
        save(root / f'val2017/{number}.jpg', (20 + number, 30), **exif)
    return root


def save(path, size_hw, orientation=1):
    picture = Image.fromarray(np.full((*size_hw, 3), 9, np.uint8))
    exif = picture.getexif()
    exif[0x112] = orientation
    picture.save(path, exif=exif)


RIGHT = [(20 + number, 30) for number in range(12)]


def test_images_that_are_not_there_are_counted_before_training(tmp_path):
    root = folder(tmp_path, RIGHT)
    (root / 'val2017/3.jpg').unlink()
    (root / 'val2017/7.jpg').rename(root / 'val2017/7.JPG')
    with pytest.raises(UsageError, match=r'2 of 12 images of .*instances_val2017\.json are not there, first .*/3\.jpg'):
        CocoImages(str(root), 'val2017')


def test_an_image_of_another_size_than_annotated_is_named_before_training(tmp_path):
    root = folder(tmp_path, [*RIGHT[:11], (32, 30)])
    with pytest.raises(UsageError, match=r'11\.jpg is 30x31, its annotations are for 30x32$'):
        CocoImages(str(root), 'val2017')


def test_images_turned_by_exif_are_told_of_with_the_way_out(tmp_path, caplog):
    root = folder(tmp_path / 'shown', [(30, 20)], orientation=6)
    with pytest.raises(UsageError, match='it is turned by EXIF and annotated as it is shown: store such images as'):
        CocoImages(str(root), 'val2017')
    CocoImages(str(folder(tmp_path / 'stored', RIGHT, orientation=3)), 'val2017')
    assert len([line for line in caplog.messages if 'is turned by EXIF: images are read as stored' in line]) == 1


def test_unreadable_images_are_named_counted_and_left_out(tmp_path, caplog):
    root = folder(tmp_path, RIGHT)
    (root / 'val2017/3.jpg').write_bytes(b'<html>')
    whole = (root / 'val2017/4.jpg').read_bytes()
    (root / 'val2017/4.jpg').write_bytes(whole[: len(whole) // 2])
    images = CocoImages(str(root), 'val2017')
    save(root / 'val2017/5.jpg', (20, 30))  # another one, while it trains
    plain = eval_transform(64, (0.5, 0.5, 0.5))
    assert [int(DetectionDataset(images, plain, training=False)[index][1]) for index in (2, 3, 11)] == [2, 6, 11]
    assert all(f'val2017/{number}.jpg skipped ({count} skipped' in caplog.text for number, count in ((3, 1), (5, 3)))
    for number in range(12):
        (root / f'val2017/{number}.jpg').write_bytes(b'')
    with pytest.raises(UsageError, match=r'10 unreadable images in a row, from .*/0\.jpg on'):
        DetectionDataset(images, plain)[0]


def test_a_share_of_the_images_is_part_of_a_larger_share(shared_data):
    root = str(shared_data / 'coco-mini')
    quarter, half, all_of_them = (CocoImages(root, 'train2017', share).annotations for share in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(all_of_them)) == (3, 6, 13)
    assert set(quarter.file_names) < set(half.file_names) < set(all_of_them.file_names)
    name = quarter.file_names[0]
    ours, theirs = (part.objects(part.file_names.index(name))[0] for part in (quarter, all_of_them))
    assert ours.tolist() == theirs.tolist()
