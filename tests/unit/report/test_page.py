"""The page of runs: what it says of one and of several, that it stays small, and that no text in it is code."""

import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from tests.helpers import call_main
from tests.shown_runs import draw_gallery, make_run, row, write_rows
from timm_repaint.errors import UsageError
from timm_repaint.monitor.gallery import colorize_labels, read_gallery, save_gallery
from timm_repaint.report.__main__ import main
from timm_repaint.report.page import PAGE, render_page, summarise, write_page
from timm_repaint.report.page_pictures import draw_galleries
from timm_repaint.report.page_pictures import draw_gallery as draw_pictures
from timm_repaint.report.page_runs import changed_options, epoch_seconds, raised_alarms, read_groups, read_shown_run
from timm_repaint.report.page_watch import open_server, stamp_of

MEGABYTE = 1_000_000
HOSTILE = '<img src=x onerror=alert(1)>'


def visible(html: str) -> str:
    """The page without its scripts."""
    return re.sub(r'<script.*?</script>', '', html, flags=re.S)


def data_of(html: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(text)


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Path:
    """Two seeds of plain training and three with repaints."""
    folder = tmp_path_factory.mktemp('runs')
    for seed in (0, 1):
        make_run(folder / f'plain-seed{seed}', 4, seed=seed)
    for seed in (0, 1, 2):
        make_run(folder / f'repaint-seed{seed}', 4, galleries=2, seed=seed, repaint=True)
    return folder


def test_runs_that_differ_in_the_seed_alone_are_a_group(runs):
    groups = read_groups([runs])
    assert [(group.name, [run.seed for run in group.runs]) for group in groups] == [
        ('plain', ['0', '1']), ('repaint', ['0', '1', '2'])
    ]  # fmt: skip


def test_a_seed_that_went_on_stays_in_its_group(tmp_path):
    for seed, resume in ((0, ''), (1, 'auto')):
        make_run(tmp_path / f'one-seed{seed}', 1, seed=seed, resume=resume)
    assert [[run.seed for run in group.runs] for group in read_groups([tmp_path])] == [['0', '1']]


def test_the_same_run_once_more_is_a_group_of_its_own(tmp_path):
    make_run(tmp_path / 'a' / 'one-seed0', 1, seed=0)
    make_run(tmp_path / 'b' / 'one-seed0', 1, seed=0)
    assert [group.name for group in read_groups([tmp_path])] == ['one-seed0', 'one-seed0 (2)']


def test_figures_are_means_with_intervals_and_differences_are_pairs(runs):
    metric, (plain, repaint) = summarise(read_groups([runs]))
    assert metric == 'top-1, %'
    # Student's t at 97.5 %: 12.7062 with two values, 4.3027 with three; the seeds are a tenth apart.
    assert plain['last'] == f'{53.05:.2f} ± {12.7062 * 0.05:.2f}'
    assert repaint['last'] == f'{55.1:.2f} ± {4.3027 * 0.1 / 3**0.5:.2f}'
    assert plain['difference'] == '-'
    assert repaint['difference'] == '+2.00 (+2.00 to +2.00)' and repaint['pairs'] == '2 pairs'


def test_a_page_of_one_run_has_no_words_about_seeds_and_differences(tmp_path):
    one = visible(render_page([make_run(tmp_path / 'a', 2, repaint=True, seed=0)]))
    assert not [word for word in ('Student', 'difference', 'Shaded') if word.lower() in one.lower()]
    make_run(tmp_path / 'b', 2, seed=0)
    two = visible(render_page([tmp_path]))
    assert '<th>difference to b</th>' in two and 'Differences are those of pairs' in two
    assert 'Student' not in two and 'Shaded: lowest' not in two


def test_differences_are_to_plain_training_wherever_it_stands(tmp_path):
    make_run(tmp_path / 'a', 2, repaint=True, seed=0)
    make_run(tmp_path / 'b', 2, seed=0)
    _, (first, second) = summarise(read_groups([tmp_path]))
    assert (first['difference'], second['difference']) == ('+2.00', '-')


def test_differences_are_at_the_last_epoch_that_both_runs_have(tmp_path):
    make_run(tmp_path / 'plain', 5, seed=0)
    make_run(tmp_path / 'repaint', 3, seed=0, repaint=True)
    _, (plain, repaint) = summarise(read_groups([tmp_path]))
    assert (plain['last'], repaint['last'], repaint['difference']) == ('54.00', '54.00', '+2.00')


def test_the_options_are_those_that_differ_from_the_defaults(runs):
    options = {flag: (default, values) for flag, default, values in changed_options(read_groups([runs]))}
    assert options['--repaint'] == ('False', ['False', 'True'])
    assert options['--seed'] == ('42', ['0, 1', '0, 1, 2'])
    assert '--lr' not in options


def test_the_fine_tune_phase_goes_on_behind_the_first(tmp_path):
    run = make_run(tmp_path / 'run', 3, repaint=True, seed=0)
    make_run(run / 'fine_tune', 5, seed=0)
    write_rows(run / 'fine_tune', [row(epoch, {'seed': 0, 'repaint': False}) for epoch in (3, 4)])
    ((shown,),) = [group.runs for group in read_groups([run / 'fine_tune'])]
    assert shown.fine_tune_from == 3
    assert list(shown.points('eval_top1')) == [0, 1, 2, 3, 4]
    assert list(shown.points('train_d_loss')) == [0, 1, 2]


def test_epochs_are_counted_where_not_each_has_a_row(tmp_path):
    run = make_run(tmp_path / 'run', 11, repaint=True, seed=0, val_interval=3)
    write_rows(run, [row(epoch, {'seed': 0, 'repaint': True}) for epoch in (2, 5, 7)])  # the last one of its phase
    make_run(run / 'fine_tune', 11, seed=0)
    write_rows(run / 'fine_tune', [row(epoch, {'seed': 0, 'repaint': False}) for epoch in (8, 10)])
    for folder, step in ((run, 10), (run / 'fine_tune', 4)):
        for path in folder.glob('checkpoint-*'):
            path.unlink()
        for epoch in (8, 9):
            path = folder / f'checkpoint-{epoch}.pth.tar'
            path.touch()
            os.utime(path, (step * epoch, step * epoch))
    (group,) = read_groups([run])
    assert group.runs[0].fine_tune_from == 8 and group.runs[0].spans == (8, 3)
    _, (figures,) = summarise([group])
    assert figures['epochs'] == '11 of 11' and figures['whole'] == f'{(8 * 10 + 3 * 4) / 60:.1f} min'


def test_alarms_are_those_of_training_with_the_epochs_that_they_hold(tmp_path):
    run = make_run(tmp_path / 'run', 6, repaint=True, seed=0)
    rows = [row(epoch, {'seed': 0, 'repaint': True}) for epoch in range(6)]
    for epoch in (1, 2):
        rows[epoch]['train_d_loss'] = 0.01
    rows[5] |= {'train_leak_repaint': 90.0, 'train_skipped_updates': 3.0}
    write_rows(run, rows)
    (won, leak, skipped) = raised_alarms(read_shown_run(run))
    assert won[0] == 'epochs 1 to 2' and 'D wins outright' in won[1]
    assert leak[0] == 'epoch 5' and 'Repaints leak the class' in leak[1] and 'chance explains 2.0 points' in leak[1]
    assert skipped == ('in all', '3 updates of E, G and D were skipped: a loss or gradient was not finite')


def test_an_epochs_seconds_are_the_median_between_checkpoints(tmp_path):
    assert epoch_seconds(tmp_path) is None
    for epoch, time in ((0, 100), (1, 110), (3, 130), (4, 1000)):  # the last one was resumed
        path = tmp_path / f'checkpoint-{epoch}.pth.tar'
        path.touch()
        os.utime(path, (time, time))
    assert epoch_seconds(tmp_path) == 10


def test_a_gallery_is_read_as_it_was_drawn(tmp_path):
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (3, 2, 100, 120, 3), dtype=np.uint8)
    labels = draws.integers(0, 9, (2, 100, 120))
    save_gallery(tmp_path / 'gallery.png', images[0], labels, images[1:])
    originals, masks, *repaints = read_gallery(tmp_path / 'gallery.png')
    np.testing.assert_array_equal(originals, images[0])
    np.testing.assert_array_equal(masks, [colorize_labels(one) for one in labels])
    np.testing.assert_array_equal(repaints, images[1:])


def test_a_gallery_of_before_is_taken_for_one_of_eight_images_and_three_repaints(tmp_path):
    draw_gallery(tmp_path, 0, 96)
    with Image.open(tmp_path / 'gallery-0.png') as sheet:
        sheet.convert('RGB').save(tmp_path / 'old.png')
    assert list(map(len, read_gallery(tmp_path / 'old.png'))) == [8] * 5


def test_another_picture_is_no_gallery(tmp_path):
    Image.new('RGB', (50, 50)).save(tmp_path / 'other.png')
    with pytest.raises(ValueError, match='not a gallery of 8 columns and 5 rows'):
        read_gallery(tmp_path / 'other.png')


def test_galleries_that_cannot_be_read_are_named_and_the_others_shown(tmp_path):
    run = make_run(tmp_path / 'run', 4, galleries=3, repaint=True, seed=0)
    (run / 'gallery-3.png').write_bytes(b'no picture')
    Image.new('RGB', (50, 50)).save(run / 'gallery-1.png')
    ((gallery,), remarks) = draw_galleries(read_groups([run]))
    assert list(gallery['repaints']) == [2]
    assert [len(gallery[name]) for name in ('originals', 'outlines')] == [8, 8]
    assert 'gallery-3.png is left out' in remarks[0] and 'gallery-1.png is left out: not a gallery' in remarks[1]
    html = visible(render_page([run]))
    assert all(name in html for name in ('gallery-1.png is left out', 'gallery-3.png is left out'))


def test_outlines_lie_where_a_segment_ends(tmp_path):
    from base64 import b64decode
    from io import BytesIO

    run = make_run(tmp_path / 'run', 1, galleries=1, size_px=96, repaint=True, seed=0)
    gallery, _ = draw_pictures(read_shown_run(run), MEGABYTE)
    kind, _, text = gallery['outlines'][0].partition(',')
    assert kind == 'data:image/png;base64'
    alpha = np.asarray(Image.open(BytesIO(b64decode(text))).convert('RGBA'))[..., 3]
    assert np.flatnonzero(alpha.any(0)).tolist() == [48]
    assert alpha[:, 48].min() == 255


def test_galleries_fit_into_the_bytes_that_they_may_have(tmp_path):
    run = make_run(tmp_path / 'run', 12, galleries=12, size_px=96, repaint=True, seed=0)
    whole, nothing = draw_pictures(read_shown_run(run), 100 * MEGABYTE)
    few, (remark,) = draw_pictures(read_shown_run(run), MEGABYTE // 20)
    assert list(whole['repaints']) == list(range(12)) and nothing == []
    assert 11 in few['repaints'] and len(few['repaints']) < 12
    assert remark == f'run: {len(few["repaints"])} of 12 galleries are shown, to keep the page small'
    assert sum(len(strip) for strips in few['repaints'].values() for strip in strips) < MEGABYTE / 20 * 1.3


def test_names_and_values_from_files_are_text_and_no_code(tmp_path):
    run = make_run(tmp_path / '<script>alert(1)<' / 'script>' / HOSTILE, 2, galleries=1, repaint=True, seed=0,
                   model='</script><script>alert(2)</script>', notes='x')  # fmt: skip
    (run / 'gallery-0.png').write_text('no picture')  # its path is in a remark
    html = render_page([run])
    assert HOSTILE not in html and 'alert(2)</script>' not in html
    assert '<script>alert(' not in html
    assert '&lt;img src=x onerror=alert(1)&gt;' in visible(html)
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in visible(html)
    assert html.count('<script') == 3
    assert data_of(html)['galleries']  # and still the data


def test_names_that_are_no_text_are_written(tmp_path):
    folder = Path(os.fsdecode(bytes(tmp_path) + b'/caf\xe9'))
    assert write_page([make_run(folder, 1, seed=0)], None).read_text(encoding='utf-8').startswith('<!doctype html>')


def test_a_file_of_others_stays_and_a_page_is_written_again(tmp_path):
    run = make_run(tmp_path / 'a', 1, seed=0)
    write_page([run], None)
    write_page([run], None)
    (tmp_path / 'precious.csv').write_text('mine')
    with pytest.raises(UsageError, match=r'precious\.csv was there before and is no page of ours: give another --out'):
        write_page([run], tmp_path / 'precious.csv')
    assert (tmp_path / 'precious.csv').read_text() == 'mine'
    with pytest.raises(UsageError, match=r'cannot read .*: Is a directory'):
        write_page([run], tmp_path)


def test_the_page_lies_in_the_runs_folder_or_with_several_in_the_current_one(tmp_path, monkeypatch):
    a, b = (make_run(tmp_path / name, 1, seed=0) for name in 'ab')
    monkeypatch.chdir(tmp_path)
    assert write_page([a], None) == a / PAGE
    assert write_page([a, b], None) == Path(PAGE)
    assert (tmp_path / PAGE).is_file()


@pytest.mark.parametrize('content', ['', 'epoch\n', 'nothing\n1\n', '\0\xff', 'epoch,train_loss\n1e999,2\nnan,3\n,\n'])
def test_a_damaged_table_leaves_a_page(tmp_path, content):
    run = make_run(tmp_path / 'run', 1, seed=0)
    (run / 'summary.csv').write_bytes(content.encode('latin-1'))
    html = render_page([run])
    assert 'No epoch is done yet.' in html
    damaged = 'left out' in visible(html) or 'cannot be read' in visible(html)
    assert damaged == (content not in ('', 'epoch\n'))


def test_rows_that_are_not_whole_are_left_out_and_counted(tmp_path):
    run = make_run(tmp_path / 'run', 3, seed=0)
    with open(run / 'summary.csv', 'a') as file:
        file.write('3,0.')
    assert 'summary.csv: 1 of 4 rows are not whole and left out' in render_page([run])
    assert list(read_shown_run(run).points('eval_top1')) == [0, 1, 2]


def test_a_folder_without_a_run_is_said_in_one_line(tmp_path):
    with pytest.raises(UsageError, match='nope does not exist'):
        render_page([tmp_path / 'nope'])
    with pytest.raises(UsageError, match=r'holds no run: there is no args\.yaml in it or below'):
        render_page([tmp_path])


def test_without_bokeh_its_install_line_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'bokeh', None)
    with pytest.raises(UsageError, match=r"^the page needs bokeh: pip install '\.\[page\]'$"):
        render_page([tmp_path])


def test_a_watched_page_is_not_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        call_main(main, 'html', tmp_path, '--watch', '--output', tmp_path / 'page.html')
    assert '--watch serves the page and writes none; leave out --output' in capsys.readouterr().err


def test_the_watched_page_is_this_machines_alone_and_its_stamp_changes_with_the_run(tmp_path):
    run = make_run(tmp_path / 'run', 1, seed=0)
    with open_server([run], 0) as server:
        assert server.server_address[0] == '127.0.0.1'
        Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        with urllib.request.urlopen(f'{address}/') as answer:
            stamp = data_of(answer.read().decode())['stamp']
        with urllib.request.urlopen(f'{address}/stamp') as answer:
            assert answer.read().decode() == stamp == stamp_of([run])
        write_rows(run, [row(epoch, {'seed': 0, 'repaint': False}) for epoch in range(2)])
        assert stamp_of([run]) != stamp
        for path, host in (('/args.yaml', '127.0.0.1'), ('/../args.yaml', '127.0.0.1'), ('/', 'evil.example')):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(f'{address}{path}', headers={'Host': host}))
        with pytest.raises(UsageError, match='give another --port'):
            open_server([run], server.server_port)
        server.shutdown()
