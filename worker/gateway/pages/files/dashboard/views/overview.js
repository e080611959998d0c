// The fleet at a glance.

import { get } from "../../kit/api.js";
import { h, patch } from "../../kit/dom.js";
import { count, duration, knownCost, short, usd } from "../../kit/format.js";
import { failed } from "../../kit/notice.js";
import { Plot } from "../../kit/plot.js";
import { emptyState, figure } from "../../kit/table.js";
import { choice } from "../choice.js";
import { depthPlot } from "../depth_plot.js";
import { History, SPANS } from "../history.js";
import { pausedBanner } from "../banners.js";
import { runningTable } from "../running_table.js";
import { workersTable } from "../workers_table.js";

const SOME = 8;

export const overview = {
  title: "Overview",
  mount(fleet, { query }) {
    return new Overview(fleet, query);
  },
};

class Overview {
  constructor(fleet, query) {
    this.fleet = fleet;
    this.records = -1;
    this.banner = h("div");
    this.figures = h("div");
    this.tools = h("div", { class: "tools" });
    this.running = h("div");
    this.workers = h("div");
    this.depth = depthPlot("Queue depth");
    this.age = new Plot({
      title: "Age of the oldest waiting task",
      format: duration,
      series: [{ name: "age", tone: 3 }],
      empty: "Nothing has waited in this time.",
    });
    this.rate = new Plot({
      title: "Throughput, tasks per minute",
      format: short,
      series: [{ name: "tasks/min", tone: 2 }],
    });
    this.cost = new Plot({
      title: "Cost per hour, last 24 h",
      kind: "bars",
      format: usd,
      series: [{ name: "cost", tone: 4 }],
      empty: "Nothing was spent in the last 24 hours, as far as prices are known.",
    });
    this.element = h(
      "div",
      {},
      this.banner,
      this.figures,
      h("div", { class: "panel-head overview-head" }, h("h2", {}, "The recent past"), this.tools),
      h("div", { class: "plots" }, this.depth.element, this.age.element, this.rate.element, this.cost.element),
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("h2", {}, "Running now"), h("a", { href: "#/tasks" }, "All tasks")),
        this.running,
      ),
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("h2", {}, "Workers"), h("a", { href: "#/workers" }, "All workers")),
        this.workers,
      ),
    );
    this.navigate({ query });
  }

  navigate({ query }) {
    this.history = new History(query.get("span"));
    const { history } = this;
    patch(this.tools, [choice("Span", SPANS, history.span, (span) => `#/overview?span=${span}`)]);
    this.fleet.ready
      .then(async (about) => {
        const isBound = Boolean(about.tenant); // its callers see no history of the fleet
        for (const part of [this.tools, this.depth.element, this.age.element, this.rate.element]) part.hidden = isBound;
        if (isBound) return;
        await history.load();
        if (history === this.history) this.#plot();
      })
      .catch(failed);
  }

  update(changed) {
    const { fleet } = this;
    patch(this.banner, [pausedBanner(fleet)]);
    patch(this.figures, [this.#figures()]);
    if (changed.has("running") || changed.has("queue")) {
      const tasks = fleet.part("running")?.tasks ?? [];
      patch(this.running, [
        fleet.part("running")
          ? runningTable(tasks.slice(0, SOME), fleet.now)
          : emptyState("Waiting for the first figures."),
      ]);
    }
    if (changed.has("workers"))
      patch(this.workers, [workersTable(fleet.part("workers").slice(0, SOME), fleet, { isShort: true })]);
    if (changed.has("sample")) this.#follow();
    if (changed.has("usage") && fleet.part("usage").records !== this.records)
      this.#loadCost(fleet.part("usage").records);
  }

  close() {}

  #follow() {
    const { history } = this;
    history.follow(this.fleet.part("sample"), () => history === this.history && this.#plot());
  }

  #figures() {
    const { fleet } = this;
    const { queue } = fleet;
    const workers = fleet.part("workers");
    if (!queue || !workers) return emptyState("Waiting for the first figures.");
    const rates = fleet.part("rates") ?? {};
    const slots = workers.reduce((sum, worker) => sum + worker.slots, 0);
    const today = rates.today;
    return h(
      "div",
      { class: "figures" },
      figure("Ready", count(queue.ready), {
        href: "#/queue",
        hint: queue.oldest_ready_age_s != null ? `oldest ${duration(queue.oldest_ready_age_s)}` : "none waits",
      }),
      figure("Running", count(queue.running), {
        href: "#/tasks",
        hint: slots ? `of ${count(slots)} slots` : "no slots",
      }),
      figure("Delayed", count(queue.delayed), { href: "#/queue", hint: "not yet due" }),
      figure("Dead letters", count(queue.dead), {
        href: "#/dead",
        tone: queue.dead ? "bad" : "",
        hint: queue.dead ? "inspect them" : "none",
      }),
      figure("Workers", count(workers.length), {
        href: "#/workers",
        tone: workers.length ? "" : "warn",
        hint: workers.some((worker) => worker.draining)
          ? `${workers.filter((worker) => worker.draining).length} draining`
          : "up",
      }),
      rates.tasks_per_minute === undefined
        ? null
        : figure("Tasks/min", short(rates.tasks_per_minute), { hint: `${short(rates.tokens_per_minute)} tokens` }),
      rates.cost_usd_per_hour === undefined
        ? null
        : figure("Cost/h", usd(rates.cost_usd_per_hour), { href: "#/usage", hint: "this minute" }),
      today
        ? figure("Today (UTC)", usd(today.cost_usd), { href: "#/usage", hint: `${short(today.tokens)} tokens` })
        : null,
    );
  }

  #plot() {
    const { history } = this;
    this.depth.show(history.columns("ready", "running", "delayed"));
    const age = history.columns("oldest_ready_age_s");
    this.age.show(age.values[0]?.some((value) => value !== null) ? age : { x: [], values: [] });
    this.rate.show(history.columns("tasks_per_minute"));
  }

  async #loadCost(records) {
    this.records = records;
    const until = Date.now() / 1000;
    try {
      const usage = await get(`/v1/ops/usage?by=hour&since=${Math.floor(until) - 86400}`);
      const hours = hoursOf(until, 24);
      const byHour = new Map(usage.groups.map((group) => [group.hour, group.cost_usd]));
      const values = hours.map((hour) => byHour.get(hour.name) ?? 0);
      this.cost.show(
        usage.total.calls && knownCost(usage.total) !== null
          ? {
              x: hours.map((hour) => hour.at),
              labels: hours.map((hour) => hour.label),
              short: hours.map((hour) => hour.short),
              values: [values],
            }
          : { x: [], values: [] },
      );
    } catch (error) {
      this.records = -1;
      failed(error);
    }
  }
}

/** The last hours by their UTC names, oldest first, with labels in local time. */
export function hoursOf(until, number) {
  const last = Math.floor(until / 3600);
  return Array.from({ length: number }, (_, index) => {
    const at = (last - number + 1 + index) * 3600;
    const date = new Date(at * 1000);
    const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    return {
      at,
      name: `${date.toISOString().slice(0, 10)} ${date.toISOString().slice(11, 13)}:00`,
      short: time,
      label: `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`,
    };
  });
}
