// One run: its graph while it runs, each step with its prompt and output, the timeline, what was delegated.

import { post } from "../../kit/api.js";
import { confirm } from "../../kit/dialog.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, clipped, count, duration, usd } from "../../kit/format.js";
import { done, failed } from "../../kit/notice.js";
import { follow } from "../../kit/sse.js";
import { badge, emptyState, facts, table } from "../../kit/table.js";
import { TeamGraph } from "../graph.js";
import { FINAL, PHASE_TONES, runHref, took } from "../phases.js";
import { RunApprovals } from "../run_approvals.js";
import { runTimeline } from "../run_timeline.js";
import { taskHref } from "../running_table.js";
import { StepPanel } from "../step_panel.js";

const TICK_MS = 1000;
const KEYS = { steps: "name", children: "task_id", nodes: "id" };

export const run = {
  title: "Run",
  titleOf: (id) => `Run ${id}`,
  mount(fleet, { id, query }) {
    return new RunPage(fleet, id, query);
  },
};

class RunPage {
  constructor(fleet, id, query) {
    this.fleet = fleet;
    this.id = id;
    this.path = `/v1/runs/${encodeURIComponent(id)}`;
    this.run = null;
    this.frame = null;
    this.parts = { steps: new Map(), children: new Map(), nodes: new Map() };
    this.tail = "";
    this.head = h("div", { class: "run-head" });
    this.buttons = h("div", { class: "tools" });
    this.state = h("span", { class: "hint", role: "status" }, "connecting");
    this.waiting = new RunApprovals(fleet, id);
    this.graph = new TeamGraph({ label: "Graph of the run", onPick: (node) => this.#pick(node) });
    this.panel = new StepPanel(this.path);
    this.timeline = h("div");
    this.children = h("div");
    this.texts = h("div");
    this.slot = h("div", { class: "graph-slot" }, emptyState("Loading…"));
    this.element = h(
      "div",
      {},
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("a", { href: "#/runs" }, "← All runs"), this.buttons),
        h("div", { class: "panel-body" }, this.head),
      ),
      this.waiting.element,
      h(
        "div",
        { class: "run-columns" },
        h(
          "section",
          { class: "panel" },
          h("div", { class: "panel-head" }, h("h2", {}, "Graph"), h("div", { class: "tools" }, this.state, this.graph.controls)),
          this.slot,
        ),
        this.panel.element,
      ),
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, "Timeline")), this.timeline),
      this.children,
      this.texts,
    );
    actions(this.element, { cancel: () => this.#cancel() });
    this.wanted = query.get("step") ?? "";
    this.#follow();
    this.timer = setInterval(() => this.run && !FINAL.has(this.run.phase) && this.#draw(), TICK_MS);
  }

  navigate({ query }) {
    const name = query.get("step") ?? "";
    if (name && name !== this.panel.name) this.#choose(name);
  }

  update(changed) {
    if (!this.run) return;
    this.#drawHead();
    if (changed.has("approvals")) this.#drawWaiting([...this.parts.steps.values()]);
  }

  close() {
    this.stream?.close();
    clearInterval(this.timer);
  }

  // What comes

  #follow() {
    this.stream?.close();
    const query = this.tail ? `?chunks=true&step=${encodeURIComponent(this.tail)}` : "";
    this.stream = follow(`${this.path}/events${query}`, {
      onEvent: ({ event, data }) => this.#take(event, data),
      onState: (state, error) => this.#said(state, error),
    });
  }

  #said(state, error) {
    const texts = { live: "live", connecting: "connecting", reconnecting: "reconnecting", ended: "ended" };
    patch(this.state, [texts[state] ?? "not live"]);
    if (state === "failed" && !this.run) {
      patch(this.slot, []);
      patch(this.head, [h("p", { class: "problem" }, error?.message ?? "The run cannot be read.")]);
    }
  }

  #take(event, data) {
    if (event === "end") return false;
    if (event === "run") this.run = data;
    else if (event === "graph") this.frame = data;
    else if (event === "problem") failed(new Error(data.detail));
    else if (event === "chunk") {
      if (data.step !== this.panel.name || !this.panel.take(data.chunk)) return true;
    } else if (Object.hasOwn(this.parts, event)) {
      for (const one of data) this.parts[event].set(one[KEYS[event]], one);
    }
    this.#soon();
    return true;
  }

  /** At most once a frame, however quickly events come. */
  #soon() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.#draw();
    });
  }

  // What is chosen

  #pick(node) {
    if (!node.step) return;
    const child = node.kind === "child" ? (this.parts.children.get(node.task_id) ?? null) : null;
    this.#choose(node.step, child);
    if (!child) history.replaceState(null, "", `${runHref(this.id)}?step=${encodeURIComponent(node.step)}`);
  }

  #choose(name, child = null) {
    this.panel.choose(name, child);
    this.wanted = name;
    const step = this.parts.steps.get(name);
    // Chunks come for one step alone, and only while it runs.
    const tail = step && !child && !FINAL.has(step.phase) ? name : "";
    if (tail !== this.tail && this.run && !FINAL.has(this.run.phase)) {
      this.tail = tail;
      this.#follow();
    }
    this.#soon();
  }

  // What is shown

  #draw() {
    if (!this.run || !this.frame) return;
    const { now } = this.fleet;
    const steps = [...this.parts.steps.values()];
    if (!this.graph.element.isConnected) patch(this.slot, [this.graph.element]);
    if (!this.panel.name) this.#chooseFirst(steps);
    const nodes = this.frame.nodes.map((id) => this.parts.nodes.get(id)).filter(Boolean);
    this.graph.chosen = this.panel.child ? `task:${this.panel.child.task_id}` : this.#nodeOf(nodes);
    this.graph.show(this.frame, nodes, now);
    if (this.panel.child) this.panel.child = this.parts.children.get(this.panel.child.task_id) ?? this.panel.child;
    this.panel.show(this.parts.steps.get(this.panel.name) ?? null, now);
    patch(this.timeline, [runTimeline(this.run, steps, now)]);
    this.#drawHead();
    this.#drawWaiting(steps);
    this.#drawChildren();
    this.#drawTexts();
  }

  #nodeOf(nodes) {
    return nodes.find((node) => node.step === this.panel.name && node.kind !== "child")?.id ?? "";
  }

  /** What the address names, or what is going on, or the last step that has said something. */
  #chooseFirst(steps) {
    const going = steps.find((step) => ["Running", "Validating", "Waiting", "Failed"].includes(step.phase));
    const named = steps.find((step) => step.name === this.wanted);
    const first = named ?? going ?? steps.findLast((step) => step.phase === "Succeeded") ?? steps[0];
    if (first) this.#choose(first.name);
  }

  #drawHead() {
    const { run: found, fleet } = this;
    const seconds = took(found, fleet.now);
    patch(this.head, [
      found.message && found.phase === "Failed" ? h("p", { class: "problem" }, found.message) : null,
      facts([
        ["State", h("span", {}, badge(found.phase, PHASE_TONES[found.phase]), found.reason ? ` ${found.reason}` : "")],
        ["Team", h("a", { href: `#/runs?team=${encodeURIComponent(found.team)}` }, found.team)],
        found.tenant ? ["Tenant", found.tenant] : null,
        ["Begun", ago(found.created_at, fleet.now)],
        ["Took", seconds === null ? "–" : duration(seconds)],
        ["Tokens", found.tokens ? count(found.tokens) : "–"],
        ["Cost", found.cost_usd == null ? "–" : usd(found.cost_usd)],
        found.trigger ? ["Trigger", found.trigger] : null,
        found.parent ? ["Works for", h("a", { href: runHref(found.parent[0]) }, `${found.parent[0]}, ${found.parent[1]}`)] : null,
        found.is_local ? ["Driven by", "shoal run, on its machine"] : null,
        ...Object.entries(found.labels ?? {}).slice(0, 12),
      ]),
    ]);
    const mayCancel = fleet.may("tasks.write") && !FINAL.has(found.phase);
    patch(this.buttons, [
      mayCancel && !found.cancel_requested
        ? h("button", { class: "button danger", "data-action": "cancel", "data-key": "cancel" }, "Cancel run")
        : null,
      mayCancel && found.cancel_requested ? h("span", { class: "hint" }, "ending…") : null,
    ]);
  }

  #drawWaiting(steps) {
    const asked = steps.filter((step) => step.approval_id).map((step) => `${step.approval_id} ${step.phase}`);
    this.waiting.show([...asked, this.fleet.part("approvals")?.version ?? ""].join("/"));
  }

  #drawChildren() {
    const children = [...this.parts.children.values()];
    if (!children.length) return patch(this.children, []);
    patch(this.children, [
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("h2", {}, "Delegated tasks"), h("span", { class: "hint" }, count(children.length))),
        table({
          label: "Delegated tasks",
          columns: [
            { name: "Role" },
            { name: "State" },
            { name: "Prompt", wide: true },
            { name: "Of step" },
            { name: "Tokens", number: true },
            { name: "Took", number: true },
            { name: "Task", mono: true },
          ],
          rows: children.map((child) => ({
            key: child.task_id,
            cells: [
              child.role || "subtask",
              badge(child.phase, PHASE_TONES[child.phase]),
              clipped(child.error || child.prompt || "", 120),
              child.step,
              child.tokens ? count(child.tokens) : "–",
              child.started_at ? duration(took(child, this.fleet.now)) : "–",
              h("a", { href: taskHref(child.task_id) }, child.task_id),
            ],
          })),
        }),
      ),
    ]);
  }

  #drawTexts() {
    const text = (title, value) =>
      value
        ? h(
            "section",
            { class: "panel", "data-key": title },
            h("div", { class: "panel-head" }, h("h2", {}, title)),
            h("div", { class: "panel-body" }, h("pre", { tabindex: "0", role: "region", "aria-label": title }, value)),
          )
        : null;
    const given = Object.keys(this.run.input ?? {}).length ? JSON.stringify(this.run.input, null, 2) : "";
    patch(this.texts, [h("div", { class: "columns" }, text("Input", given), text("Output", this.run.output))]);
  }

  async #cancel() {
    const isSure = await confirm({
      title: "Cancel this run?",
      text: "Its running tasks, and those that they delegated, are stopped. What they have used stays counted.",
      action: "Cancel run",
      danger: true,
    });
    if (!isSure) return;
    try {
      await post(`${this.path}/cancel`, {});
      done("The run is being ended.");
    } catch (error) {
      failed(error);
    }
  }
}
