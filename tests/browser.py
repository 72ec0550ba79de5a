"""The system's Chromium, without a window, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome')


@contextmanager
def open_browser() -> Iterator[Any]:
    """playwright's browser; the test is skipped where there is none."""
    api = pytest.importorskip('playwright.sync_api')
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip('no Chromium here')
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()


def open_page(browser: Any, url: str, complaints: list[str], **context: Any) -> Any:
    """A page that is loaded and drawn; what its console complains of, and its errors, go to `complaints`."""
    page = browser.new_page(**context)
    page.on('console', lambda said: said.type in ('warning', 'error') and complaints.append(said.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('requestfailed', lambda request: complaints.append(request.url))
    page.goto(url)
    page.wait_for_selector('body[data-ready]')
    return page
