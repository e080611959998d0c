"""The pages that browsers are given: HTML, styles and scripts as they are written, without a build step.

`files/` is served at `/pages/`. What pages share is a small kit; each of its files begins with how to use it:

- `style.css`: colours and sizes as custom properties, for light and dark; frame, controls, tables, dialogs
- `kit/theme.js`: light or dark, before the page is drawn; a classic script in the head
- `kit/dom.js`: elements without parsing HTML; `patch`, which updates in place; clicks by `data-action`
- `kit/api.js`: requests with the API key, which is asked for where the gateway wants one; `ApiError`
- `kit/sse.js`: server-sent events with a key, resumed and with growing waits
- `kit/transcript.js`: a task's chunks as text, reasoning and tool calls; what a turn that starts over had shown goes
- `kit/format.js`: figures, durations and moments for people
- `kit/table.js`: tables that become cards on a phone; figures, badges, bars, empty states
- `kit/plot.js`: lines and stacked bars in SVG, read by pointer and keys, with their values as a table
- `kit/scale.js`, `kit/paths.js`, `kit/value_table.js`: what plots consist of: round steps for axes, lines, their table
- `kit/dialog.js`: questions, and the one for a key
- `kit/notice.js`: what was done, and what went wrong
"""
