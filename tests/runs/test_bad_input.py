"""A user's mistake ends before training, with one line that says what to mend, and leaves no folder behind."""

import shutil

import pytest

from tests.helpers import (
    REPAINT,
    SCHEDULE,
    SHAPES,
    TINY,
    column,
    copy_images,
    mtimes,
    run_script,
    train_here,
)

DATA = ('--num-classes', '3', '--epochs', '1')


@pytest.fixture
def data(shared_data, tmp_path):
    """Eight training and four validation photographs of each of three classes."""
    return copy_images(shared_data / 'cifar10', tmp_path / 'data', 3, {'train': 8, 'validation': 4})


def refused(tmp_path, capsys, *args):
    """The message of a refused call in this process; no output folder may be there."""
    output = tmp_path / 'output'
    with pytest.raises(SystemExit) as stop:
        train_here(output, *args)
    assert not output.exists(), sorted(output.rglob('*'))
    assert isinstance(stop.value, SystemExit), 'as timm ends its script, for those who call main() as a function'
    if stop.value.code == 2:
        return capsys.readouterr().err.strip().splitlines()[-1]
    assert '\n' not in str(stop.value)
    assert stop.value.code == f'error: {stop.value}'
    return str(stop.value)


OPTION_MISTAKES = {
    'mask': (('--mask', 'sam'), "argument --mask: invalid choice: 'sam'"),
    'image size': (('--img-size', '31'), '--repaint needs images of 32 px or more, but --img-size has 31'),
    'channels': (('--in-chans', '1'), '--repaint paints RGB images, but --in-chans is 1'),
    'phases': (('--epochs', '2', '--repaint-epochs', '3'), '--repaint-epochs is 3, but must be from 1 to --epochs 2'),
    'schedule': (('--repaint-schedule', '2'), "the schedule is '2', but must be two positive integers"),
    'freeze': (('--repaint-freeze',), '--repaint-freeze needs a checkpoint'),
    'generator': (
        ('--repaint-checkpoint', 'nothing.pth.tar'),
        '--repaint-checkpoint: there is no file nothing.pth.tar',
    ),
    'resume': (('--resume', 'nothing.pth.tar'), '--resume nothing.pth.tar: there is no such checkpoint'),
    'precision': (('--model-dtype', 'float8'), "--model-dtype is 'float8'; choose one of"),
    'batch': (('-b', '64'), '24 training images do not fill a batch of 64'),
    'views': (('--aug-splits', '3'), '--repaint gives each image views of its own; leave out --aug-splits'),
    'log interval': (('--log-interval', '0'), '--log-interval is 0; it must be a whole number, 1 or more'),
    'validation interval': (('--val-interval', '0'), '--val-interval is 0; it must be a whole number, 1 or more'),
    'learning rate': (('--lr', 'nan'), '--lr is nan; it must be 0 or more'),
    'std': (('--std', '1', '0', '1'), '--std is 0.0; it must be above 0'),
    'seed': (('--seed', '-1'), '--seed is -1; it must be from 0 to'),
    'temperature': (
        ('--repaint-temperature', '1e30'),
        'is 1e+30; it must be 0 or more, at most 100',
    ),
    'weight': (('--repaint-feat-weight', '1e30'), '--repaint-feat-weight is 1e+30; it must be 0 or more, at most 1e6'),
    'width': (
        ('--repaint-width', '1000000'),
        'is 1000000; it must be a whole number, 1 or more, at most 4096',
    ),
    'eight channels': (('--in-chans', '8'), '--repaint paints RGB images, but --in-chans is 8'),
    'model': (('--model', 'resnet500'), 'cannot make --model resnet500: Unknown model (resnet500)'),
    'metric': (('--eval-metric', 'map'), "--eval-metric is 'map'; choose one of top1, top5, loss"),
    'drop block': (('--drop-block', '2'), '--drop-block is 2.0; it must be 0 or more and below 1'),
    'views of one image': (
        ('--tta', '3', '-vb', '4'),
        '--tta 3 takes 3 images in a row for views of one, and has to divide',
    ),
    'argument and option': (
        ('--model-kwargs', 'drop_path_rate=0.1'),
        '--model-kwargs drop_path_rate: there is an option of its own for it',
    ),
    'model argument': (('--model-kwargs', 'no_such=1'), "unexpected keyword argument 'no_such'"),
    'weights': (('--initial-checkpoint', 'no.pth'), '--initial-checkpoint no.pth: there is no such file'),
    'pretrained': (('--pretrained', '--pretrained-path', 'no.pth'), '--pretrained-path no.pth: there is no such file'),
    'size of a ViT': (
        ('--model', 'vit_tiny_patch16_224', '--img-size', '64'),
        '--model vit_tiny_patch16_224 takes no images of 3x64x64: Input height (64) ',
    ),
    'split': (('--train-split', 'trn'), "shapes has no split 'trn'; choose one of: train, validation"),
    'shards': (('--dataset', 'wds/x'), '--dataset wds/x needs --data-dir DIR, the folder with its shards'),
    'kind of reader': (('--dataset', 'torch/cifar10', '--data-dir', '.'), "train split of --dataset 'torch/cifar10': "),
    'package': (('--dataset', 'hfds/x'), '--dataset hfds/x needs another package: pip install datasets'),
    'kind': (('--dataset', 'torch/cifar11', '--data-dir', '.'), 'Unknown torchvision dataset cifar11'),
    'stop': (('--epochs', '4', '--stop-epoch', '9'), '--stop-epoch is 9, but must be from 1 to 4'),
}


@pytest.mark.parametrize(('args', 'message'), OPTION_MISTAKES.values(), ids=OPTION_MISTAKES.keys())
def test_mistakes_in_options_are_refused_before_any_work(args, message, tmp_path, capsys):
    assert message in refused(tmp_path, capsys, *REPAINT, *args)


def test_weights_that_cannot_be_downloaded_are_told_with_the_way_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'empty'))
    message = refused(tmp_path, capsys, *REPAINT, '--model', 'resnet18', '--pretrained')
    assert 'the pretrained weights of resnet18 cannot be downloaded' in message and '--pretrained-path FILE' in message


@pytest.mark.parametrize('method', [('--repaint',), ()], ids=['repaint', 'plain'])
class TestData:
    def test_a_missing_folder_is_named(self, method, tmp_path, capsys):
        ahead_of_a_download = ('--model', 'no_such_model', '--pretrained')
        message = refused(tmp_path, capsys, tmp_path / 'nothing', *DATA, *method, *ahead_of_a_download)
        assert message == f'data folder {tmp_path}/nothing does not exist'

    def test_an_empty_folder_is_named(self, method, tmp_path, capsys):
        (tmp_path / 'data').mkdir()
        message = refused(tmp_path, capsys, tmp_path / 'data', *DATA, *method)
        assert message.startswith(f'data folder {tmp_path}/data is empty; it needs train/<class>/<image>')

    def test_no_folder_at_all_is_said(self, method, tmp_path, capsys):
        assert 'no data folder' in refused(tmp_path, capsys, *DATA, *method)

    def test_a_split_without_images_is_named(self, method, data, tmp_path, capsys):
        for image in (data / 'train').rglob('*.jpg'):
            image.unlink()
        message = refused(tmp_path, capsys, data, *DATA, *method)
        assert str(data / 'train') in message

    @pytest.mark.parametrize('split', ['train', 'validation'])
    def test_a_class_folder_without_images_is_named(self, split, method, data, tmp_path, capsys):
        (data / split / 'zebra').mkdir()
        message = refused(tmp_path, capsys, data, *DATA, *method)
        assert f'{split} split: no images in class folder {data}/{split}/zebra' in message

    def test_more_classes_than_the_model_has_are_counted(self, method, data, tmp_path, capsys):
        message = refused(tmp_path, capsys, data, '--num-classes', 2, '--epochs', 1, *method)
        assert f'{data}/train has 3 classes, the model 2; set --num-classes' in message

    def test_an_unreadable_image_is_named_counted_and_skipped(self, method, data, tmp_path, caplog):
        broken = sorted((data / 'train').rglob('*.jpg'))[5]
        broken.write_bytes(b'not a picture')
        run = train_here(tmp_path, data, *DATA, *method)
        skips = [message for message in caplog.messages if 'Unreadable image' in message]
        assert any(broken.name in message and '(1 skipped so far)' in message for message in skips)
        assert column(run, 'train_loss')[0] < 20

    def test_only_unreadable_images_end_the_run_with_the_first_name(self, method, data, tmp_path):
        for image in (data / 'train').rglob('*.jpg'):
            image.write_bytes(b'not a picture')
        with pytest.raises(SystemExit, match=r'unreadable images in a row, from .*\.jpg'):
            train_here(tmp_path, data, *DATA, *method)

    def test_a_split_that_is_not_there_is_named(self, method, data, tmp_path, capsys):
        message = refused(tmp_path, capsys, data, *DATA, *method, '--val-split', 'dev')
        assert f'--val-split dev: there is no folder {data}/dev' in message

    def test_classes_that_one_split_lacks_are_named(self, method, data, tmp_path, capsys):
        lacks = sorted((data / 'validation').iterdir())[0]
        shutil.rmtree(lacks)
        assert f'the validation split lacks {lacks.name};' in refused(tmp_path, capsys, data, *DATA, *method)


def test_odd_batches_cannot_be_mixed(tmp_path, capsys):
    message = refused(tmp_path, capsys, *SHAPES, '-b', 5, '--mixup', 0.2)
    assert '--mixup and --cutmix mix images in pairs, but --batch-size has 5; make it even' in message


def test_a_batch_of_one_that_batch_norm_cannot_take_is_told(tmp_path):
    with pytest.raises(SystemExit, match='give a --batch-size of 2 or more') as stop:
        train_here(tmp_path, *SHAPES, '-b', 1, '--epochs', 1)
    assert '\n' not in str(stop.value)


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match='file is no folder'):
        train_here(tmp_path / 'file', *SHAPES, '--model', 'no_such_model')


def test_weights_and_states_that_do_not_fit_are_told_with_the_way_out(tmp_path):
    run = train_here(tmp_path, *SHAPES, '--epochs', 1, '--opt', 'sgd')
    last = run / 'last.pth.tar'
    for options, message in (
        (('--initial-checkpoint', last, '--num-classes', 12), 'takes all but a head of other classes'),
        (('--resume', last, '--opt', 'adamw'), 'it is of another --opt; with the state of another optimizer'),
        (('--resume', last, '--weight-decay', 0), 'groups of parameters'),
    ):
        with pytest.raises(SystemExit, match=message) as stop:
            train_here(tmp_path, *SHAPES, '--epochs', 2, *options, name='other')
        assert '\n' not in str(stop.value)
    assert not (tmp_path / 'other').exists()
    train_here(tmp_path, *SHAPES, '--epochs', 2, '--resume', last, '--opt', 'adamw', '--no-resume-opt', name='other')


def test_the_process_says_it_in_one_line(tmp_path):
    args = (*TINY, *SCHEDULE, *DATA, '--repaint', '--output', tmp_path / 'output')
    done = run_script('train.py', tmp_path / 'nothing', *args, fails=True)
    assert done.stderr.strip().splitlines()[-1] == f'error: data folder {tmp_path}/nothing does not exist'
    assert 'Traceback' not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    'mistake',
    [('--resume', 'nothing.pth.tar'), ('-b', '64'), ('--dataset', ''), ('--stop-epoch', '9'), ('--img-size', '31')],
    ids=lambda mistake: mistake[0],
)
def test_the_folder_of_an_earlier_run_stays_as_it_is(mistake, tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 1)
    before = mtimes(run)
    with pytest.raises(SystemExit):
        train_here(tmp_path, *REPAINT, '--epochs', 1, *mistake)
    assert mtimes(run) == before


def test_repaint_options_without_repaint_are_named_in_a_warning(tmp_path, caplog):
    train_here(tmp_path, *SHAPES, '--epochs', 1, '--repaint-width', 4, '--fh-sigma', 1)
    assert 'without --repaint these options do nothing: --fh-sigma, --repaint-width' in caplog.text
