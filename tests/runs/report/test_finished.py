"""report gallery and report leak: from the folder of a run, which they leave as it is."""

import pytest
from PIL import Image

from tests.helpers import REPAINT, SHAPES, column, mtimes, train_here
from timm_repaint.errors import UsageError
from timm_repaint.monitor.gallery import CAPTION_PX, GAP_PX, MIN_CELL_PX
from timm_repaint.report.__main__ import main
from timm_repaint.report.finished import load_run, report_gallery, report_leak


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 2)


def test_a_gallery_has_as_many_images_and_copies_as_asked_for_and_the_run_stays(run, tmp_path):
    before = mtimes(run)
    report_gallery(run, tmp_path / 'sheet.png', 'cpu', images=3, copies=2)
    with Image.open(tmp_path / 'sheet.png') as sheet:
        sheet.load()
        width, height = CAPTION_PX + GAP_PX + 3 * (MIN_CELL_PX + GAP_PX), GAP_PX + 4 * (MIN_CELL_PX + GAP_PX)
        assert sheet.size == (width, height)
    assert mtimes(run) == before


def test_a_picture_of_others_stays_and_a_gallery_is_drawn_again(run, tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'mine.png')
    before = (tmp_path / 'mine.png').read_bytes()
    with pytest.raises(UsageError, match=r'mine\.png was there before and is no gallery of ours'):
        report_gallery(run, tmp_path / 'mine.png', 'cpu', images=1, copies=1)
    assert (tmp_path / 'mine.png').read_bytes() == before
    for copies in (1, 2):
        report_gallery(run, tmp_path / 'sheet.png', 'cpu', images=1, copies=copies)


def test_the_gallery_is_the_runs_own_last_one(run, tmp_path):
    report_gallery(run, tmp_path / 'sheet.png', 'cpu', images=8, copies=3)
    (own,) = run.glob('gallery-*.png')
    assert (tmp_path / 'sheet.png').read_bytes() == own.read_bytes()


def test_the_leak_is_what_the_run_measured_at_its_end(run):
    leak = report_leak(run, 'cpu')
    last = [column(run, f'train_leak_{name}')[-1] for name in ('original', 'repaint', 'swapped')]
    assert [leak.original, leak.repaint, leak.swapped] == last


def test_both_are_commands(run, tmp_path, monkeypatch, capsys):
    own = ('--device', 'cpu', '--output', str(tmp_path / 'a.png'))
    for words in (('leak', str(run), *own[:2]), ('gallery', str(run), *own)):
        monkeypatch.setattr('sys.argv', ['report', *words])
        assert main() == 0
    assert 'top-1 on 8 validation images' in capsys.readouterr().out
    assert (tmp_path / 'a.png').is_file()
    monkeypatch.setattr('sys.argv', ['report', 'gallery', str(run), '--images', '0'])
    with pytest.raises(SystemExit):
        main()


def test_what_is_no_repaint_run_is_told(run, tmp_path):
    with pytest.raises(UsageError, match=r'args\.yaml does not exist'):
        load_run(tmp_path, 'cpu')
    plain = train_here(tmp_path, *SHAPES, '--epochs', 1)
    with pytest.raises(UsageError, match='is a run without --repaint'):
        load_run(plain, 'cpu')
    (tmp_path / 'early').mkdir()
    (tmp_path / 'early' / 'args.yaml').write_text((run / 'args.yaml').read_text())
    with pytest.raises(UsageError, match='has no checkpoint yet'):
        load_run(tmp_path / 'early', 'cpu')
