"""Files that anybody may have made, damaged or hostile: how they are drawn, and what a reader may do with them."""

import contextlib
import copy
import logging
import resource
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from timm_repaint.errors import UsageError
from timm_repaint.report.summary import UnfinishedError

EXTRA_MEMORY = 2**30
SECONDS = 20.0  # of a machine that does other things too
FUZZ = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def bounds():
    """Memory beyond a bound is refused, so what takes it ends with a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY, before[1]))
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def only_told():
    """Whatever is in the file, the reader ends well, or says in one line what is wrong."""
    start = time.monotonic()
    try:
        yield
    except (UsageError, UnfinishedError) as error:
        assert str(error) and 'weights_only' not in str(error)
    except SystemExit as stop:  # of a parser, which has told it
        assert stop.code == 2
    assert time.monotonic() - start < SECONDS


# Changes of files ----------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([10**30, -1, 2**31, 2**63, float('nan'), float('inf'), '', '..', '/', '\x1b[2J', 'a\nb', '\ud800']),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw, content):
    """The bytes of a file with some changed, taken out, repeated, or only its beginning."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([1, 2, 4, 16]))
        how = draw(st.sampled_from(['change', 'take out', 'repeat', 'cut off', 'insert']))
        if how == 'change':
            data[start : start + length] = draw(st.binary(min_size=length, max_size=length))
        elif how == 'take out':
            del data[start : start + length]
        elif how == 'repeat':
            data[start:start] = data[start : start + length] * draw(st.sampled_from([1, 100]))
        elif how == 'insert':
            data[start:start] = draw(st.binary(max_size=length))
        else:
            del data[start:]
    return bytes(data)


@st.composite
def other_value(draw, tree, values=VALUES):
    """A tree of values with another one, or none, at one or two places."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        parent, key = draw(st.sampled_from([*places({'': tree})]))
        if key == '':
            return draw(values)
        if draw(st.integers(0, 4)) == 0:
            del parent[key]
        else:
            parent[key] = draw(values)
    return tree


def places(tree):
    """Each place of a tree: what holds it, and its key."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield tree, key
            yield from places(value)
