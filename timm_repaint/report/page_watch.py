"""The page of runs that still go on, served to this machine alone; an open page loads itself anew."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from timm_repaint.errors import UsageError, as_mistake, one_line
from timm_repaint.options.run_file import ARGS
from timm_repaint.report.page import render_page
from timm_repaint.report.summary import SUMMARY

HOST = '127.0.0.1'
WATCHED = (ARGS, SUMMARY, 'gallery-*.png')


def stamp_of(folders: Sequence[Path]) -> str:
    """Another text whenever a file that the page shows has changed."""
    found = sorted(path for folder in folders for name in WATCHED for path in folder.rglob(name))
    digest = sha256()
    for path in found:
        try:
            digest.update(f'{path} {path.stat().st_mtime_ns}'.encode(errors='replace'))
        except FileNotFoundError:  # moved aside meanwhile
            continue
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers with the page, and with its stamp; nothing else of this machine can be read."""

    def __init__(self, folders: Sequence[Path], *args: object) -> None:
        self.folders = folders
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        host = self.headers.get('Host', '').partition(':')[0]
        if host not in (HOST, 'localhost'):  # a page of somebody else's, under a name that leads here
            self.send_error(403)
        elif self.path == '/stamp':
            self._answer(stamp_of(self.folders), 'text/plain')
        elif self.path == '/':
            try:
                self._answer(render_page(self.folders, stamp_of(self.folders)), 'text/html')
            except UsageError as error:
                self._answer(one_line(str(error)), 'text/plain')
        else:
            self.send_error(404)

    def _answer(self, text: str, kind: str) -> None:
        content = text.encode(errors='replace')
        self.send_response(200)
        self.send_header('Content-Type', f'{kind}; charset=utf-8')
        self.send_header('Content-Length', str(len(content)))
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: each open page asks every few seconds."""


def open_server(folders: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """The server, which `serve_forever` runs.

    Raises:
        UsageError: if the page cannot be made, or the port is taken.
    """
    render_page(folders)  # mistakes are said here, not in the browser
    with as_mistake(f'cannot serve at port {port}', OSError, OverflowError, advice='; give another --port'):
        return ThreadingHTTPServer((HOST, port), partial(Handler, folders))


def watch(folders: Sequence[Path], port: int) -> None:
    """Serve the page until Ctrl-C."""
    with open_server(folders, port) as server:
        print(f'http://{HOST}:{server.server_port}/ (Ctrl-C ends it)', flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
