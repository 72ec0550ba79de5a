import io

from timm_repaint.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_through_in_order():
    assert list(progress('abc', 'letters', stream=io.StringIO())) == ['a', 'b', 'c']


def counts(stream):
    return [line.split('| ')[-1].split(' ')[0] for line in stream.getvalue().splitlines()]


def test_a_log_file_gets_a_line_every_tenth_of_the_way_however_many_items():
    stream = io.StringIO()
    assert sum(progress(range(5000), 'masks', stream=stream)) == 12497500
    assert counts(stream) == [f'{500 * tenth}/5000' for tenth in range(11)]
    assert '\r' not in stream.getvalue() and stream.getvalue().isascii()
    lines = stream.getvalue().splitlines()
    assert lines[5].startswith('masks:  50%|#####     | 2500/5000 [00:00<00:00, ')  # time so far and left
    assert lines[-1].startswith('masks: 100%|##########| 5000/5000 ')


def test_a_log_file_gets_no_more_lines_than_items():
    stream = io.StringIO()
    list(progress(range(3), 'masks', stream=stream))
    assert counts(stream) == ['0/3', '1/3', '2/3', '3/3']


def test_a_terminal_gets_one_line_that_is_drawn_over_a_few_times():
    stream = Terminal()
    list(progress(range(5000), 'masks', stream=stream))
    text = stream.getvalue()
    assert text.count('\n') == 1 and text.endswith('\n')
    assert 2 <= text.count('\r') <= 201
    frames = text.rstrip('\n').split('\r')[1:]
    widths = [len(frame) for frame in frames]
    assert widths == sorted(widths)  # each covers the one before
    assert '5000/5000' in frames[-1]


def test_no_items_are_done_at_once():
    for stream in (io.StringIO(), Terminal()):
        assert list(progress([], 'masks', stream=stream)) == []
        assert 'masks: 0it ' in stream.getvalue() and stream.getvalue().count('\n') == 1


def test_a_total_stands_in_for_a_length_that_is_not_known():
    stream = io.StringIO()
    assert list(progress(iter('ab'), 'letters', total=2, stream=stream)) == ['a', 'b']
    assert counts(stream)[-1] == '2/2'
