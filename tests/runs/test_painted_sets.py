"""What lies beside images comes along with their repaints: COCO's files, label files, label maps."""

import json
import shutil

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from tests.runs.test_paint import call, pixels
from tests.runs.test_paint_anyone import names
from timm_repaint.detection.annotations import parse_coco, read_coco
from timm_repaint.errors import UsageError
from timm_repaint.masks.label_png import load_labels, save_labels


@pytest.fixture
def coco(tmp_path):
    """Two photographs with three boxes in COCO's layout; the larger one is turned by its EXIF."""
    folder = tmp_path / 'coco'
    (folder / 'train2017').mkdir(parents=True)
    (folder / 'annotations').mkdir()
    Image.fromarray(skimage.data.chelsea()).resize((96, 64)).save(folder / 'train2017/5.png')
    turned = Image.fromarray(skimage.data.coffee()).resize((120, 80))
    turned.getexif()[0x0112] = 6
    turned.save(folder / 'train2017/9.jpg', exif=turned.getexif())
    content = {
        'licenses': ['mine'],
        'images': [
            {'id': 50, 'file_name': '5.png', 'width': 96, 'height': 64},
            {'id': 90, 'file_name': '9.jpg', 'width': 120, 'height': 80},
            {'id': 91, 'file_name': 'lost.jpg', 'width': 40, 'height': 40},
        ],
        'annotations': [
            {'id': 1, 'image_id': 50, 'category_id': 3, 'bbox': [1, 2, 30, 40], 'area': 900, 'segmentation': []},
            {'id': 2, 'image_id': 50, 'category_id': 4, 'bbox': [5, 6, 7, 8]},
            {'id': 3, 'image_id': 90, 'category_id': 3, 'bbox': [0, 0, 50, 50]},
            {'id': 4, 'image_id': 91, 'category_id': 3, 'bbox': [0, 0, 9, 9]},
        ],
        'categories': [{'id': 3, 'name': 'cat'}, {'id': 4, 'name': 'cup'}],
    }
    (folder / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    return folder


def test_a_painted_coco_folder_is_one_with_each_box_once_a_repaint(coco, tmp_path):
    out = tmp_path / 'out'
    options = ('--painter', 'shift', '--copies', 2, '--format', 'jpg', '--workers', 1)
    assert call(coco, out, *options) == 0
    assert call(coco, out, *options) == 0, 'its own file is no other'
    painted = read_coco(str(out), 'train2017')
    assert painted.file_names == ('5-1.jpg', '5-2.jpg', '9-1.jpg', '9-2.jpg')
    assert painted.class_names == ('cat', 'cup')
    first = parse_coco(json.loads((coco / 'annotations/instances_train2017.json').read_text()), 'here')
    for index, original in enumerate((0, 0, 1, 1)):
        for mine, theirs in zip(painted.objects(index), first.objects(original), strict=True):
            assert np.array_equal(mine, theirs)
        with Image.open(out / 'train2017' / painted.file_names[index]) as picture:
            assert picture.size[::-1] == tuple(painted.sizes_hw[index]), 'as stored: boxes lie on these pixels'
    content = json.loads((out / 'annotations/instances_train2017.json').read_text())
    assert content['licenses'] == ['mine'] and content['annotations'][0]['segmentation'] == []


def test_a_coco_file_beside_its_images_comes_along_and_others_are_not_overwritten(coco, tmp_path):
    out, beside = tmp_path / 'out', coco / 'train2017/_annotations.coco.json'
    (coco / 'annotations/instances_train2017.json').rename(beside)
    (coco / 'annotations/list.json').write_text('{"images": 3}')
    options = ('--painter', 'shift', '--copies', 1, '--workers', 1)
    assert call(coco, out, *options) == 0
    content = json.loads((out / 'train2017/_annotations.coco.json').read_text())
    assert [image['file_name'] for image in content['images']] == ['5-1.png', '9-1.png']
    assert not (out / 'annotations').exists()
    mine = json.dumps({key: value for key, value in content.items() if key != 'info'})
    (out / 'train2017/_annotations.coco.json').write_text(mine)
    with pytest.raises(UsageError, match=r'_annotations\.coco\.json was there before: it is not overwritten'):
        call(coco, out, *options)
    assert (out / 'train2017/_annotations.coco.json').read_text() == mine


def rewrite(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_files_of_coco_that_do_not_come_along_are_named_and_keypoints_do(coco, tmp_path, caplog):
    out, folder = tmp_path / 'out', coco / 'annotations'
    for name in ('person_keypoints_train2017', 'panoptic_train2017', 'captions_train2017', 'instances_val2017'):
        shutil.copy(folder / 'instances_train2017.json', folder / f'{name}.json')
    rewrite(folder / 'panoptic_train2017.json', annotations=[{'image_id': 50, 'segments_info': [], 'file_name': 'a'}])
    captions = json.loads((folder / 'captions_train2017.json').read_text())
    del captions['categories']
    (folder / 'captions_train2017.json').write_text(json.dumps(captions))
    other = {'id': 1, 'file_name': 'other.jpg', 'width': 9, 'height': 9}
    rewrite(folder / 'instances_val2017.json', images=[other], annotations=[])
    assert call(coco, out, '--painter', 'shift', '--copies', 1, '--workers', 1) == 0
    assert {path.name for path in (out / 'annotations').iterdir()} == {
        'instances_train2017.json',
        'person_keypoints_train2017.json',
    }
    keypoints = json.loads((out / 'annotations/person_keypoints_train2017.json').read_text())
    assert len(keypoints['annotations']) == 3
    for name, reason in (
        ('panoptic_train2017', 'has panoptic segments'),
        ('captions_train2017', 'has no categories'),
        ('instances_val2017', 'lists none of the images'),
    ):
        assert f'{folder}/{name}.json does not come along: it {reason}' in caplog.text
    assert len(caplog.records) == 3


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'info': 'my set'}, 'info is a str, but has to be an object'),
        ({'image_id': '50'}, r"annotations\[0\] \(id 7\) is of image '50', a text, but the ids of its list, such"),
        ({'image_id': 51}, 'is of image 51, which the file does not list'),
        ({'image_id': [50]}, r'is of image \[50\], which the file does not list'),
    ],
)
def test_mistakes_in_coco_files_are_named_before_anything_is_painted(coco, tmp_path, values, message):
    path = coco / 'annotations/instances_train2017.json'
    box = {'id': 7, 'category_id': 3, 'bbox': [1, 2, 3, 4]}
    rewrite(path, **(values if 'info' in values else {'annotations': [box | values]}))
    with pytest.raises(UsageError, match=message):
        call(coco, tmp_path / 'out', '--painter', 'shift', '--copies', 1, '--workers', 1)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('content', [[], {'info': 3}, {'info': 'painted_by'}])
def test_a_file_of_another_form_in_the_way_of_a_coco_file_is_named(coco, tmp_path, content):
    out = tmp_path / 'out'
    assert call(coco, out, '--painter', 'shift', '--copies', 1, '--workers', 1) == 0
    (out / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    with pytest.raises(UsageError, match='was there before: it is not overwritten'):
        call(coco, out, '--painter', 'shift', '--copies', 1, '--workers', 1)


@pytest.mark.parametrize('painter', ['mean', 'randconv'])
def test_label_files_and_label_maps_come_along(tmp_path, painter):
    images, out = tmp_path / 'set', tmp_path / 'out'
    (images / 'images/train').mkdir(parents=True)
    (images / 'labels/train').mkdir(parents=True)
    Image.fromarray(skimage.data.chelsea()).resize((96, 64)).save(images / 'images/train/7.png')
    (images / 'labels/train/7.txt').write_text('0 0.5 0.5 1 1')
    (images / 'images/train/7.xml').write_text('<annotation/>')
    labels = np.zeros((64, 96), np.uint8)
    labels[:, 48:] = 7
    save_labels(images / 'maps/images/train/7.png', labels)
    options = ('--painter', painter, '--mask-dir', images / 'maps', '--copies', 2, '--workers', 1)
    for _ in range(2):
        assert call(images, out, *options) == 0
    assert names(out) == {
        f'{stem}-{copy}{ending}'
        for copy in (1, 2)
        for stem, ending in (
            ('images/train/7', '.png'),
            ('images/train/7', '.xml'),
            ('labels/train/7', '.txt'),
            ('maps/images/train/7', '.png'),
        )
    }
    assert (out / 'labels/train/7-2.txt').read_text() == '0 0.5 0.5 1 1'
    assert np.array_equal(load_labels(out / 'maps/images/train/7-2.png'), labels)
    (out / 'labels/train/7-2.txt').write_text('mine')
    with pytest.raises(UsageError, match=r'7-2\.txt was there before, with other labels'):
        call(images, out, *options)


def test_label_files_that_name_their_image_name_its_repaint(tmp_path):
    images, out = tmp_path / 'VOC', tmp_path / 'out'
    (images / 'Annotations').mkdir(parents=True)
    (images / 'JPEGImages').mkdir()
    for number in (5, 6):
        Image.fromarray(skimage.data.chelsea()).resize((96, 64)).save(images / f'JPEGImages/{number} & 7.png')
    box = '<object><name>filename</name></object>'
    voc = f'<annotation><filename>{{0}}</filename>\n<path>{{0}}</path><folder>a</folder>{box}</annotation>'
    (images / 'Annotations/5 & 7.xml').write_text(voc.format('5 &amp; 7.png'))
    labelme = {'shapes': [{'points': [[1, 2], [3, 4]]}], 'imagePath': '6 & 7.png', 'imageData': 'aGVsbG8='}
    (images / 'JPEGImages/6 & 7.json').write_text(json.dumps(labelme))
    (images / 'JPEGImages/5 & 7.json').write_text('"imagePath", and no JSON')
    options = ('--painter', 'shift', '--copies', 2, '--format', 'jpg', '--workers', 1)
    for _ in range(2):
        assert call(images, out, *options) == 0
    assert (out / 'Annotations/5 & 7-2.xml').read_text() == voc.format('5 &amp; 7-2.jpg')
    painted = json.loads((out / 'JPEGImages/6 & 7-1.json').read_text())
    assert painted == {**labelme, 'imagePath': '6 & 7-1.jpg', 'imageData': None}, 'its picture is of the original'
    assert (out / 'JPEGImages/5 & 7-1.json').read_text() == '"imagePath", and no JSON'


def test_a_json_file_that_cannot_be_read_is_named(coco, tmp_path):
    (coco / 'away.json').symlink_to(tmp_path / 'not there.json')
    with pytest.raises(UsageError, match=r'away\.json: No such file or directory; move it away'):
        call(coco, tmp_path / 'out', '--painter', 'shift', '--copies', 1, '--workers', 1)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('ending', ['png', 'jpg'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_with_labels_are_turned_as_they_were_to_look_at_and_known_again(tmp_path, ending, orientation):
    images, out, exif = tmp_path / 'images', tmp_path / 'out', Image.Exif()
    images.mkdir()
    exif[0x0112] = orientation
    Image.fromarray(skimage.data.coffee()).resize((96, 64)).save(images / '7.jpg', exif=exif)
    (images / '7.txt').write_text('0 0.5 0.5 1 1')
    options = ('--painter', 'shift', '--strength', 0, '--copies', 1, '--format', ending, '--workers', 1)
    for _ in range(2):
        assert call(images, out, *options, '--sheet', tmp_path / 'sheet.png') == 0
    with Image.open(images / '7.jpg') as original, Image.open(out / f'7-1.{ending}') as repaint:
        assert repaint.size == original.size == (96, 64), 'as stored, for who reads no EXIF'
        seen = [np.asarray(ImageOps.exif_transpose(one), np.float32) for one in (original, repaint)]
    assert seen[0].shape == seen[1].shape
    assert np.abs(seen[0] - seen[1]).mean() <= (2 if ending == 'jpg' else 0)
    sheet = pixels(tmp_path / 'sheet.png')
    height, width = seen[0].shape[:2]
    assert sheet.shape[0] == round(224 * height / max(height, width)) + 12, 'turned to look at there too'


def test_images_with_labels_and_exif_that_is_none_are_painted(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.fromarray(skimage.data.coffee()).resize((96, 64)).save(tmp_path / 'images/7.png', exif=b'junkjunk')
    (tmp_path / 'images/7.txt').write_text('0 0.5 0.5 1 1')
    assert call(tmp_path / 'images', tmp_path / 'out', '--painter', 'mean', '--copies', 1, '--workers', 1) == 0
