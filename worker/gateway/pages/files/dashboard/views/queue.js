// What waits, and stopping or starting delivery.

import { get, post } from "../../kit/api.js";
import { confirm } from "../../kit/dialog.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, ahead, clipped, count, duration } from "../../kit/format.js";
import { done, failed } from "../../kit/notice.js";
import { badge, emptyState, figure, table } from "../../kit/table.js";
import { pausedBanner } from "../banners.js";
import { depthPlot } from "../depth_plot.js";
import { History } from "../history.js";
import { taskHref } from "../running_table.js";

const REREAD_MS = 1000;
const MOST = 50;
const PRIORITIES = ["high", "normal", "low"];

export const queue = {
  title: "Queue",
  mount(fleet) {
    return new Queue(fleet);
  },
};

class Queue {
  constructor(fleet) {
    this.fleet = fleet;
    this.waiting = null;
    this.readAt = 0;
    this.seen = "";
    this.banner = h("div");
    this.control = h("div", { class: "tools" });
    this.figures = h("div");
    this.slot = h("div");
    this.depth = depthPlot("Queue depth, last 15 min");
    this.element = h(
      "div",
      {},
      this.banner,
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, "Delivery"), this.control)),
      this.figures,
      h("div", { class: "plots" }, this.depth.element),
      h(
        "section",
        { class: "panel" },
        h(
          "div",
          { class: "panel-head" },
          h("h2", {}, "Waiting tasks"),
          h("span", { class: "hint" }, `the first ${MOST}`),
        ),
        this.slot,
      ),
    );
    actions(this.element, { pause: () => this.#pause(), resume: () => this.#resume() });
    this.history = new History("15m");
    fleet.ready
      .then(async (about) => {
        this.depth.element.hidden = Boolean(about.tenant); // its callers see no history of the fleet
        if (about.tenant) return;
        await this.history.load();
        this.#plot();
      })
      .catch(failed);
  }

  update(changed) {
    const { fleet } = this;
    const stats = fleet.queue;
    patch(this.banner, [pausedBanner(fleet, { hasButton: true })]);
    if (!stats) return patch(this.slot, [emptyState("Waiting for the first figures.")]);
    patch(this.control, [
      badge(stats.paused ? "paused" : "delivering", stats.paused ? "warn" : "good"),
      fleet.mayChangeFleet ? this.#button(stats.paused) : null,
    ]);
    patch(this.figures, [
      h(
        "div",
        { class: "figures" },
        figure("Ready", count(stats.ready), { hint: false }),
        PRIORITIES.map((name) => figure(`Ready, ${name}`, count(stats.ready_by_priority[name] ?? 0), { hint: false })),
        figure("Oldest waits for", stats.oldest_ready_age_s == null ? "–" : duration(stats.oldest_ready_age_s), {
          hint: false,
        }),
        figure("Delayed", count(stats.delayed), { hint: false }),
        figure("Running", count(stats.running), { href: "#/tasks", hint: false }),
      ),
    ]);
    if (changed.has("sample")) this.#follow();
    const key = `${stats.ready}/${stats.delayed}`;
    if (key !== this.seen || Date.now() - this.readAt > 15 * REREAD_MS) this.#read(key);
    this.#draw();
  }

  close() {}

  #follow() {
    this.history.follow(this.fleet.part("sample"), () => this.#plot());
  }

  #button(isPaused) {
    return isPaused
      ? h("button", { class: "button primary", "data-action": "resume", "data-key": "resume" }, "Resume delivery")
      : h("button", { class: "button", "data-action": "pause", "data-key": "pause" }, "Pause delivery");
  }

  #plot() {
    this.depth.show(this.history.columns("ready", "running", "delayed"));
  }

  async #read(key) {
    if (Date.now() - this.readAt < REREAD_MS) return;
    this.readAt = Date.now();
    this.seen = key;
    try {
      this.waiting = (await get(`/v1/tasks?state=ready,delayed&limit=${MOST}`)).tasks;
      this.#draw();
    } catch (error) {
      patch(this.slot, [h("p", { class: "problem" }, error.message)]);
    }
  }

  #draw() {
    if (!this.waiting) return;
    patch(this.slot, [
      table({
        label: "Waiting tasks",
        columns: [
          { name: "Task", mono: true },
          { name: "Prompt", wide: true },
          { name: "State" },
          { name: "Priority" },
          { name: "Agent" },
          { name: "Tenant" },
          { name: "When", number: true },
        ],
        empty: "Nothing waits.",
        rows: this.waiting.map((task) => ({
          key: task.id,
          cells: [
            h("a", { href: taskHref(task.id) }, task.id),
            clipped(task.prompt ?? ""),
            badge(task.state, task.state === "delayed" ? "warn" : ""),
            task.priority ?? "normal",
            task.agent || h("span", { class: "muted" }, "default"),
            task.tenant || "–",
            task.due_at
              ? ahead(task.due_at, this.fleet.now)
              : task.enqueued_at
                ? ago(Date.parse(task.enqueued_at) / 1000, this.fleet.now)
                : "–",
          ],
        })),
      }),
    ]);
  }

  async #pause() {
    if (
      await confirm({
        title: "Pause delivery?",
        text: "No worker is given a waiting task until you resume. Running tasks go on, and new ones are accepted.",
        action: "Pause delivery",
      })
    ) {
      await this.#change("pause", "Delivery is paused.");
    }
  }

  #resume() {
    return this.#change("resume", "Tasks are delivered again.");
  }

  async #change(verb, said) {
    try {
      this.fleet.take("queue", await post(`/v1/ops/queue/${verb}`));
      done(said);
    } catch (error) {
      failed(error);
    }
  }
}
