"""The style of a standalone picture: its colours are custom properties, light and dark."""

from __future__ import annotations

from typing import Final

_LIGHT: Final = (
    "--back:#fff;--card:#fff;--line:#b9c2ce;--edge:#6f7c8d;--text:#18212d;--muted:#556071;--soft:#eef0f4;"
    "--accent:#1c5fc7;--accent-soft:#e6effc;--good:#14724a;--bad:#b3261e;--warn:#855400"
)
_DARK: Final = (
    "--back:#0f141a;--card:#1a222c;--line:#3d4a59;--edge:#8494a6;--text:#e3e9f0;--muted:#a3b0c0;--soft:#29333f;"
    "--accent:#82b1ff;--accent-soft:#1c2d47;--good:#63d29b;--bad:#ff8f86;--warn:#e9b95c"
)
_RULES: Final = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Arial,sans-serif;fill:var(--text)}
.back{fill:var(--back)}
.card{fill:var(--card);stroke:var(--line);stroke-width:1.25}
.title{font-size:14px;font-weight:600}
.text,.facts{font-size:12px}
.text{fill:var(--muted)}
.mark{fill:var(--soft)}
.mark-text,.label-text{font-size:11px;fill:var(--muted)}
.label{fill:var(--back);stroke:var(--warn)}
.label-text{fill:var(--warn)}
.edge{fill:none;stroke:var(--edge);stroke-width:1.5}
.tip{fill:var(--edge)}
.delegated,.delegates,.routes{stroke-dasharray:6 4}
.edge.idle{stroke-dasharray:2 4}
.node{--tone:var(--muted)}
.running,.validating{--tone:var(--accent)}
.waiting{--tone:var(--warn)}
.succeeded{--tone:var(--good)}
.failed,.cancelled{--tone:var(--bad)}
.running>.card,.validating>.card,.waiting>.card,.failed>.card{stroke:var(--tone)}
.running>.card:not(.behind){fill:var(--accent-soft)}
.bar{fill:none;stroke:var(--tone);stroke-width:4;stroke-linecap:round}
.icon{fill:none;stroke:var(--tone);stroke-width:2;stroke-linecap:round;stroke-linejoin:round}
.running>.icon{fill:var(--tone)}
.facts{fill:var(--tone)}
.idle>.card,.skipped>.card,.pending>.card{stroke-dasharray:4 3}
.idle>.title,.skipped>.title{fill:var(--muted)}
"""


def style_of(theme: str) -> str:
    """As a style sheet. The page's own sheet can set the same properties."""
    light = f".shoal-graph{{{_LIGHT}}}"
    dark = f".shoal-graph{{{_DARK}}}"
    colours = {
        "light": light,
        "dark": dark,
        "auto": f"{light}@media (prefers-color-scheme:dark){{{dark}}}",
    }[theme]
    return colours + _RULES
