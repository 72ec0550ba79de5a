"""Real runs on COCO photographs: both phases, their files, exact resume, two processes, reports."""

import json
import math
import re
import shutil
from pathlib import Path

import effdet
import pytest
import torch
from PIL import Image, ImageChops

from tests.helpers import call_main, column, load_checkpoint, read_summary, run_script, same_tensors
from timm_repaint.detection import fine_tune, train
from timm_repaint.detection import validate as validate_script
from timm_repaint.detection.evaluate import validate
from timm_repaint.errors import UsageError
from timm_repaint.report.finished import load_run, report_gallery, report_leak

TINY = (
    '--device', 'cpu', '--img-size', 128, '-b', 4, '-j', 0, '--lr', '0.002', '--opt', 'adamw', '--warmup-epochs', 0,
    '--scale-jitter', '0.8', '1.25', '--repaint-width', 8,
)  # fmt: skip
# Three batches are the updates D+T, D+T, E+G.
REPAINT = ('--repaint', '--mask', 'fh', '--epochs', 3, '--repaint-epochs', 2, '--repaint-gallery-interval', 1)
EXACT = (*REPAINT, '-j', 2, '--model-ema', '--model-ema-decay', '0.9', '--color-jitter', '0.2')


@pytest.fixture(scope='module')
def coco(shared_data):
    return shared_data / 'coco-mini'


def train_here(output: Path, coco: Path, *args: object, name: str = 'run') -> Path:
    """The training script in this process; the run's folder."""
    call_main(train.main, '--data-dir', coco, *TINY, '--output', output, '--experiment', name, *args)
    return output / name


@pytest.fixture(scope='module')
def whole(coco, tmp_path_factory):
    """Both repaint epochs, and the fine-tune after them."""
    run = train_here(tmp_path_factory.mktemp('whole'), coco, *EXACT)
    call_main(fine_tune.main, run)
    return run


def test_a_run_leaves_the_files_and_columns_of_a_classifiers(whole):
    rows = read_summary(whole)
    assert [row['epoch'] for row in rows] == [0, 1]
    for name in ('train_loss', 'train_d_loss', 'train_g_feat', 'train_diversity', 'eval_loss', 'eval_map', 'eval_ap50'):
        assert all(math.isfinite(row[name]) for row in rows), name
    assert all(math.isfinite(row['train_leak_original']) for row in rows)
    assert rows[1]['train_loss'] < rows[0]['train_loss']
    for name in ('args.yaml', 'last.pth.tar', 'model_best.pth.tar', 'gallery-0.png', 'gallery-1.png'):
        assert (whole / name).is_file(), name
    assert column(whole / 'fine_tune', 'epoch') == [2]
    assert column(whole / 'fine_tune', 'lr')[0] < rows[1]['lr'] < rows[0]['lr']


def test_effdet_reads_the_checkpoints_of_both_phases(whole):
    for path in (whole / 'last.pth.tar', whole / 'fine_tune' / 'model_best.pth.tar'):
        model = effdet.create_model(
            'tf_efficientdet_d0', num_classes=80, image_size=(128, 128), checkpoint_path=str(path)
        )
        assert same_tensors(dict(model.state_dict()), dict(load_checkpoint(path)['state_dict']))


def test_the_gallery_shows_boxes_on_originals_and_repaints(whole):
    with Image.open(whole / 'gallery-1.png') as sheet:
        colours = {rgb: count for count, rgb in sheet.convert('RGB').getcolors(2**24)}
    assert colours[(255, 40, 40)] > 1000


def learned(run):
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    return {key: checkpoint.get(key) for key in ('epoch', 'state_dict', 'state_dict_ema', 'optimizer', 'repaint')}


def test_a_run_that_was_stopped_and_resumed_ends_bit_by_bit_as_one_that_was_not(whole, coco, tmp_path):
    stopped = train_here(tmp_path, coco, *EXACT, '--stop-epoch', 1)
    assert not same_tensors(learned(stopped), learned(whole))
    train_here(tmp_path, coco, *EXACT, '--resume', 'auto')
    assert same_tensors(learned(stopped), learned(whole))
    assert (stopped / 'summary.csv').read_bytes() == (whole / 'summary.csv').read_bytes()
    with Image.open(stopped / 'gallery-1.png') as ours, Image.open(whole / 'gallery-1.png') as theirs:
        assert ImageChops.difference(ours, theirs).getbbox() is None
    call_main(fine_tune.main, stopped)
    assert same_tensors(learned(stopped / 'fine_tune'), learned(whole / 'fine_tune'))


def test_an_unfinished_repaint_phase_names_the_command_that_finishes_it(coco, tmp_path, capsys):
    run = train_here(tmp_path, coco, *REPAINT, '--stop-epoch', 1)
    with pytest.raises(SystemExit):
        call_main(fine_tune.main, run)
    assert f'finish it first: python -m timm_repaint.detection.train -c {run}/args.yaml' in capsys.readouterr().err


def test_reports_on_a_finished_run(whole, tmp_path, capsys):
    report_gallery(whole, tmp_path / 'gallery.png', 'cpu', images=3, copies=1)
    with Image.open(tmp_path / 'gallery.png') as sheet:
        assert sheet.height > 3 * 128
    report_leak(whole, 'cpu')
    assert re.search(r'objects found on 8 validation images: \d+\.\d %', capsys.readouterr().out)


def test_a_run_can_be_validated_again_and_on_another_split(whole, capsys):
    call_main(validate_script.main, whole)
    row = read_summary(whole)[-1]
    assert f'validation: loss {row["eval_loss"]:.4f}  mAP@0.5:0.95 {row["eval_map"]:.2f}' in capsys.readouterr().out
    call_main(validate_script.main, whole / 'fine_tune', '--val-split', 'train2017')
    assert re.search(r'train2017: loss \d+\.\d{4}  mAP', capsys.readouterr().out)


def test_images_whose_categories_are_other_classes_are_not_validated(whole, coco, tmp_path):
    other = shutil.copytree(coco, tmp_path / 'other')
    for path in (other / 'annotations').glob('instances_*.json'):
        content = json.loads(path.read_text())
        ids = [category['id'] for category in content['categories']]
        renumbered = dict(zip(ids, reversed(ids), strict=True))
        for row in content['categories']:
            row['id'] = renumbered[row['id']]
        for row in content['annotations']:
            row['category_id'] = renumbered[row['category_id']]
        path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match='list other categories, so that one number would mean two classes'):
        call_main(validate_script.main, whole, '--data-dir', other)


def test_what_cannot_be_validated_is_told_in_a_line(tmp_path, whole, capsys):
    with pytest.raises(UsageError, match=r'args\.yaml does not exist: RUN_DIR is the output folder'):
        call_main(validate_script.main, tmp_path)
    (tmp_path / 'args.yaml').write_text('model: resnet50\n')
    with pytest.raises(UsageError, match=r'is no run of timm_repaint\.detection\.train'):
        call_main(validate_script.main, tmp_path)
    for words, message in (
        (('-b', 0), '--batch-size is 0'),
        (('--interpolation', 'nonsense'), '--interpolation'),
        (('--val-split', ''), 'name one with --val-split'),
    ):
        with pytest.raises((SystemExit, UsageError)) as stop:
            call_main(validate_script.main, whole, *words)
        assert message in f'{capsys.readouterr().err} {stop.value}'
    shutil.copyfile(whole / 'args.yaml', tmp_path / 'args.yaml')
    with pytest.raises(UsageError, match=r'last\.pth\.tar does not exist: the run has no checkpoint yet'):
        call_main(validate_script.main, tmp_path)


def test_a_checkpoint_that_holds_more_than_weights_is_refused(coco, tmp_path):
    torch.save({'state_dict': {}, 'more': shutil.rmtree}, tmp_path / 'more.pth.tar')
    with pytest.raises(UsageError, match=r'more\.pth\.tar'):
        train_here(tmp_path, coco, '--initial-checkpoint', tmp_path / 'more.pth.tar', '--epochs', 1)


@pytest.mark.parametrize('mask', ['folder', 'superpixels'])
def test_semantic_masks_of_files_train_too_and_superpixels(coco, tmp_path, mask):
    files = ('--mask-dir', coco / 'stuffthingmaps', '--mask-classes', 182) if mask == 'folder' else ()
    masks = ('--mask', mask, *files)
    run = train_here(tmp_path, coco, '--repaint', '--epochs', 2, '--repaint-epochs', 1, *masks)
    assert math.isfinite(column(run, 'train_g_feat')[0]) and math.isfinite(column(run, 'train_leak_original')[0])


# With TINY's learning rate three updates carry a rounding error to several percent, in either direction by the seed.
ONE_EPOCH = ('--repaint', '--epochs', 2, '--repaint-epochs', 1, '--lr', '0.0002')


@pytest.fixture(scope='module')
def float32_loss(coco, tmp_path_factory):
    run = train_here(tmp_path_factory.mktemp('float32'), coco, *ONE_EPOCH)
    return column(run, 'train_loss')[0]


@pytest.mark.parametrize(
    'options',
    [('--amp', '--amp-dtype', 'bfloat16', '--channels-last'), ('--model-dtype', 'bfloat16')],
    ids=['amp and channels last', 'model dtype'],
)
def test_half_precision_trains_to_the_loss_of_float32_within_5_percent(options, float32_loss, coco, tmp_path):
    run = train_here(tmp_path, coco, *ONE_EPOCH, *options)
    assert column(run, 'train_loss')[0] == pytest.approx(float32_loss, rel=0.05)
    assert math.isfinite(column(run, 'eval_loss')[0])


def test_another_model_at_a_size_that_its_strides_do_not_divide(coco, tmp_path):
    options = ('--model', 'tf_efficientdet_lite0', '--img-size', 150, '--repaint', '--epochs', 2, '--repaint-epochs', 1)
    run = train_here(tmp_path, coco, *options)
    assert math.isfinite(column(run, 'train_g_gan')[0]) and math.isfinite(column(run, 'eval_loss')[0])


def test_plain_training_needs_no_mask_and_a_share_of_the_images_is_enough(coco, tmp_path):
    run = train_here(tmp_path, coco, '--epochs', 1, '--train-fraction', '0.5', '-b', 2)
    assert column(run, 'eval_map')[0] >= 0 and 'train_d_loss' not in read_summary(run)[0]
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    assert 'repaint' not in checkpoint and not checkpoint.get('task_state')


def test_two_processes_train_together_and_their_metrics_are_those_of_all_images(coco, tmp_path):
    launcher = '-m torch.distributed.run --standalone --nproc-per-node 2 -m timm_repaint.detection.train'
    # Validation batches of one image: effdet's loss is a mean over the objects of a batch.
    args = ('--data-dir', coco, *TINY, '-b', 2, '-vb', 1, '--repaint', '--epochs', 2, '--repaint-epochs', 1)
    done = run_script(launcher, *args, '--output', tmp_path, '--experiment', 'run')
    assert 'Process 1 of 2' in done.stdout + done.stderr
    run = load_run(tmp_path / 'run', 'cpu')
    alone = validate(run.task.get_eval_model(), run.loaders.eval, torch.nn.Identity(), run.args, run.device)
    for name in ('loss', 'map', 'ap50'):
        assert column(tmp_path / 'run', f'eval_{name}')[0] == pytest.approx(alone[name], rel=1e-4)


def test_the_built_in_set_needs_no_files(tmp_path):
    call_main(
        train.main, '--dataset', 'shapes', '--train-num-samples', 12, '--val-num-samples', 4, *TINY, *REPAINT,
        '--output', tmp_path, '--experiment', 'run',
    )  # fmt: skip
    assert column(tmp_path / 'run', 'epoch') == [0, 1]


def test_a_data_folder_of_another_layout_ends_with_one_line(tmp_path):
    (tmp_path / 'train').mkdir()
    done = run_script('-m timm_repaint.detection.train', '--data-dir', tmp_path, *TINY, fails=True)
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f'error: {tmp_path}/annotations/instances_train2017.json does not exist; the data')


@pytest.mark.slow
def test_the_training_photographs_can_be_learned_by_heart(shared_data, coco, tmp_path):
    network = ('--model', 'tf_efficientdet_lite0', '--pretrained-backbone-path', shared_data / 'weights' / 'lite0.pth')
    splits = ('--train-split', 'train2017', '--val-split', 'train2017')
    options = (*network, *splits, '--img-size', 256, '-b', 6, '-vb', 13, '--no-aug')
    epochs = ('--epochs', 160, '--repaint-epochs', 100, '--warmup-epochs', 5, '--clip-grad', 10, '--val-interval', 100)
    run = train_here(tmp_path, coco, *options, *epochs, '--repaint', '--repaint-width', 16)
    call_main(fine_tune.main, run)
    assert column(run / 'fine_tune', 'eval_ap50')[-1] > 70
    shutil.rmtree(run)
