"""A grid of terminal cells: boxes, lines that join and cross, texts, colours."""

from __future__ import annotations

from typing import Final

from worker.teams.graph.wording import cells, clipped_cells

UP: Final = 1
DOWN: Final = 2
LEFT: Final = 4
RIGHT: Final = 8

_JOINTS: Final = {
    UP: "│",
    DOWN: "│",
    UP | DOWN: "│",
    LEFT: "─",
    RIGHT: "─",
    LEFT | RIGHT: "─",
    DOWN | RIGHT: "╭",
    DOWN | LEFT: "╮",
    UP | RIGHT: "╰",
    UP | LEFT: "╯",
    UP | DOWN | RIGHT: "├",
    UP | DOWN | LEFT: "┤",
    LEFT | RIGHT | DOWN: "┬",
    LEFT | RIGHT | UP: "┴",
    UP | DOWN | LEFT | RIGHT: "┼",
}
_RESET: Final = "\x1b[0m"


class Canvas:
    """Grows as it is drawn on."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows: list[list[str]] = []
        self._styles: list[list[str]] = []
        self._lines: dict[tuple[int, int], dict[int, int]] = {}

    def put(self, x: int, y: int, text: str, style: str = "") -> None:
        """Write a text, which has no control characters; what does not fit is left out."""
        self._grow(y)
        for character in text:
            taken = cells(character)
            if x + max(taken, 1) > self._width:
                return
            if not taken:  # joins the one before
                self._rows[y][max(0, x - 1)] += character
                continue
            self._rows[y][x], self._styles[y][x] = character, style
            if taken == 2:
                self._rows[y][x + 1], self._styles[y][x + 1] = "", style
            x += taken

    def line(self, x: int, y: int, directions: int, net: int) -> None:
        """A piece of a line that leads into these directions. Pieces of one net join, those of others cross."""
        of_cell = self._lines.setdefault((x, y), {})
        of_cell[net] = of_cell.get(net, 0) | directions

    def vertical(self, x: int, top: int, bottom: int, net: int) -> None:
        """Down from the middle of one cell to the middle of another."""
        for y in range(top, bottom + 1):
            self.line(x, y, (UP if y > top else 0) | (DOWN if y < bottom else 0), net)

    def horizontal(self, y: int, left: int, right: int, net: int) -> None:
        """From the middle of one cell to the middle of another."""
        for x in range(left, right + 1):
            self.line(x, y, (LEFT if x > left else 0) | (RIGHT if x < right else 0), net)

    def text(self, *, colour: bool) -> str:
        """All of it; lines end without blanks."""
        for (x, y), nets in self._lines.items():
            self._grow(y)
            upright = [found for found in nets.values() if found & (UP | DOWN)]
            joint = upright[0] if len(nets) > 1 and upright else next(iter(nets.values()))
            if self._rows[y][x] == " ":
                self._rows[y][x], self._styles[y][x] = _JOINTS.get(joint, " "), "2"
        return "\n".join(self._written(y, colour) for y in range(len(self._rows)))

    def _written(self, y: int, colour: bool) -> str:
        row, styles = self._rows[y], self._styles[y]
        last = max((x for x, character in enumerate(row) if character not in (" ", "")), default=-1) + 1
        if not colour:
            return "".join(row[:last])
        parts: list[str] = []
        style = ""
        for character, wanted in zip(row[:last], styles[:last], strict=True):
            if wanted != style:
                parts.append((_RESET if style else "") + (f"\x1b[{wanted}m" if wanted else ""))
                style = wanted
            parts.append(character)
        return "".join(parts) + (_RESET if style else "")

    def _grow(self, y: int) -> None:
        while len(self._rows) <= y:
            self._rows.append([" "] * self._width)
            self._styles.append([""] * self._width)


def box(
    canvas: Canvas, x: int, y: int, width: int, lines: list[tuple[str, str]], *, style: str, is_double: bool
) -> None:
    """A frame with lines in it: texts with their styles."""
    corners = "╔═╗║╚╝" if is_double else "╭─╮│╰╯"
    canvas.put(x, y, corners[0] + corners[1] * (width - 2) + corners[2], style)
    for index, (text, of_text) in enumerate(lines, 1):
        canvas.put(x, y + index, corners[3], style)
        canvas.put(x + 1, y + index, " " * (width - 2))
        canvas.put(x + 2, y + index, clipped_cells(text, width - 4), of_text)
        canvas.put(x + width - 1, y + index, corners[3], style)
    canvas.put(x, y + len(lines) + 1, corners[4] + corners[1] * (width - 2) + corners[5], style)
