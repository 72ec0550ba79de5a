"""Folders of images that timm reads otherwise than their owner means, and what is said of them."""

import pickle

import numpy as np
import pytest
from PIL import Image
from timm.data import create_dataset

from timm_repaint.data.folders import (
    check_class_map,
    check_classes,
    check_image_folder,
    check_same_classes,
    check_splits,
    count_endings,
    reads_folders,
    tell_left_out,
    tell_spare_classes,
)
from timm_repaint.errors import UsageError
from timm_repaint.timm_data import create_timm_dataset


def make(root, *names):
    """Small pictures, but for names with other endings, which are empty files."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in ('.png', '.jpg'):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
        else:
            path.touch()
    return root


def read(root, split='train', kind='', **options):
    found = count_endings(str(root / split))
    dataset = create_dataset(kind, root=str(root), split=split, **options)
    check_classes(dataset, split, 9, None if 'class_map' in options else found)
    return dataset


def refused(call, *args, **options):
    with pytest.raises(UsageError) as stop:
        call(*args, **options)
    assert '\n' not in str(stop.value)
    return str(stop.value)


GOOD = ('train/ant/0.png', 'train/bee/0.png', 'validation/ant/0.png', 'validation/bee/0.png')


class TestSplits:
    def check(self, root, train='train', validation='validation', kind=''):
        check_splits(kind, str(root), train, validation)

    def test_folders_that_are_there_pass_by_timms_other_names_too(self, tmp_path):
        self.check(make(tmp_path, *GOOD))
        self.check(tmp_path, validation='val')
        self.check(tmp_path, train='training', validation=str(tmp_path / 'validation'))

    @pytest.mark.parametrize('kind', ['', 'torch/image_folder', 'Torch/folder'])
    def test_a_split_that_is_not_there_is_named_with_those_that_are(self, kind, tmp_path):
        make(tmp_path, *GOOD, '.cache/x.png')
        message = refused(self.check, tmp_path, train='trn', kind=kind)
        assert f'--train-split trn: there is no folder {tmp_path}/trn' in message
        assert '(train, validation)' in message
        assert '--val-split dev' in refused(self.check, tmp_path, validation='dev', kind=kind)

    def test_no_validation_folder_is_told_with_the_way_to_do_without(self, tmp_path):
        assert "--val-split '' is no validation" in refused(self.check, make(tmp_path, *GOOD[:2]))
        self.check(tmp_path, validation='')

    def test_a_path_from_elsewhere_is_no_split(self, tmp_path, monkeypatch):
        make(tmp_path, *(f'data/{name}' for name in GOOD))
        monkeypatch.chdir(tmp_path)
        assert 'there is no folder data/data/train/' in refused(self.check, 'data', 'data/train/', 'data/validation/')

    def test_a_share_of_a_split_of_which_timm_reads_all_is_refused(self, tmp_path):
        assert 'use --train-fraction' in refused(self.check, make(tmp_path, *GOOD), train='train[:10%]')

    def test_a_folder_without_splits_trains_as_a_whole_without_validation(self, tmp_path):
        self.check(make(tmp_path, 'ant/0.png', 'bee/0.png'), validation='')
        refused(self.check, make(tmp_path, 'test/ant/0.png'), validation='')
        self.check(tmp_path, train='.', validation='')

    def test_splits_that_share_images_are_refused_unless_one_name_says_so(self, tmp_path, caplog):
        make(tmp_path, *GOOD[:2]).joinpath('validation').symlink_to(tmp_path / 'train')
        assert 'share images' in refused(self.check, tmp_path)
        assert 'share images' in refused(self.check, tmp_path, validation='.')
        self.check(tmp_path, validation='train')
        assert 'trained on and validated on' in caplog.text

    def test_an_archive_has_no_splits(self, tmp_path):
        (tmp_path / 'all.tar').touch()
        assert 'has no splits' in refused(self.check, tmp_path / 'all.tar')
        self.check(tmp_path / 'all.tar', validation='')

    def test_torchvisions_small_sets_have_two_parts(self, tmp_path):
        self.check(tmp_path, kind='torch/cifar10')
        self.check(tmp_path, kind='torch/cifar10', validation='test')
        assert 'would be the test images' in refused(self.check, tmp_path, train='trn', kind='torch/cifar10')
        assert 'has train and test' in refused(self.check, tmp_path, validation='training', kind='torch/mnist')

    def test_other_kinds_of_data_sets_are_left_alone(self, tmp_path):
        assert [reads_folders(kind) for kind in ('', 'name', 'my/set', 'torch/folder')] == [True] * 4
        assert [reads_folders(kind) for kind in ('hfds/a/b', 'wds/x', 'tfds/y', 'torch/cifar10')] == [False] * 4
        self.check(None, kind='hfds/some/set', train='train[:10%]')


class TestClasses:
    def test_a_right_tree_is_read_as_timm_reads_it(self, tmp_path, caplog):
        root = make(tmp_path, *GOOD, 'train/ant/notes.txt', 'train/.DS_Store', 'train/Thumbs.db', 'train/ant/1.PNG')
        assert read(root).reader.samples == create_dataset('', root=str(root), split='train').reader.samples
        assert caplog.text == ''

    def test_classes_of_several_levels_are_named_by_the_last(self, tmp_path):
        make(tmp_path, 'train/church/outdoor/0.png', 'train/hotel/indoor/0.png')
        assert read(tmp_path).reader.class_to_idx == {'indoor': 0, 'outdoor': 1}

    @pytest.mark.parametrize('hidden', ['.ipynb_checkpoints', 'ant/.ipynb_checkpoints', '.trash/ant'])
    def test_hidden_folders_are_left_out_and_named(self, hidden, tmp_path, caplog):
        make(tmp_path, *GOOD, f'train/{hidden}/1.png')
        dataset = read(tmp_path)
        assert dataset.reader.class_to_idx == {'ant': 0, 'bee': 1}
        assert [target for _, target in dataset.reader.samples] == [0, 1]
        assert f'hidden folders are left out: {tmp_path}/train/{hidden}' in caplog.text

    def test_what_macos_puts_beside_images_is_none(self, tmp_path, caplog):
        dataset = read(make(tmp_path, *GOOD, 'train/ant/._0.png', 'train/bee/._0.png'))
        assert [target for _, target in dataset.reader.samples] == [0, 1]
        assert f'left out: {tmp_path}/train/ant/._0.png, {tmp_path}/train/bee/._0.png' in caplog.text
        assert 'no images in class folder' in refused(read, make(tmp_path, 'train/cow/._0.png'))

    def test_only_hidden_images_are_none(self, tmp_path):
        assert 'in hidden folders alone' in refused(read, make(tmp_path, 'train/.x/0.png'))

    def test_torchvisions_reader_takes_hidden_folders_for_classes_so_they_are_refused(self, tmp_path):
        make(tmp_path, *GOOD, 'train/.x/0.png')
        assert 'the hidden folder .x would be a class' in refused(read, tmp_path, kind='torch/folder')

    def test_images_outside_of_class_folders_have_no_label(self, tmp_path):
        make(tmp_path, 'train/a.txt', 'train/0.png', 'validation/bee/0.png', 'validation/stray.png')
        assert f'{tmp_path}/train/0.png is in no class folder' in refused(read, tmp_path)
        assert f'{tmp_path}/validation/stray.png is in no class folder' in refused(read, tmp_path, 'validation')

    def test_two_folders_of_one_name_would_be_one_class(self, tmp_path):
        make(tmp_path, *(f'train/{name}/0.png' for name in ('church/outdoor', 'hotel/outdoor', 'hotel/indoor')))
        message = refused(read, tmp_path)
        assert f'{tmp_path}/train/church/outdoor and {tmp_path}/train/hotel/outdoor would be one class' in message
        (tmp_path / 'map.txt').write_text('outdoor\nindoor\n')
        assert len(read(tmp_path, class_map=str(tmp_path / 'map.txt'))) == 3

    def test_a_folder_within_a_class_would_be_a_class(self, tmp_path):
        make(tmp_path, 'train/ant/0.png', 'train/ant/more/1.png', 'train/ant/notes/a.txt')
        message = refused(read, tmp_path)
        assert f'{tmp_path}/train/ant/more lies within the class folder {tmp_path}/train/ant' in message

    def test_folders_without_images_are_named_with_what_is_in_them_and_what_is_read(self, tmp_path):
        make(tmp_path, *GOOD, 'train/cow/0.webp', 'train/cow/1.webp', 'train/cow/x')
        message = refused(read, tmp_path)
        assert f'no images in class folder {tmp_path}/train/cow (1 without an ending, 2 .webp);' in message
        assert "read that end with .jpeg .jpg .png; with --input-key '.jpeg;.jpg;.png;.webp' these too" in message

    def test_a_folder_within_a_class_may_be_empty_but_not_one_beside_classes(self, tmp_path):
        read(make(tmp_path, 'train/birds/ant/0.png', 'train/birds/ant/notes/a.txt'))
        make(tmp_path, 'train/birds/gull/a.txt')
        assert f'no images in class folder {tmp_path}/train/birds/gull (1 .txt)' in refused(read, tmp_path)

    def test_images_of_other_endings_among_those_that_are_read_are_counted(self, tmp_path, caplog):
        read(make(tmp_path, *GOOD, 'train/ant/1.bmp', 'train/bee/1.bmp', 'train/bee/2.webp'))
        assert 'has images that are not read: 2 .bmp, 1 .webp; files are read that end with' in caplog.text

    def test_more_classes_than_the_model_has_are_counted_those_of_a_map_too(self, tmp_path):
        dataset = create_dataset('', root=str(make(tmp_path, *GOOD)), split='train')
        assert 'has 2 classes, the model 1; set --num-classes' in refused(check_classes, dataset, 'train', 1, None)
        dataset.reader.class_to_idx = {'ant': 0, 'bee': 6}
        assert 'has 7 classes, the model 6' in refused(check_classes, dataset, 'train', 6, None)

    def test_more_classes_in_the_model_than_folders_are_warned_of_and_equally_many_are_not(self, tmp_path, caplog):
        dataset = read(make(tmp_path, *GOOD))
        tell_spare_classes(dataset, 2)
        assert caplog.text == ''
        tell_spare_classes(dataset, 1000)
        assert 'The model has 1000 classes, the images 2: --num-classes 2 fits.' in caplog.text

    def test_a_link_that_leads_back_is_named_before_timm_follows_it(self, tmp_path):
        make(tmp_path, *GOOD)
        (tmp_path / 'train/ant/again').symlink_to(tmp_path / 'train')
        assert 'ant/again leads back to' in refused(read, tmp_path)
        (tmp_path / 'train/ant/again').unlink()
        (tmp_path / 'train/ant/again').symlink_to(tmp_path / 'validation')
        (tmp_path / 'validation/bee/again').symlink_to(tmp_path / 'train')
        assert 'ant/again/bee/again leads back to' in refused(read, tmp_path)


class TestBothSplits:
    def compare(self, root, kind=''):
        check_same_classes(*(create_dataset(kind, root=str(root), split=split) for split in ('train', 'validation')))

    @pytest.mark.parametrize('kind', ['', 'torch/folder'])
    @pytest.mark.parametrize(
        ('more', 'message'),
        [
            ('train/cow/0.png', 'the validation split lacks cow;'),
            ('validation/cow/0.png', 'only the validation split has cow;'),
        ],
    )
    def test_folders_that_one_of_them_lacks_are_named(self, more, message, kind, tmp_path):
        self.compare(make(tmp_path, *GOOD), kind)
        assert message in refused(self.compare, make(tmp_path, more), kind)

    def test_as_many_folders_of_other_names_are_no_match(self, tmp_path):
        make(tmp_path, *GOOD, 'train/Cow/0.png', 'validation/cow/0.png')
        message = refused(self.compare, tmp_path)
        assert 'the validation split lacks Cow; only the validation split has cow; rename' in message
        assert '--class-map FILE' in message


class TestClassMap:
    @pytest.mark.parametrize(
        ('name', 'content', 'message'),
        [
            ('no.txt', None, 'Cannot locate'),
            ('map.csv', b'ant,0', 'Unsupported class map file extension'),
            ('map.txt', b'\xff\xfe\x80', 'is no map of class names to numbers: '),
            ('map.txt', b'', 'is no map of class names to numbers from 0 on'),
            ('map.pkl', b'garbage', 'is no map'),
            ('map.pkl', pickle.dumps(['ant']), 'is no map'),
            ('map.pkl', pickle.dumps({'ant': 'x'}), 'is no map'),
            ('map.pkl', pickle.dumps({'ant': -1}), 'is no map'),
            ('map.pkl', pickle.dumps(print), 'is no map'),
        ],
    )
    def test_what_is_no_map_is_said(self, name, content, message, tmp_path):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert message in refused(check_class_map, str(tmp_path / name), '', '')

    def test_a_folder_is_no_map(self, tmp_path):
        (tmp_path / 'map.txt').mkdir()
        assert 'Is a directory' in refused(check_class_map, str(tmp_path / 'map.txt'), '', '')

    def test_a_map_is_found_in_the_folder_of_the_split_too(self, tmp_path):
        make(tmp_path, 'map.txt').joinpath('map.txt').write_text('ant\nbee\n')
        check_class_map('map.txt', '', str(tmp_path))

    def test_folders_that_a_map_leaves_out_are_named_with_its_names_that_have_none(self, tmp_path, caplog):
        make(tmp_path, *GOOD, 'train/cow/0.txt')
        for content, told in {
            'ant\nbee\ncow\n': '',
            '\ufeffant\r\nbee\r\n': r'leaves out images of ant; of its classes these have no images: \ufeffant',
            'bee\n': 'train split: --class-map leaves out images of ant',
        }.items():
            (tmp_path / 'map.txt').write_text(content)
            caplog.clear()
            found = count_endings(str(tmp_path / 'train'))
            tell_left_out(read(tmp_path, class_map=str(tmp_path / 'map.txt')), 'train', found)
            assert caplog.text.strip().endswith(told) and bool(caplog.messages) == bool(told)

    def test_torchvisions_sets_do_not_read_it(self):
        assert 'does nothing' in refused(check_class_map, 'map.txt', 'torch/folder', '')


@pytest.mark.parametrize('content', [b'no tar', b'', b'\x1f\x8b garbage'])
def test_a_file_that_is_no_archive_is_named(content, tmp_path):
    (tmp_path / 'all.tar').write_bytes(content)
    message = refused(create_timm_dataset, '', 'train', root=str(tmp_path / 'all.tar'))
    assert message.startswith(f'train split of {tmp_path}/all.tar: ')


def test_a_file_is_no_folder(tmp_path):
    assert 'does not exist' in refused(check_image_folder, str(tmp_path / 'no'))
