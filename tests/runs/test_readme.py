"""What the README says is what the program does."""

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from tests.helpers import run_script
from timm_repaint.commands.show_options import page
from timm_repaint.report.tables_paper import all_entries

REPO = Path(__file__).resolve().parents[2]
README = (REPO / 'README.md').read_text()


def test_the_page_of_options_is_what_the_command_writes():
    assert (REPO / 'docs' / 'options.md').read_text() == page()


def test_the_first_screen_holds_both_commands():
    commands = re.findall(r'```sh\n(.*?)```', README, re.S)[:2]
    assert 'pip install' in commands[0] and 'train.py -c timm_repaint/recipes/demo.yaml' in commands[0]
    assert (REPO / commands[1].split()[-1]).is_file()
    assert README.index(commands[1]) < README.index('## ')


def test_no_link_or_path_in_the_readme_is_dead():
    for target in re.findall(r'\]\(([^)]+)\)', README):
        name, _, heading = target.partition('#')
        path = REPO / (name or 'README.md')
        assert target.startswith('https://') or path.exists(), target
        if heading:
            headings = re.findall(r'^#+ (.*)', path.read_text(), re.M)
            assert heading in [text.lower().replace(' ', '-') for text in headings], target


TABLES = (REPO / 'docs' / 'tables.md').read_text()


@pytest.mark.parametrize('number', [1, 3])
def test_the_page_of_a_table_names_the_recipe_of_each_of_its_rows(number):
    page = TABLES.split(f'## Reproduce Table {number}\n')[1].split('## ')[0]
    loops = [values.split() for values in re.findall(r'for [a-z]+ in (.*); do', page)]
    models = loops[0] if number == 1 else ['resnet50']
    named = {f'{model}-{arm}' for model in models for arm in loops[-1]}
    entries = [entry for entry in all_entries() if entry.table == number]
    assert named == {name for entry in entries for name in (entry.recipe, entry.baseline)}
    assert f'report tables output/tables --tables {number}\n' in page


def test_scripts_that_the_page_of_the_tables_names_are_there():
    for path in re.findall(r'timm_repaint/recipes/[a-z/]+[.](?:sbatch|yaml)', README + TABLES):
        assert (REPO / path).is_file(), path


@pytest.fixture(scope='module')
def demo_run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('demo')
    options = ['--epochs', '4', '--train-num-samples', '100', '--val-num-samples', '20', '--output', str(out)]
    run_script('train.py', '-c', 'timm_repaint/recipes/demo.yaml', *options)
    run_script('fine_tune.py', str(out / 'demo'))
    return out / 'demo'


def test_the_demo_recipe_leaves_the_files_that_the_readme_names(demo_run):
    section = README.split('## What is in the output folder')[1].split('##')[0]
    names = re.findall(r'^\| `([^`]+)`', section, re.M)
    for name in names:
        if name not in ('tensorboard/',):
            assert list(demo_run.glob(name.replace('N', '*'))), name
    assert (demo_run / 'fine_tune' / 'model_best.pth.tar').is_file()


def test_the_python_example_repaints_a_photograph(demo_run, tmp_path, monkeypatch):
    (example,) = [block for block in re.findall(r'```python\n(.*?)```', README, re.S) if 'photo.jpg' in block]
    assert len(example.strip().splitlines()) <= 11
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)).resize((112, 80)).save(tmp_path / 'photo.jpg')
    monkeypatch.chdir(tmp_path)
    exec(example.replace('output/train/demo', str(demo_run)), {})
    with Image.open('repaint.png') as repaint:
        assert repaint.size == (112, 80)
        assert np.asarray(repaint).std() > 1


def blocks_with_repaint(path):
    return [block for block in re.findall(r'```python\n(.*?)```', path.read_text(), re.S) if 'Repaint(' in block]


@pytest.mark.parametrize('name', ['README.md', 'docs/own-loop.md'])
def test_the_loops_that_are_shown_train(name, tmp_path):
    block = blocks_with_repaint(REPO / name)[0]
    for label in ('cat', 'dog'):
        (tmp_path / label).mkdir()
        for index in range(4):
            pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(tmp_path / label / f'{index}.png')
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=2)
    before = [p.detach().clone() for p in model.parameters()]
    names = {
        'ImageFolder': ImageFolder, 'root': tmp_path, 'transform': transform, 'MEAN': mean, 'STD': std, 'device': 'cpu',
        'criterion': torch.nn.CrossEntropyLoss(), 'model': model, 'epochs': 4,
        'optimizer': torch.optim.SGD(model.parameters(), lr=0.01),
    }  # fmt: skip
    names['loader'] = LaterLoader(names)
    exec(block, names)
    assert names['repaint'].updates == (12 if name == 'README.md' else 4)
    assert names['repaint'].stopped == (name == 'README.md')
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


class LaterLoader:
    """A loader of the data set that the block has made, or of plain images."""

    def __init__(self, names):
        self.names = names

    def __iter__(self):
        dataset = self.names.get('dataset') or ImageFolder(self.names['root'], self.names['transform'])
        return iter(torch.utils.data.DataLoader(dataset, batch_size=2, shuffle=True))


def test_the_transform_that_is_shown_repaints():
    block = blocks_with_repaint(REPO / 'docs/own-loop.md')[1]
    names = {'v2': v2, 'torch': torch}
    exec(block, names)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert names['transform'](Image.fromarray(pixels)).shape == (3, 224, 224)
