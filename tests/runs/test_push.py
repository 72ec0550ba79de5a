"""A finished classifier elsewhere: on the Hub (a stand-in in this process), in torch.export and in ONNX."""

import json
import re
import shutil
from argparse import Namespace
from pathlib import Path

import huggingface_hub
import pytest
import timm
import timm.models._hub as timm_hub
import torch
import yaml
from safetensors.torch import load_file

from tests.helpers import REPAINT, REPO, SHAPES, call_main, fine_tune_here, load_checkpoint, train_here
from timm_repaint.errors import UsageError
from timm_repaint.report import push


class ConnectError(Exception):
    """As the Hub's library raises it without a network: no OSError."""


DOC = (REPO / 'docs/hub.md').read_text()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    run = train_here(tmp_path_factory.mktemp('push'), *REPAINT, '--epochs', 2, '--repaint-epochs', 1)
    fine_tune_here(run)
    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in place of huggingface.co."""
    folder = tmp_path / 'hub'

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            if repo_id == 'nobody/net':
                raise OSError('401 Unauthorized')
            if repo_id == 'nowhere/net':
                raise ConnectError('Name or service not known')
            (folder / repo_id).mkdir(parents=True, exist_ok=True)
            return type('Url', (), {'repo_id': repo_id})

        def file_exists(self, repo_id, filename, revision=None):
            return (folder / repo_id / filename).is_file()

        def upload_folder(self, *, repo_id, folder_path, **_):
            shutil.copytree(folder_path, folder / repo_id, dirs_exist_ok=True)

        def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id):
            shutil.copy(path_or_fileobj, folder / repo_id / path_in_repo)

    for module in (huggingface_hub, timm_hub):
        monkeypatch.setattr(module, 'HfApi', Api)
    return folder


def test_the_network_of_the_last_phase_its_config_card_and_gallery_are_pushed(run, hub, capsys):
    assert call_main(push.main, run, 'me/net') == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'https://huggingface.co/me/net'
    repo = hub / 'me/net'
    assert {path.name for path in repo.iterdir()} == {'model.safetensors', 'config.json', 'README.md', 'gallery.png'}
    state = load_checkpoint(run / 'fine_tune/model_best.pth.tar')['state_dict']
    pushed = load_file(repo / 'model.safetensors')
    assert pushed.keys() == state.keys() and all(torch.equal(pushed[name], state[name]) for name in state)
    model = timm.create_model(f'local-dir:{repo}', pretrained=True).eval()
    assert model.num_classes == json.loads((repo / 'config.json').read_text())['num_classes']
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    card = (repo / 'README.md').read_text()
    for part in ('**Top-1 on its validation split:** ', '--model: test_', '![repaints](gallery.png)', 'hf_hub:me/net'):
        assert part in card
    assert str(run.parent) not in card and '--output' not in card, 'places on this machine'
    assert '--repaint: True' in card and '--repaint-epochs: 1' in card, 'those of the first phase'


def test_no_place_on_this_machine_is_in_a_card_and_no_data_are_needed(tmp_path, hub):
    torch.save(timm.create_model('test_resnet', num_classes=10).state_dict(), tmp_path / 'x.pth')
    run = train_here(tmp_path / 'runs', *SHAPES, '--epochs', 1, '--initial-checkpoint', tmp_path / 'x.pth')
    options = yaml.safe_load((run / 'args.yaml').read_text())
    (run / 'args.yaml').write_text(yaml.safe_dump({**options, 'dataset': '', 'data': '/nowhere/photos'}))
    saved = load_checkpoint(run / 'model_best.pth.tar')
    args = Namespace(**{**vars(saved['args']), 'dataset': '', 'data': '/nowhere/photos'})
    torch.save({**saved, 'args': args}, run / 'model_best.pth.tar')
    assert call_main(push.main, run, 'me/net') == 0
    card = (hub / 'me/net/README.md').read_text()
    assert '--epochs: 1' in card and 'x.pth' not in card and '/nowhere' not in card


@pytest.mark.parametrize(('options', 'name'), [((), 'state_dict_ema'), (('--model-ema-force-cpu',), 'state_dict')])
def test_the_weights_and_the_figure_are_those_that_validation_measured(tmp_path, hub, options, name):
    average = ('--model-ema', '--model-ema-decay', 0.5, *options)
    run = train_here(tmp_path, *SHAPES, '--epochs', 2, *average, '--eval-metric', 'loss')
    best = load_checkpoint(run / 'model_best.pth.tar')
    lines = (run / 'summary.csv').read_text().splitlines()
    place = lines[0].split(',').index('eval_top1')
    rows = [line.split(',') for line in lines[1:]]
    for row in rows:
        row[place] = '12.5' if float(row[0]) == best['epoch'] else '99'  # of the least loss, not the best accuracy
    (run / 'summary.csv').write_text('\n'.join([lines[0], *map(','.join, rows)]))
    assert call_main(push.main, run, 'me/net') == 0
    pushed = load_file(hub / 'me/net/model.safetensors')
    assert all(torch.equal(pushed[key], best[name][key]) for key in pushed)
    other = best['state_dict_ema' if name == 'state_dict' else 'state_dict']
    assert any(not torch.equal(pushed[key], other[key]) for key in pushed)
    assert f'12.50 % (epoch {best["epoch"]})' in (hub / 'me/net/README.md').read_text()


def test_a_card_that_is_there_stays_and_what_the_hub_says_is_one_line(run, hub):
    (hub / 'me/net').mkdir(parents=True)
    (hub / 'me/net/README.md').write_text('mine')
    assert call_main(push.main, run / 'fine_tune', 'me/net') == 0
    assert (hub / 'me/net/README.md').read_text() == 'mine'
    with pytest.raises(UsageError, match=r'the Hub refuses nobody/net: 401 Unauthorized; see hf auth login'):
        call_main(push.main, run, 'nobody/net')
    with pytest.raises(UsageError, match=r'the Hub refuses nowhere/net: Name or service not known'):
        call_main(push.main, run, 'nowhere/net')


def test_a_folder_without_a_classifier_is_named(tmp_path, hub):
    with pytest.raises(UsageError, match=r'args\.yaml does not exist: RUN is the output folder'):
        call_main(push.main, tmp_path, 'me/net')
    (tmp_path / 'args.yaml').write_text('model: test_resnet\n')
    with pytest.raises(UsageError, match=r'model_best\.pth\.tar does not exist'):
        call_main(push.main, tmp_path, 'me/net')
    (tmp_path / 'args.yaml').write_text('task: detection\n')
    with pytest.raises(UsageError, match='is a detector; the Hub takes classifiers'):
        call_main(push.main, tmp_path, 'me/net')
    assert not (hub / 'me').exists()


def shown(run: Path, *titles: str) -> str:
    """Python code of sections of the page, for the run's network."""
    options = load_checkpoint(run / 'fine_tune/model_best.pth.tar')['args']
    code = '\n'.join(re.findall(rf'## {re.escape(title)}\n.*?```python\n(.*?)```', DOC, re.S)[0] for title in titles)
    code = code.replace('output/train/repaint', str(run)).replace('resnet18', options.model).replace('224', '32')
    return code.replace('num_classes=2', f'num_classes={options.num_classes or 4}')


def test_it_goes_through_torch_export_as_the_page_shows(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(shown(run, 'In timm', 'torch.export'), names)
    image = torch.rand(1, 3, 32, 32)
    program = torch.export.load(tmp_path / 'model.pt2').module()
    torch.testing.assert_close(program(image), names['model'](image))


def test_it_goes_to_onnx_as_the_page_shows(run, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    onnx = pytest.importorskip('onnx')
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(shown(run, 'In timm', 'torch.export', 'ONNX'), names)
    onnx.checker.check_model('model.onnx')
    image = torch.rand(1, 3, 32, 32)
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator('model.onnx')
    (logits,) = evaluator.run(None, {evaluator.input_names[0]: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), names['model'](image).detach(), atol=1e-4, rtol=1e-3)
