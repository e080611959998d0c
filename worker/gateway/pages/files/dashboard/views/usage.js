// What was spent: by time, and by agent, model or tenant.

import { get } from "../../kit/api.js";
import { h, patch } from "../../kit/dom.js";
import { count, duration, knownCost, percent, short, usd } from "../../kit/format.js";
import { Plot } from "../../kit/plot.js";
import { emptyState, figure, table } from "../../kit/table.js";
import { choice } from "../choice.js";

const PERIODS = { "24h": "24 h", "7d": "7 days", "30d": "30 days", "90d": "90 days" };
const PERIOD_DAYS = { "24h": 1, "7d": 7, "30d": 30, "90d": 90 };
const BY = { agent: "Agent", model: "Model", tenant: "Tenant", day: "Day" };
const MEASURES = { cost: "Cost", tokens: "Tokens", calls: "Calls" };
const AMOUNT = {
  cost: (group) => group.cost_usd,
  tokens: (group) => group.input_tokens + group.output_tokens,
  calls: (group) => group.calls,
};
const FORMAT = { cost: usd, tokens: short, calls: short };
const MOST_SERIES = 6;
const MOST_ROWS = 200;
const REREAD_MS = 5000;

export const usage = {
  title: "Usage",
  mount(fleet, { query }) {
    return new Usage(fleet, query);
  },
};

class Usage {
  constructor(fleet, query) {
    this.fleet = fleet;
    this.readAt = 0;
    this.records = -1;
    this.tools = h("div", { class: "tools" });
    this.note = h("div");
    this.figures = h("div");
    this.slot = h("div");
    this.plotSlot = h("div", { class: "plots" });
    this.element = h(
      "div",
      {},
      h("div", { class: "panel-head overview-head" }, this.tools),
      this.note,
      this.figures,
      this.plotSlot,
      h("section", { class: "panel" }, this.slot),
    );
    this.navigate({ query });
  }

  navigate({ query }) {
    const pick = (name, options, other) => (Object.hasOwn(options, query.get(name) ?? "") ? query.get(name) : other);
    this.period = pick("period", PERIODS, "7d");
    this.by = pick("by", BY, "agent");
    this.measure = pick("measure", MEASURES, "cost");
    const href = (changes) =>
      `#/usage?${new URLSearchParams({ period: this.period, by: this.by, measure: this.measure, ...changes })}`;
    patch(this.tools, [
      choice("Period", PERIODS, this.period, (period) => href({ period })),
      choice("Group by", BY, this.by, (by) => href({ by })),
      choice("Measure", MEASURES, this.measure, (measure) => href({ measure })),
    ]);
    this.plot = new Plot({
      title: `${MEASURES[this.measure]} per ${this.#time}`,
      kind: "bars",
      format: FORMAT[this.measure],
      empty: "Nothing was used in this time.",
      height: 200,
    });
    patch(this.plotSlot, [
      h("div", { "data-key": `${this.period}/${this.by}/${this.measure}`, "data-own": true }, this.plot.element),
    ]);
    this.#load();
  }

  get #time() {
    return this.period === "24h" ? "hour" : "day";
  }

  update(changed) {
    if (
      changed.has("usage") &&
      this.fleet.part("usage").records !== this.records &&
      Date.now() - this.readAt > REREAD_MS
    )
      this.#load();
  }

  close() {
    clearTimeout(this.timer);
  }

  async #load() {
    this.readAt = Date.now();
    this.records = this.fleet.part("usage")?.records ?? -1;
    const asked = `${this.period}/${this.by}/${this.measure}`;
    const until = Math.floor(Date.now() / 1000);
    const since =
      this.period === "24h" ? until - 23 * 3600 : (Math.floor(until / 86400) - PERIOD_DAYS[this.period] + 1) * 86400;
    const over = this.by === "day" ? this.#time : `${this.#time},${this.by}`;
    try {
      const [table_, series] = await Promise.all([
        get(`/v1/ops/usage?by=${this.by}&since=${since}`),
        this.#series(over, since),
      ]);
      if (asked !== `${this.period}/${this.by}/${this.measure}`) return;
      patch(
        this.note,
        table_.is_complete
          ? []
          : [
              h(
                "p",
                { class: "hint" },
                `The ledger is being read, ${count(table_.records)} records so far: the figures are not complete yet.`,
              ),
            ],
      );
      if (!table_.is_complete) this.timer = setTimeout(() => this.#load(), 500);
      this.#draw(table_, series, since, until);
    } catch (error) {
      this.records = -1; // what comes next is reason enough to ask again
      patch(this.slot, [h("p", { class: "problem" }, error.message)]);
    }
  }

  /** By time and what was chosen; of too many names, by time alone. */
  async #series(over, since) {
    try {
      return await get(`/v1/ops/usage?by=${over}&since=${since}`);
    } catch (error) {
      if (error.code !== "too_many_groups") throw error;
      return get(`/v1/ops/usage?by=${this.#time}&since=${since}`);
    }
  }

  #draw(found, series, since, until) {
    const { total } = found;
    patch(this.figures, [
      h(
        "div",
        { class: "figures" },
        figure("Cost", usd(knownCost(total)), {
          hint: total.unpriced_calls ? `+ ${short(total.unpriced_calls)} unpriced calls` : "all calls are priced",
        }),
        figure("Calls", count(total.calls), {
          hint: total.failed ? `${count(total.failed)} not completed` : "all completed",
        }),
        figure("Input tokens", short(total.input_tokens), {
          hint: total.input_tokens ? `${percent(total.cache_read_tokens / total.input_tokens)} from cache` : "",
        }),
        figure("Output tokens", short(total.output_tokens), {
          hint: total.reasoning_tokens ? `${short(total.reasoning_tokens)} reasoning` : "",
        }),
        figure("Per call", total.calls ? usd(perCall(total)) : "–", {
          hint: total.calls ? `${duration(total.duration_s / total.calls)} on average` : "",
        }),
      ),
    ]);
    this.#plot(found, series, since, until);
    const amount = AMOUNT[this.measure];
    const sorted =
      this.by === "day" ? [...found.groups].reverse() : [...found.groups].sort((a, b) => amount(b) - amount(a));
    const isCut = sorted.length > MOST_ROWS;
    patch(this.slot, [
      this.#table(sorted.slice(0, MOST_ROWS), total),
      isCut ? h("p", { class: "hint panel-body" }, `${count(MOST_ROWS)} of ${count(sorted.length)} are shown.`) : null,
    ]);
  }

  #plot(found, series, since, until) {
    const amount = AMOUNT[this.measure];
    if (!found.total.calls) return this.plot.show({ x: [], values: [] }, []);
    const times = timesOf(since, until, this.#time);
    if (series.by.length === 1) {
      const byTime = new Map(series.groups.map((group) => [group[this.#time], amount(group)]));
      return this.plot.show({ ...times, values: [times.names.map((name) => byTime.get(name) ?? 0)] }, [
        { name: MEASURES[this.measure].toLowerCase(), tone: 1 },
      ]);
    }
    const ranked = [...found.groups].sort((a, b) => amount(b) - amount(a)).map((group) => group[this.by]);
    const named = ranked.length > MOST_SERIES + 1 ? ranked.slice(0, MOST_SERIES) : ranked;
    const rows = named.map(() => times.names.map(() => 0));
    const other = times.names.map(() => 0);
    const places = new Map(times.names.map((name, index) => [name, index]));
    for (const group of series.groups) {
      const place = places.get(group[this.#time]);
      if (place === undefined) continue;
      const row = named.indexOf(group[this.by]);
      (row < 0 ? other : rows[row])[place] += amount(group);
    }
    const shown = named.map((name, index) => ({ name: name || this.#unnamed, tone: Math.min(index + 1, 7) }));
    const hasOther = other.some(Boolean);
    this.plot.show(
      { ...times, values: hasOther ? [...rows, other] : rows },
      hasOther ? [...shown, { name: `${count(ranked.length - named.length)} others`, tone: 7 }] : shown,
    );
  }

  get #unnamed() {
    return this.by === "agent" ? "default" : `no ${this.by}`;
  }

  #table(groups, total) {
    if (!groups.length)
      return emptyState(
        "Nothing was used in this time.",
        "Every model call of the fleet is counted here, within a few seconds of its end.",
      );
    const most = Math.max(...groups.map(AMOUNT[this.measure]), 1e-12);
    return table({
      label: `Usage by ${this.by}`,
      columns: [
        { name: BY[this.by] },
        { name: "Cost", number: true },
        { name: "Share", number: true },
        { name: "Calls", number: true },
        { name: "Not completed", number: true },
        { name: "Input", number: true },
        { name: "Cached", number: true },
        { name: "Output", number: true },
        { name: "Reasoning", number: true },
        { name: "Model time", number: true },
      ],
      rows: groups.map((group) => ({
        key: group[this.by] || "(none)",
        cells: [
          group[this.by] || h("span", { class: "muted" }, this.#unnamed),
          knownCost(group) === null
            ? h("span", { title: "The price of this model is not known" }, "?")
            : usd(group.cost_usd),
          h(
            "span",
            {},
            h("span", {
              class: "share",
              "aria-hidden": "true",
              vars: { "--share": `${(100 * AMOUNT[this.measure](group)) / most}%` },
            }),
            h(
              "span",
              { class: "share-text" },
              percent(AMOUNT[this.measure](total) ? AMOUNT[this.measure](group) / AMOUNT[this.measure](total) : 0),
            ),
          ),
          count(group.calls),
          h("span", { class: group.failed ? "warn" : "muted" }, count(group.failed)),
          short(group.input_tokens),
          short(group.cache_read_tokens),
          short(group.output_tokens),
          short(group.reasoning_tokens),
          duration(group.duration_s),
        ],
      })),
    });
  }
}

/** Of those whose price is known. */
function perCall(total) {
  const cost = knownCost(total);
  return cost === null ? null : cost / Math.max(1, total.calls - total.unpriced_calls);
}

/** All hours or days (UTC) of a period, so that those without usage have their place. */
function timesOf(since, until, unit) {
  const step = unit === "hour" ? 3600 : 86400;
  const x = [];
  for (let at = Math.floor(since / step) * step; at <= until; at += step) x.push(at);
  const dates = x.map((at) => new Date(at * 1000));
  const day = (date) =>
    date.toLocaleDateString("en-GB", {
      day: "numeric",
      month: "short",
      ...(unit === "day" ? { timeZone: "UTC" } : {}),
    });
  const time = (date) => date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return {
    x,
    names: dates.map((date) =>
      unit === "hour"
        ? `${date.toISOString().slice(0, 10)} ${date.toISOString().slice(11, 13)}:00`
        : date.toISOString().slice(0, 10),
    ),
    labels: dates.map((date) => (unit === "hour" ? `${day(date)} ${time(date)}` : day(date))),
    short: dates.map((date) => (unit === "hour" ? time(date) : day(date))),
  };
}
