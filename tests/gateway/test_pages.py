"""The pages' files over HTTP: types, policy, tags, and that they are what they claim to be."""

from __future__ import annotations

import re

import pytest

from tests.gateway.gateway_harness import GatewayServer
from worker.gateway.pages.page_files import page_files

PAGES = {"/": "start.html", "/dashboard": "dashboard.html"}


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_open_to_everybody(gateway_server: GatewayServer, path: str) -> None:
    """No key is asked for: a page holds nothing of the fleet."""
    async with gateway_server.client("") as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == page_files()[PAGES[path]].content


async def test_a_page_may_load_nothing_but_its_own(gateway_server: GatewayServer) -> None:
    """The policy allows no inline script or style, no other host, no frame around it."""
    async with gateway_server.client("") as client:
        policy = (await client.get("/dashboard")).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy


async def test_a_file_that_the_browser_has_is_not_sent_again(gateway_server: GatewayServer) -> None:
    """It asks with the tag it was given; another tag gets the file."""
    async with gateway_server.client("") as client:
        first = await client.get("/pages/style.css")
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        tag = first.headers["etag"]
        again = await client.get("/pages/style.css", headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        changed = await client.get("/pages/style.css", headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200


@pytest.mark.parametrize("path", ["nothing.js", "../app.py", "..%2fapp.py", "kit", "kit/", "kit/../dashboard.html%00"])
async def test_nothing_else_is_served(gateway_server: GatewayServer, path: str) -> None:
    """Only the files of the pages have an address."""
    async with gateway_server.client("") as client:
        answer = await client.get(f"/pages/{path}")
    assert answer.status_code == 404


def test_no_file_needs_what_the_policy_forbids() -> None:
    """No inline script, style or handler, no foreign address, and nothing that parses HTML."""
    for name, file in page_files().items():
        text = file.content.decode()
        if name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", text), name
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
            ), name
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, (name, addresses)


def test_every_module_that_is_imported_is_there() -> None:
    """A wrong path would only show in a browser."""
    files = page_files()
    for name, file in files.items():
        if not name.endswith(".js"):
            continue
        folder = name.split("/")[:-1]
        for target in re.findall(r'(?:from|import)\s*\(?\s*"(\.[^"]+)"', file.content.decode()):
            parts = list(folder)
            for step in target.split("/"):
                if step == "..":
                    parts.pop()
                elif step != ".":
                    parts.append(step)
            assert "/".join(parts) in files, f"{name} imports {target}"
