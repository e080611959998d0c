// Running tasks, live; and those that ended, on request.

import { get } from "../../kit/api.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, clipped, count, usd } from "../../kit/format.js";
import { failed } from "../../kit/notice.js";
import { badge, emptyState, table } from "../../kit/table.js";
import { choice } from "../choice.js";
import { runningTable, taskHref } from "../running_table.js";
import { STATE_TONES } from "../task_states.js";

const STATES = { running: "Running", succeeded: "Succeeded", failed: "Failed", cancelled: "Cancelled" };
const PAGE = 50;
const REDRAW_MS = 5000;

export const tasks = {
  title: "Tasks",
  mount(fleet, { query }) {
    return new Tasks(fleet, query);
  },
};

class Tasks {
  constructor(fleet, query) {
    this.fleet = fleet;
    this.text = "";
    this.choice = h("div");
    this.note = h("span", { class: "hint" });
    this.slot = h("div");
    this.more = h("div");
    this.search = h("input", {
      type: "search",
      class: "grow",
      placeholder: "Filter, or open a task by its id",
      "aria-label": "Filter, or open a task by its id",
      input: () => this.#filter(),
      keydown: (event) => event.key === "Enter" && this.#open(),
    });
    this.element = h(
      "section",
      { class: "panel" },
      h("div", { class: "panel-head" }, h("div", { class: "tools" }, this.choice, this.search), this.note),
      this.slot,
      this.more,
    );
    actions(this.element, { more: () => this.#load(this.cursor), reload: () => this.#load("") });
    this.navigate({ query });
  }

  navigate({ query }) {
    const state = query.get("state");
    this.state = Object.hasOwn(STATES, state ?? "") ? state : "running";
    this.ended = null;
    this.problem = "";
    this.cursor = "";
    this.drawnAt = 0;
    patch(this.choice, [choice("State", STATES, this.state, (value) => `#/tasks?state=${value}`)]);
    if (this.state !== "running") this.#load("");
    this.update();
  }

  update(changed) {
    // A list that could not be read is read when the gateway or its queue has come back.
    if (this.problem && this.isWaiting && changed?.has("queue") && !this.fleet.queue.problem) this.#load("");
    if (this.state === "running") {
      if (!changed || ["running", "queue", "about"].some((part) => changed.has(part))) this.#drawRunning();
    } else if (!changed || Date.now() - this.drawnAt > REDRAW_MS) this.#drawEnded();
  }

  close() {}

  #filter() {
    this.text = this.search.value.trim().toLowerCase();
    this.update();
  }

  #open() {
    const id = this.search.value.trim();
    if (/^\S+$/.test(id) && !this.slot.querySelector("tbody tr")) location.hash = taskHref(id);
    else this.slot.querySelector("tbody a")?.focus();
  }

  #fits(task) {
    return (
      !this.text ||
      [task.id, task.agent, task.tenant, task.worker, task.prompt, task.result?.error, task.result?.output].some(
        (part) => part?.toLowerCase().includes(this.text),
      )
    );
  }

  #drawRunning() {
    const running = this.fleet.part("running");
    patch(this.more, []);
    if (!running) return patch(this.slot, [emptyState("Waiting for the first figures.")]);
    const total = this.fleet.queue?.running ?? running.tasks.length;
    const shown = running.tasks.filter((task) => this.#fits(task));
    patch(this.note, [
      total > running.tasks.length && !this.fleet.about?.tenant
        ? `${count(running.tasks.length)} of ${count(total)} are shown`
        : `${count(shown.length)} running`,
    ]);
    patch(this.slot, [
      this.text && !shown.length
        ? emptyState("No running task fits.", "Press Enter to open the task with this id.")
        : runningTable(shown, this.fleet.now),
    ]);
  }

  async #load(cursor) {
    const { state } = this;
    this.problem = "";
    try {
      const page = await get(
        `/v1/tasks?state=${state}&limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`,
      );
      if (state !== this.state) return;
      this.ended = [...(cursor ? (this.ended ?? []) : []), ...page.tasks];
      this.cursor = page.next_cursor ?? "";
      this.#drawEnded();
    } catch (error) {
      if (state !== this.state) return;
      if (this.ended) return failed(error);
      this.problem = error.message;
      this.isWaiting = error.status === 0 || error.status >= 500;
      this.#drawEnded();
    }
  }

  #drawEnded() {
    this.drawnAt = Date.now();
    if (!this.ended && this.problem) return patch(this.slot, [h("p", { class: "problem" }, this.problem)]);
    if (!this.ended) return patch(this.slot, [emptyState("Loading…")]);
    const shown = this.ended.filter((task) => this.#fits(task));
    // Queues forget an ended task's fields: then it is not known whose it was.
    const hasNames = shown.some((task) => task.agent || task.tenant);
    patch(this.note, [h("button", { class: "button small", "data-action": "reload" }, "Refresh")]);
    patch(this.slot, [
      table({
        label: `${STATES[this.state]} tasks`,
        columns: [
          { name: "Task", mono: true },
          { name: "State" },
          { name: this.state === "succeeded" ? "Output" : "Error", wide: true },
          ...(hasNames ? [{ name: "Agent" }, { name: "Tenant" }] : []),
          { name: "Tokens", number: true },
          { name: "Cost", number: true },
          { name: "Ended", number: true },
        ],
        empty: this.text
          ? "No task here fits."
          : `No task ${this.state === "failed" ? "has failed" : this.state === "cancelled" ? "was cancelled" : "has succeeded"} within the time that results are kept.`,
        rows: shown.map((task) => ({ key: task.id, cells: this.#cells(task, hasNames) })),
      }),
    ]);
    patch(
      this.more,
      this.cursor
        ? [h("div", { class: "empty" }, h("button", { class: "button", "data-action": "more" }, "Show more"))]
        : [],
    );
  }

  #cells(task, hasNames) {
    const result = task.result ?? {};
    const usage = result.usage ?? {};
    return [
      h("a", { href: taskHref(task.id) }, task.id),
      badge(task.state, STATE_TONES[task.state]),
      clipped((task.state === "succeeded" ? result.output : result.error) ?? "", 140),
      ...(hasNames ? [task.agent || "–", task.tenant || "–"] : []),
      count((usage.input_tokens ?? 0) + (usage.output_tokens ?? 0)),
      usd(result.cost_usd),
      ago(result.finished_at, this.fleet.now),
    ];
  }
}
