"""Every recipe of the detection tables, cut down, trains on COCO photographs, and these runs fill the tables."""

import csv
import json

import huggingface_hub.constants
import pytest
import timm
from safetensors.torch import save_file

from tests.helpers import call_main, read_summary, run_script
from tests.runs.report.test_tables import DETECTION_NAMES
from timm_repaint.detection import fine_tune, train
from timm_repaint.report.tables_runs import DETECTION, load_recipes

SEED = 1
BACKBONES = [f'tf_efficientnet_b{number}' for number in range(4)]
CUT_DOWN = ('--device', 'cpu', '--img-size', 128, '-b', 2, '-vb', 4, '-j', 0, '--warmup-epochs', 1)


def copy_coco(source, target, num_images, copies=1):
    """The first images of COCO's layout with their objects, each several times over."""
    (target / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (target / split).mkdir()
        path = f'annotations/instances_{split}.json'
        content = json.loads((source / path).read_text())
        images, annotations = [], []
        for image in content['images'][:num_images] * copies:
            number = len(images) + 1
            name = f'{number}-{image["file_name"]}'
            (target / split / name).symlink_to(source / split / image['file_name'])
            images.append({**image, 'id': number, 'file_name': name})
            own = [item for item in content['annotations'] if item['image_id'] == image['id']]
            annotations += [{**item, 'id': len(annotations) + k, 'image_id': number} for k, item in enumerate(own)]
        (target / path).write_text(json.dumps({**content, 'images': images, 'annotations': annotations}))
    return target


@pytest.fixture(scope='module')
def few_and_many(shared_data, tmp_path_factory):
    """Four photographs; and the four so many times over that 1 % of them are a batch."""
    folder = tmp_path_factory.mktemp('coco')
    source = shared_data / 'coco-mini'
    return copy_coco(source, folder / 'few', 4), copy_coco(source, folder / 'many', 4, copies=50)


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    """A cache of the hub that holds random weights of the backbones, and nothing else can be had."""
    folder = tmp_path_factory.mktemp('hub')
    for name in BACKBONES:
        entry = folder / f'models--{timm.get_pretrained_cfg(name).hf_hub_id.replace("/", "--")}'
        snapshot = entry / 'snapshots' / '0'
        snapshot.mkdir(parents=True)
        (entry / 'refs').mkdir()
        (entry / 'refs' / 'main').write_text('0')
        save_file(timm.create_model(name).state_dict(), snapshot / 'model.safetensors')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(folder))
        patch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
        yield folder


def train_recipe(name, few_and_many, deeplab_weights, output):
    """Both phases of a recipe, an epoch each; the last phase's folder."""
    few, many = few_and_many
    recipe = load_recipes()[name]
    args = ['--data-dir', many if recipe.get('train_fraction', 1) < 1 else few, *CUT_DOWN, '--epochs', 2]
    args += ['--mask-checkpoint', deeplab_weights, '--repaint-epochs', 1] if recipe['repaint'] else []
    place = ['--seed', SEED, '--output', output, '--experiment', f'{name}-seed{SEED}']
    call_main(train.main, '-c', DETECTION / f'{name}.yaml', *args, *place)
    run = output / f'{name}-seed{SEED}'
    if not recipe['repaint']:
        return run
    with pytest.MonkeyPatch.context() as patch:  # what comes from the hub comes once
        patch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(output / 'nothing'))
        call_main(fine_tune.main, run)
    return run / 'fine_tune'


@pytest.mark.slow
def test_each_recipe_trains_both_phases_and_the_tables_are_built_from_the_runs(
    few_and_many, deeplab_weights, hub, tmp_path
):
    for name in DETECTION_NAMES:
        last = read_summary(train_recipe(name, few_and_many, deeplab_weights, tmp_path / 'runs'))[-1]
        assert last['epoch'] == 1, name
    options = ('--output', tmp_path / 'out', '--seeds', SEED, '--tables', 2, 5, 7)
    done = run_script('-m timm_repaint.report', 'tables', tmp_path / 'runs', *options)
    with open(tmp_path / 'out' / 'tables.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert rows and all(0 <= float(row['ours']) <= 100 and row['seeds'] == str(SEED) for row in rows)
    assert 'missing' not in done.stdout and 'left out' not in done.stdout
    assert done.stdout.count('is a smaller trial of') == len(DETECTION_NAMES)
