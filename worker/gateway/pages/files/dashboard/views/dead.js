// Dead letters: look at them, bring them back, delete them.

import { get, post } from "../../kit/api.js";
import { confirm, shown } from "../../kit/dialog.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, clipped, count, exact, plural } from "../../kit/format.js";
import { done, failed } from "../../kit/notice.js";
import { emptyState, facts, table } from "../../kit/table.js";
import { taskHref } from "../running_table.js";

const MOST = 200;
const TYPED_MS = 250;
const REDRAW_MS = 5000;

export const dead = {
  title: "Dead letters",
  mount(fleet, { id }) {
    return new DeadLetters(fleet, id);
  },
};

class DeadLetters {
  constructor(fleet, id) {
    this.fleet = fleet;
    this.letters = null;
    this.chosen = new Set();
    this.dead = null;
    this.drawnAt = 0;
    this.buttons = h("div", { class: "tools" });
    this.note = h("p", { class: "hint panel-body", hidden: true });
    this.slot = h("div");
    this.search = h("input", {
      type: "search",
      class: "grow",
      placeholder: "Filter by error, agent, prompt or id",
      "aria-label": "Filter dead letters",
      input: () => this.#typed(),
    });
    this.element = h(
      "section",
      { class: "panel" },
      h("div", { class: "panel-head" }, h("div", { class: "tools" }, this.search), this.buttons),
      this.note,
      this.slot,
    );
    actions(this.element, {
      inspect: (link) => {
        location.hash = link.getAttribute("href");
      },
      requeue: (button) => this.#requeue([button.dataset.id]),
      "requeue-chosen": () => this.#requeue([...this.chosen]),
      "requeue-all": () => this.#requeueAll(),
      purge: () => this.#purge(),
    });
    this.element.addEventListener("change", (event) => this.#choose(event.target));
    this.#load();
    this.navigate({ id });
  }

  /** An id in the address opens that letter. */
  navigate({ id }) {
    this.wanted = id;
    this.dialog?.close();
    if (id) this.#inspect(id);
  }

  update(changed) {
    const { queue } = this.fleet;
    if (changed.has("queue") && !queue.problem && queue.dead !== this.dead) this.#load();
    // Only how long ago it was has changed, in hundreds of rows.
    if (changed.has("about") || Date.now() - this.drawnAt > REDRAW_MS) this.#draw();
  }

  close() {
    clearTimeout(this.timer);
    this.isClosed = true;
    this.dialog?.close();
  }

  #typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(), TYPED_MS);
  }

  async #load() {
    const text = this.search.value.trim();
    this.dead = this.fleet.queue?.dead ?? -1;
    try {
      const found = await get(`/v1/ops/dead?limit=${MOST}${text ? `&text=${encodeURIComponent(text)}` : ""}`);
      if (text !== this.search.value.trim()) return;
      this.problem = "";
      this.letters = found.letters;
      this.total = found.dead;
      const there = new Set(found.letters.map((letter) => letter.id));
      this.chosen = new Set([...this.chosen].filter((id) => there.has(id)));
      this.#draw();
    } catch (error) {
      this.problem = error.message;
      this.dead = null; // the next figures of the queue ask again
      this.#draw();
    }
  }

  #choose(box) {
    if (box.dataset.choose === undefined) return;
    if (box.dataset.choose === "all") this.chosen = new Set(box.checked ? this.letters.map((letter) => letter.id) : []);
    else if (box.checked) this.chosen.add(box.dataset.choose);
    else this.chosen.delete(box.dataset.choose);
    this.#draw();
  }

  #draw() {
    this.drawnAt = Date.now();
    if (!this.letters && this.problem) return patch(this.slot, [h("p", { class: "problem" }, this.problem)]);
    if (!this.letters) return patch(this.slot, [emptyState("Loading…")]);
    const { fleet, chosen } = this;
    const mayWrite = fleet.may("ops.write");
    const isFiltered = Boolean(this.search.value.trim());
    patch(
      this.buttons,
      !mayWrite || !this.letters.length
        ? []
        : [
            h(
              "label",
              {},
              h("input", { type: "checkbox", "data-choose": "all", checked: chosen.size === this.letters.length }),
              "All shown",
            ),
            h(
              "button",
              { class: "button", "data-action": "requeue-chosen", disabled: !chosen.size },
              chosen.size ? `Requeue ${count(chosen.size)}` : "Requeue",
            ),
            h(
              "button",
              { class: "button danger", "data-action": "purge", disabled: !chosen.size },
              chosen.size ? `Purge ${count(chosen.size)}` : "Purge",
            ),
            fleet.mayChangeFleet && !isFiltered
              ? h("button", { class: "button", "data-action": "requeue-all" }, `Requeue all ${count(this.total)}`)
              : null,
          ],
    );
    const isCut = !isFiltered && this.total > this.letters.length;
    this.note.hidden = !isCut;
    patch(this.note, [isCut ? `The newest ${count(this.letters.length)} of ${count(this.total)} are shown.` : ""]);
    patch(this.slot, [
      table({
        label: "Dead letters",
        columns: [
          ...(mayWrite ? [{ name: "", title: "Chosen" }] : []),
          { name: "Task", mono: true },
          { name: "Error", wide: true },
          { name: "Prompt", wide: true },
          { name: "Agent" },
          { name: "Tenant" },
          { name: "Attempts", number: true },
          { name: "Died", number: true },
          ...(mayWrite ? [{ name: "", number: true }] : []),
        ],
        empty: isFiltered ? "No dead letter fits." : "No dead letters: nothing was given up.",
        next: isFiltered
          ? "The newest 1 000 are searched."
          : "Tasks that fail for good, and entries that cannot be read, appear here.",
        rows: this.letters.map((letter) => ({ key: letter.id, cells: this.#cells(letter, mayWrite) })),
      }),
    ]);
  }

  #cells(letter, mayWrite) {
    const name = letter.task_id || letter.id;
    return [
      ...(mayWrite
        ? [
            h("input", {
              type: "checkbox",
              "data-choose": letter.id,
              checked: this.chosen.has(letter.id),
              "aria-label": `Choose ${name}`,
            }),
          ]
        : []),
      h("a", { href: `#/dead/${encodeURIComponent(letter.id)}`, "data-action": "inspect", title: "Inspect" }, name),
      h("span", { class: "bad" }, clipped(letter.error, 160)),
      clipped(letter.prompt, 90),
      letter.agent || h("span", { class: "muted" }, "default"),
      letter.tenant || "–",
      count(letter.attempt),
      ago(letter.dead_at, this.fleet.now),
      ...(mayWrite
        ? [
            h(
              "span",
              { class: "row-actions" },
              h(
                "button",
                {
                  class: "button small",
                  "data-action": "requeue",
                  "data-id": letter.id,
                  "aria-label": `Requeue ${name}`,
                },
                "Requeue",
              ),
            ),
          ]
        : []),
    ];
  }

  async #inspect(id) {
    let letter;
    try {
      letter = await get(`/v1/ops/dead/${encodeURIComponent(id)}`);
    } catch (error) {
      if (this.isClosed || this.wanted !== id) return;
      failed(error);
      location.replace("#/dead");
      return;
    }
    if (this.isClosed || this.wanted !== id) return;
    this.dialog = letterDialog(letter, this.fleet);
    const answer = await shown(this.dialog);
    this.dialog = null;
    if (location.hash.startsWith("#/dead/")) location.hash = "#/dead";
    if (answer === "requeue") this.#requeue([letter.id]);
  }

  async #requeue(ids) {
    await this.#change(async () => {
      const { requeued, missing } = await post("/v1/ops/dead/requeue", { ids });
      ids.forEach((id) => this.chosen.delete(id));
      if (missing)
        failed(
          `${plural(requeued, "letter")} requeued; ${plural(missing, "other")} of the chosen ones: not there any more, or not kept whole.`,
        );
      else done(`${plural(requeued, "letter")} requeued.`);
    });
  }

  async #requeueAll() {
    if (
      !(await confirm({
        title: "Requeue all dead letters?",
        text: `${plural(this.total, "task")} will run again, with the same ids. What made them fail should be mended first.`,
        action: "Requeue all",
      }))
    )
      return;
    await this.#change(async () =>
      done(`${plural((await post("/v1/ops/dead/requeue", { all: true })).requeued, "letter")} requeued.`),
    );
  }

  async #purge() {
    const ids = [...this.chosen];
    if (
      !(await confirm({
        title: `Delete ${plural(ids.length, "dead letter")}?`,
        text: "They are gone for good: nothing brings them back.",
        action: "Delete",
        danger: true,
      }))
    )
      return;
    await this.#change(async () => {
      const { purged } = await post("/v1/ops/dead/purge", { ids });
      this.chosen.clear();
      done(`${plural(purged, "letter")} deleted.`);
    });
  }

  async #change(act) {
    try {
      await act();
    } catch (error) {
      failed(error);
    }
    await this.#load();
  }
}

function letterDialog(letter, fleet) {
  const fields = Object.entries(letter.fields).filter(([name]) => name !== "prompt");
  return h(
    "dialog",
    { class: "dialog wide", "aria-labelledby": "letter-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "letter-title" }, "Dead letter ", h("span", { class: "mono" }, letter.id)),
      h("p", { class: "problem" }, letter.error),
      facts([
        ["Task", h("a", { href: taskHref(letter.task_id) }, letter.task_id)],
        ["Agent", letter.agent || "default"],
        ["Tenant", letter.tenant || "–"],
        ["Attempts", count(letter.attempt)],
        ["Died", exact(letter.dead_at)],
      ]),
      h("h3", {}, "Prompt"),
      h("pre", { tabindex: "0", "aria-label": "Prompt" }, letter.prompt || "(none)"),
      fields.length
        ? [
            h("h3", {}, "Fields"),
            h(
              "pre",
              { tabindex: "0", "aria-label": "Fields" },
              fields.map(([name, value]) => `${name}: ${value}`).join("\n"),
            ),
          ]
        : null,
      h(
        "div",
        { class: "dialog-buttons" },
        h("button", { class: "button", value: "close", autofocus: true }, "Close"),
        fleet.may("ops.write") ? h("button", { class: "button primary", value: "requeue" }, "Requeue") : null,
      ),
    ),
  );
}
