"""Files as documents: which are found, and what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from worker.datasources import IngestFailed
from worker.datasources.reading import Skipped, document_of, files, found_under
from worker.datasources.reading.html import html_text
from worker.datasources.reading.patterns import Patterns


def write(folder: Path, **texts: str) -> None:
    """Files with these texts; `a__b` is `a/b`."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    """A folder with files of several kinds."""
    folder = tmp_path / "manual"
    write(
        folder,
        a_dot_md="# A\n\nText.",
        sub__b_dot_txt="b",
        sub__c_dot_py="c = 1",
        drafts__d_dot_md="d",
        _dot_hidden__e_dot_md="e",
        node__f_dot_tmp_dot_md="f",
    )
    return folder


def test_a_folder(manual: Path) -> None:
    """Known kinds are found, under the folder's name; hidden ones and others are not, unless they are asked for."""
    found = found_under([manual])
    assert [file.id for file in found.files] == [
        "manual/a.md",
        "manual/drafts/d.md",
        "manual/node/f.tmp.md",
        "manual/sub/b.txt",
    ]
    assert found.prefixes == ["manual/"]
    found = found_under([manual], exclude=["drafts/", "*.tmp.md"], include=["*.py"], name="v2")
    assert [file.id for file in found.files] == ["v2/a.md", "v2/sub/b.txt", "v2/sub/c.py"]


def test_links_are_not_followed(manual: Path, tmp_path: Path) -> None:
    """Neither out of the folder nor around in circles; but the folder that is named may be a link itself."""
    write(tmp_path, secret_dot_md="secret")
    (manual / "out.md").symlink_to(tmp_path / "secret.md")
    (manual / "loop").symlink_to(manual)
    (tmp_path / "link").symlink_to(manual)
    found = found_under([tmp_path / "link"])
    assert len(found.files) == 4
    assert set(found.skipped.values()) == {"a symbolic link"}
    assert len(found.skipped) == 2
    with pytest.raises(Skipped):  # put in the place of a file after it was found
        document_of(manual / "out.md", "x")


def test_names_that_are_no_text(manual: Path) -> None:
    """A file whose name cannot be written is left out, and named as far as it can be."""
    (manual / os.fsdecode(b"caf\xe9.md")).write_text("x")
    found = found_under([manual])
    assert len(found.files) == 4
    assert found.skipped == {repr(os.fsdecode(b"caf\xe9.md")): "its name is no UTF-8"}


def test_what_is_no_file(manual: Path) -> None:
    """A named pipe is not waited for."""
    os.mkfifo(manual / "pipe.md")
    assert "manual/pipe.md" not in [file.id for file in found_under([manual]).files]
    with pytest.raises(Skipped, match="no regular file"):
        document_of(manual / "pipe.md", "x")


def test_paths_that_cannot_be(manual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named, and nothing is read."""
    with pytest.raises(IngestFailed, match="does not exist"):
        found_under([manual, tmp_path / "nothing"])
    write(tmp_path, other__manual__x_dot_md="x")
    with pytest.raises(IngestFailed, match="two folders are called 'manual'"):
        found_under([manual, tmp_path / "other" / "manual"])
    monkeypatch.setattr("worker.datasources.reading.folders.MOST_FILES", 3)
    with pytest.raises(IngestFailed, match="more than 3 files"):
        found_under([manual])


@pytest.mark.parametrize(
    ("patterns", "path", "is_folder", "fits"),
    [
        (["*.md"], "a/b/c.md", False, True),
        (["*.md"], "a/b/c.mdx", False, False),
        (["build"], "x/build", True, True),
        (["/build"], "x/build", True, False),
        (["build/"], "build", False, False),
        (["docs/*.md"], "docs/a/b.md", False, False),
        (["docs/**/*.md"], "docs/a/b.md", False, True),
        (["docs/**/*.md"], "docs/b.md", False, True),
        (["**/old"], "a/b/old", True, True),
        (["*.md", "!keep.md"], "keep.md", False, False),
        (["file[0-9].txt"], "file7.txt", False, True),
        (["file[!0-9].txt"], "file7.txt", False, False),
        (["a?c"], "a/c", False, False),
        (["a.c"], "abc", False, False),
        (["# comment"], "# comment", False, False),
    ],
)
def test_patterns(patterns: list[str], path: str, is_folder: bool, fits: bool) -> None:
    """As `.gitignore` has them."""
    assert Patterns(patterns).fit(path, is_folder=is_folder) is fits


@pytest.mark.parametrize(
    ("name", "raw", "title", "text"),
    [
        ("a.md", b"---\ntags: x\n---\n# Pumps #\n\nWater.", "Pumps", "# Pumps #\n\nWater."),
        ("a.txt", b"\xef\xbb\xbfone\r\ntwo", "a", "one\ntwo"),
        ("a.txt", "zw\u00f6lf".encode("utf-16"), "a", "zwölf"),
        ("a.csv", b"name,price\nPump,7\nHose,\n", "a", "name: Pump\nprice: 7\n\nname: Hose"),
        ("a.jsonl", b'{"name":"Pump","tags":["x"]}\n\n{"name":"Hose"}\n', "a", 'name: Pump\ntags: ["x"]\n\nname: Hose'),
        ("a.json", b'[{"q":"why"},"plain",5]', "a", "q: why\n\nplain\n\n5"),
        ("a.html", b"<h1>Valves</h1>Shut.", "Valves", "# Valves\n\nShut."),
        ("a.html", b"<title>T</title><body><h2>Pumps</h2><p>Water<br>flows", "T", "## Pumps\n\nWater\nflows"),
        ("a.bin", b"plain all the same", "a", "plain all the same"),
    ],
)
def test_kinds_of_files(tmp_path: Path, name: str, raw: bytes, title: str, text: str) -> None:
    """Each becomes text with a title."""
    path = tmp_path / name
    path.write_bytes(raw)
    document = document_of(path, f"x/{name}")
    assert (document.title, document.text.strip(), document.id) == (title, text, f"x/{name}")
    assert document.metadata == {"path": f"x/{name}"}


@pytest.mark.parametrize(
    ("name", "raw", "why"),
    [
        ("a.json", b'{"a":', "cannot be read as json"),
        ("a.jsonl", b"not json\n", "cannot be read as jsonl"),
        ("a.txt", b"a\0b", "it is no text"),
        ("a.pdf", b"%PDF-1.4 broken", "cannot be read as PDF"),
        ("a.json", b"[" * 100_000, "cannot be read as json"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, raw: bytes, why: str) -> None:
    """They are skipped, with the reason."""
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(Skipped, match=why):
        document_of(path, name)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of it is read than a file may have."""
    monkeypatch.setattr(files, "MOST_BYTES", 1024)
    (tmp_path / "a.txt").write_text("x" * 1025)
    with pytest.raises(Skipped, match="larger than"):
        document_of(tmp_path / "a.txt", "a")


def test_a_pdf(tmp_path: Path) -> None:
    """Its pages' words are read."""
    stream = b"BT /F1 24 Tf 72 700 Td (Pumps move water) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer << /Root 1 0 R /Size 6 >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(body),
    )
    (tmp_path / "pumps.pdf").write_bytes(body + end)
    document = document_of(tmp_path / "pumps.pdf", "pumps.pdf")
    assert document.text.strip() == "Pumps move water"
    assert document.title == "pumps"


def test_html_without_what_nobody_reads() -> None:
    """Scripts, styles and navigation are left out, entities are letters, unclosed tags do no harm."""
    title, text = html_text(
        "<html><head><title>A &amp; B</title><style>p{}</style></head><body><nav>Menu</nav>"
        "<h1>Big</h1><p>One &lt;two&gt;<script>alert(1)</script> three\nfour<ul><li>x<li>y</ul>"
        "<table><tr><th>k<td>v</table><pre>a\n  b</pre></p></div></nav></body>"
    )
    assert title == "A & B"
    assert text == "# Big\n\nOne <two> three four\n\n- x\n- y\n\nk v\n\na\nb"


@pytest.mark.parametrize(
    "part",
    ["<", "<!--", "<![CDATA[", "<div ", '<a x="', "<a x='", "</", "<script>", "<?", "&#", "<nav></svg>", "<a <b '"],
)
def test_a_page_that_was_made_to_be_slow(part: str) -> None:
    """What is never closed, a hundred thousand times over: each is read in one go, and takes no hours."""
    for end in ("", ">", '">', "-->"):
        html_text(part * 100_000 + end)


def test_attributes_and_scripts_are_no_text() -> None:
    """Whatever signs they hold; and what is no tag is text."""
    page = """<!DOCTYPE html><p title="a>b" x='c>d'>1 < 2 &amp; <b>so</b></p><!-- <p>gone</p> -->
    <script>if (a<b) { write("<p>gone</p>") }</script><STYLE>p>b { gone: 1 }</STYLE><br/>after"""
    assert html_text(page) == ("", "1 < 2 & so\n\nafter")


def test_two_files_that_would_be_one_document(tmp_path: Path) -> None:
    """They are refused: the second would take the place of the first. The same file twice is one."""
    for folder in ("a", "b"):
        write(tmp_path, **{f"{folder}/x.md": folder})
    one, other = tmp_path / "a", tmp_path / "b"
    with pytest.raises(IngestFailed, match=r"would both be 'x\.md'"):
        found_under([one / "x.md", other / "x.md"])
    with pytest.raises(IngestFailed, match=r"would both be 'v2/x\.md'"):
        found_under([one, other], name="v2")
    assert len({file.id for file in found_under([one / "x.md", one / "x.md"]).files}) == 1


def test_a_folder_that_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and so is what its documents are called: nobody knows which of them are gone."""
    write(tmp_path, **{"docs/x.md": "x", "docs/locked/y.md": "y"})
    scandir = os.scandir

    def refusing(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = found_under([tmp_path / "docs"])
    assert found.unseen == ["docs/locked/"]
    assert list(found.skipped.values()) == ["Permission denied"]


def test_a_pattern_that_is_none() -> None:
    """It is refused in one line."""
    with pytest.raises(IngestFailed, match=r"\[z-a\]"):
        Patterns(["[z-a]"])


def test_rows_with_more_columns_than_names(tmp_path: Path) -> None:
    """They are kept, under a name."""
    (tmp_path / "x.csv").write_text("a,b\n1,2,3,4\n")
    assert document_of(tmp_path / "x.csv", "x").text == 'a: 1\nb: 2\nfurther columns: ["3","4"]'
