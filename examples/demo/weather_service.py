"""A small HTTP service, as a webhook tool calls it: POST {"city": "..."} and get that city's temperatures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEMPERATURES_C = {"Lisbon": [19.5, 21.0, 22.5], "Oslo": [-3.0, -1.5, 0.5], "Nairobi": [24.0, 25.5, 23.0]}


class Handler(BaseHTTPRequestHandler):
    """Answers with JSON, or with 404 for a city it does not know."""

    def do_POST(self) -> None:
        """One request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        city = str(body.get("city", ""))
        temperatures = TEMPERATURES_C.get(city)
        answer = (
            {"city": city, "temperatures_c": temperatures} if temperatures else {"error": f"no station in {city!r}"}
        )
        data = json.dumps(answer).encode()
        self.send_response(200 if temperatures else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Requests show in the demo as tool calls already."""


@contextmanager
def weather_service() -> Iterator[str]:
    """The service on a free loopback port; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="weather service", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/temperatures"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
