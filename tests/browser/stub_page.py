"""A page with one widget and a model that stands in for Jupyter, for fast tests in a browser."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.sync_api import Page
from quiet_page import QuietPage

from scalable_nb.widgets.task_table.widget import TaskTable

# A few of the colours that JupyterLab's two themes set.
LIGHT = {
    "--jp-layout-color0": "white",
    "--jp-layout-color1": "white",
    "--jp-layout-color2": "#eeeeee",
    "--jp-border-color2": "#e0e0e0",
    "--jp-content-font-color1": "rgba(0, 0, 0, 0.87)",
    "--jp-content-font-color2": "rgba(0, 0, 0, 0.54)",
    "--jp-brand-color1": "#1976d2",
}
DARK = {
    "--jp-layout-color0": "#111111",
    "--jp-layout-color1": "#212121",
    "--jp-layout-color2": "#424242",
    "--jp-border-color2": "#616161",
    "--jp-content-font-color1": "rgba(255, 255, 255, 1)",
    "--jp-content-font-color2": "rgba(255, 255, 255, 0.7)",
    "--jp-brand-color1": "#2196f3",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stub</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/task_table.css">
<style>body { margin: 16px; background: var(--jp-layout-color0) }</style></head>
<body><div id="output"></div>
<script type="module">
import define from "/task_table.js";

// Memory that begins where no typed array may, as a websocket message's can.
const bytesOf = (text) => {
  const raw = atob(text);
  const view = new DataView(new ArrayBuffer(raw.length + 3), 3, raw.length);
  for (let i = 0; i < raw.length; i++) view.setUint8(i, raw.charCodeAt(i));
  return view;
};

class StubModel {
  traits = { title: "", status: "live", problem: "", has_controls: true,
    actions: ["retry_now", "give_up", "cancel", "resubmit", "reproduce"],
    form: "table", pauses: [],
    snapshot: bytesOf("") };
  callbacks = new Map();
  sent = [];
  get(name) { return this.traits[name]; }
  on(name, callback) {
    if (!this.callbacks.has(name)) this.callbacks.set(name, new Set());
    this.callbacks.get(name).add(callback);
  }
  off(name, callback) { this.callbacks.get(name)?.delete(callback); }
  tell(name, ...values) {
    for (const callback of this.callbacks.get(name) ?? []) callback(...values);
  }
  send(content) { this.sent.push(content); }
  set(name, value) { this.traits[name] = value; this.tell(`change:${name}`); }
  listeners() { return [...this.callbacks.values()].reduce((sum, set) => sum + set.size, 0); }
}

const model = new StubModel();
let widget, end, leave;
const draw = () => widget.render({ model, el: document.getElementById("output") });
window.stub = {
  model,
  open(traits, snapshot) {
    Object.assign(model.traits, traits, { snapshot: bytesOf(snapshot) });
    widget = define();
    end = widget.initialize({ model });
    leave = draw();
  },
  draw_again() { leave(); leave = draw(); },
  close() { leave(); end(); },
  snapshot(text) { model.set("snapshot", bytesOf(text)); },
  delta(text) { model.tell("msg:custom", { type: "delta" }, [bytesOf(text)]); },
  kept: "",
  message(content) { model.tell("msg:custom", content, []); },
};
</script></body></html>
"""


class StubPage(QuietPage):
    """The page under test and the kernel's side of its model.

    Parameters
    ----------
    page : Page
    address : str
        Of the server that has the page.
    """

    def __init__(self, page: Page, address: str) -> None:
        super().__init__(page)
        page.goto(address)
        page.wait_for_function("window.stub !== undefined")

    def open(self, snapshot: bytes, **traits: Any) -> None:
        """Show the widget with this state."""
        self.page.evaluate("([t, s]) => stub.open(t, s)", [traits, _text(snapshot)])

    def keep(self, snapshot: bytes) -> None:
        """Have a snapshot in the page, so that opening it does not include its way there."""
        self.page.evaluate("text => { stub.kept = text }", _text(snapshot))

    def send_delta(self, data: bytes) -> None:
        """Push a frame, as the kernel does."""
        self.page.evaluate("text => stub.delta(text)", _text(data))

    def send_snapshot(self, data: bytes) -> None:
        """Set the snapshot, as the kernel does."""
        self.page.evaluate("text => stub.snapshot(text)", _text(data))

    def send(self, **content: Any) -> None:
        """Send a message without buffers."""
        self.page.evaluate("content => stub.message(content)", content)

    def set(self, name: str, value: Any) -> None:
        """Set a trait."""
        self.page.evaluate("([name, value]) => stub.model.set(name, value)", [name, value])

    @property
    def sent(self) -> list[dict[str, Any]]:
        """What the page sent to the kernel, apart from saying that somebody looks."""
        sent: list[dict[str, Any]] = self.page.evaluate(
            "stub.model.sent.filter(({ type }) => !type.endsWith('watch'))"
        )
        return sent

    def wait_until_sent(self, messages: int) -> None:
        """Return when the page has sent so many messages, see `sent`."""
        self.page.wait_for_function(
            "count => stub.model.sent.filter(({ type }) => !type.endsWith('watch')).length"
            " === count",
            arg=messages,
        )

    @cached_property
    def table(self) -> Any:
        """The widget."""
        return self.page.locator(".scalable-table")

    def dress(self, *, is_dark: bool) -> None:
        """Set the page's theme as JupyterLab does."""
        self.page.evaluate(
            """([colours, isDark]) => {
                for (const [name, value] of Object.entries(colours))
                    document.documentElement.style.setProperty(name, value);
                document.body.dataset.jpThemeLight = String(!isDark);
            }""",
            [DARK if is_dark else LIGHT, is_dark],
        )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def server() -> Iterator[str]:
    """The page, the script and the style sheet, on a free port of this machine."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        files = {
            "/": (_PAGE, "text/html"),
            "/task_table.js": (TaskTable._esm, "text/javascript"),
            "/task_table.css": (TaskTable._css, "text/css"),
        }
        if self.path in files:
            self._answer(*files[self.path])
        else:
            self.send_error(404)

    def _answer(self, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output quiet."""
