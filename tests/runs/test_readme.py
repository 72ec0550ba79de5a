"""What README and docs say is what the program does."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from bench.options_page import page
from tests.helpers import run_script
from timm_repaint import cli
from timm_repaint.report.tables_runs import paper_figures

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / 'docs'
README = (REPO / 'README.md').read_text()
PAGES = {path.relative_to(REPO).as_posix(): path.read_text() for path in (REPO / 'README.md', *DOCS.rglob('*.md'))}


def blocks(name: str, language: str) -> list[str]:
    """The code of one language on a page."""
    return re.findall(rf'```{language}\n(.*?)```', PAGES[name], re.S)


def headings(name: str) -> set[str]:
    """What links to a page's headings say behind #."""
    texts = re.findall(r'^#+ (.*)', PAGES[name], re.M)
    return {re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-') for text in texts}


def test_the_page_of_options_is_what_the_command_writes():
    assert PAGES['docs/options.md'] == page()


def test_the_front_page_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150 and len(README.encode()) <= 8192
    assert [line for line in lines if len(line) > 120] == []


def test_the_picture_is_on_the_first_screen():
    (name,) = re.findall(r'!\[[^\]]+\]\(([^)]+)\)', '\n'.join(README.splitlines()[:20]))
    path = REPO / name
    with Image.open(path) as picture:
        assert picture.width >= 600
    assert path.stat().st_size <= 300_000


def test_figures_of_the_front_page_stand_in_the_results():
    shown = re.findall(r'\d+\.\d+', README.split('## Does it help?')[1].split('\n## ')[0])
    results = ''.join(text for name, text in PAGES.items() if name.startswith('docs/results'))
    known = set(re.findall(r'\d+\.\d+', results))
    assert len(shown) > 20 and [figure for figure in shown if figure not in known] == []


def test_both_commands_of_a_fresh_machine_are_lines_of_their_own():
    section = README.split('## Try it')[1].split('\n## ')[0]
    start, tests = re.findall(r'```sh\n(.*?)```', section, re.S)
    assert [line.split()[1] for line in start.splitlines()] == ['-m', 'install', 'train', 'fine-tune']
    assert '&&' not in start
    assert tests.split()[0] == 'bash' and (REPO / tests.split()[1]).is_file()


@pytest.mark.parametrize('name', PAGES)
def test_no_link_is_dead(name):
    for target in re.findall(r'\]\(([^)]+)\)', PAGES[name]):
        if target.startswith('https://'):
            continue
        link, _, heading = target.partition('#')
        path = ((REPO / name).parent / link).resolve() if link else REPO / name
        assert path.exists(), target
        assert name == 'README.md' or DOCS in path.parents, f'{target} is not on the site'
        if heading:
            assert heading in headings(path.relative_to(REPO).as_posix()), target


@pytest.mark.parametrize('name', PAGES)
def test_lists_stand_apart_as_the_sites_markdown_wants_it(name):
    prose = re.sub(r'```.*?```', '', PAGES[name], flags=re.S)
    paragraphs = [text for text in prose.split('\n\n') if not re.match(r'\s*(- |\d+\. |\||#)', text)]
    assert [text for text in paragraphs if re.search(r'\n(- |\d+\. )', text)] == []


def test_the_site_builds_without_a_warning(tmp_path):
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-q', '-d', str(tmp_path)]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.parent.name for path in tmp_path.glob('*/index.html')} >= {'getting-started', 'faq', 'cost', 'api'}


def words_of_the_program() -> str:
    """All strings of the package, a line each; what is put in at run time is an ellipsis."""
    lines = []
    for path in (REPO / 'timm_repaint').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else '…' for part in node.values]
                lines.append(''.join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines.append(re.sub('%[sd]', '…', node.value))
    return '\n'.join(lines)


def test_the_messages_that_are_answered_are_those_of_the_program():
    said = words_of_the_program()
    messages = re.findall(r'^\| `([^`]+)` \|', PAGES['docs/faq.md'], re.M)
    assert len(messages) > 20
    patterns = {message: '.*'.join(map(re.escape, message.strip('… ').split('…'))) for message in messages}
    assert [message for message, pattern in patterns.items() if not re.search(pattern, said)] == []


def options_in(command: str) -> list[str]:
    return re.findall(r'(?<=\s)--[a-z][a-z-]*', command)


COMMANDS = sorted({
    ' '.join(line.replace('\\\n', ' ').split())
    for name in PAGES
    for block in blocks(name, 'sh')
    for line in re.findall(r'^ *(?:\.venv/bin/)?(timm-repaint (?:[^\n]|\\\n)*)', block, re.M)
})  # fmt: skip


@pytest.mark.parametrize('command', COMMANDS)
def test_options_of_a_command_that_is_shown_are_options_that_it_has(command, capsys):
    words = command.split()
    with pytest.raises(SystemExit, match='0'):
        cli.main([*(words[1:3] if words[1] in ('detect', 'report') else words[1:2]), '--help'])
    known = set(options_in(capsys.readouterr().out.replace('[', ' ').replace(',', ' ')))
    assert [option for option in options_in(command) if option not in known] == []


TABLES = PAGES['docs/tables.md']


@pytest.mark.parametrize('number', [1, 3])
def test_the_page_of_a_table_names_the_recipe_of_each_of_its_rows(number):
    page = TABLES.split(f'## Reproduce Table {number}\n')[1].split('## ')[0]
    loops = [values.replace('\\\n', ' ').split() for values in re.findall(r'for [a-z]+ in (.*?); do', page, re.S)]
    models = loops[0] if number == 1 else ['resnet50']
    named = {f'{model}-{arm}' for model in models for arm in loops[-1]}
    figures = paper_figures()
    assert named == set(figures.loc[figures.table == number, ['recipe', 'baseline']].to_numpy().ravel())
    assert f'report tables output/tables --tables {number}\n' in page


def test_scripts_and_recipes_that_are_named_are_there():
    for name, text in PAGES.items():
        for path in re.findall(r'timm_repaint/recipes/[a-z0-9_/-]+[.](?:sbatch|yaml|sh)\b', text):
            assert (REPO / path).is_file(), (name, path)


@pytest.fixture(scope='module')
def demo_run(tmp_path_factory) -> Path:
    """The run of the front page's commands, cut short."""
    out = tmp_path_factory.mktemp('demo')
    _, _, train, fine_tune = blocks('README.md', 'sh')[0].splitlines()
    cut = ['--epochs', '4', '--train-num-samples', '100', '--val-num-samples', '20', '--output', str(out)]
    run_script('-m timm_repaint.cli', *train.split()[1:], *cut)
    run_script('-m timm_repaint.cli', *fine_tune.replace('output/train', str(out)).split()[1:])
    return out / 'demo'


def test_the_demo_recipe_leaves_the_files_that_are_named(demo_run):
    section = PAGES['docs/getting-started.md'].split('## What a run leaves behind')[1]
    rows = re.findall(r'^\| (`[^|]+`) \|', section.split('`summary.csv` has')[0], re.M)
    names = [name for row in rows for name in re.findall('`([^`]+)`', row)]
    assert len(names) >= 7
    for name in names:
        if name not in ('tensorboard/',):
            assert list(demo_run.glob(name.replace('N', '*'))), name
    assert (demo_run / 'fine_tune' / 'model_best.pth.tar').is_file()


def test_the_python_example_repaints_a_photograph(demo_run, tmp_path, monkeypatch):
    (example,) = [block for block in blocks('docs/api.md', 'python') if 'photo.jpg' in block]
    assert len(example.strip().splitlines()) <= 11
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)).resize((112, 80)).save(tmp_path / 'photo.jpg')
    monkeypatch.chdir(tmp_path)
    exec(example.replace('output/train/demo', str(demo_run)), {})
    with Image.open('repaint.png') as repaint:
        assert repaint.size == (112, 80)
        assert np.asarray(repaint).std() > 1


def make_photographs(folder: Path, count: int) -> None:
    """Coarse random pictures of 64 px in two classes."""
    for label in ('cat', 'dog'):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(folder / label / f'{index}.png')


def test_getting_started_goes_from_a_folder_to_a_comparison(tmp_path, monkeypatch):
    make_photographs(tmp_path / 'photos' / 'train', 16)
    make_photographs(tmp_path / 'photos' / 'validation', 8)
    program = tmp_path / 'bin' / 'timm-repaint'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m timm_repaint.cli "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ, 'PATH': f'{program.parent}:{os.environ["PATH"]}', 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1',
        'EPOCHS': '2', 'SIZE': '32', 'MODEL': 'test_resnet --device cpu',
    }  # fmt: skip
    script = '\n'.join(block for block in blocks('docs/getting-started.md', 'sh') if 'pip install' not in block)
    done = subprocess.run(
        ['bash', '-euc', script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'output/train/repaint/gallery-0.png').is_file()
    assert len(list((tmp_path / 'repaints').rglob('*.png'))) == 3 * 16
    assert (tmp_path / 'comparison.html').read_text().startswith('<!doctype html>')
    monkeypatch.chdir(tmp_path)
    (example,) = blocks('docs/getting-started.md', 'python')
    names: dict = {}
    exec(example.replace('resnet18', 'test_resnet').replace('128', '32').replace('7.jpg', '7.png'), names)
    assert names['classes'] == ['cat', 'dog'] and names['transform'](names['photograph']).shape == (3, 32, 32)
    assert names['shares'].shape == (2,) and names['shares'].sum() == pytest.approx(1)


def blocks_with_repaint(name):
    return [block for block in blocks(name, 'python') if 'Repaint(' in block]


@pytest.mark.parametrize(
    ('name', 'number', 'updates'), [('README.md', 0, 12), ('docs/own-loop.md', 0, 4), ('docs/own-loop.md', 1, 0)]
)
def test_the_loops_that_are_shown_train(name, number, updates, tmp_path):
    block = blocks_with_repaint(name)[number]
    make_photographs(tmp_path, 4)
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
    assert names['repaint'].updates == updates
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
    block = blocks_with_repaint('docs/own-loop.md')[2]
    names = {'v2': v2, 'torch': torch}
    exec(block, names)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert names['transform'](Image.fromarray(pixels)).shape == (3, 224, 224)
