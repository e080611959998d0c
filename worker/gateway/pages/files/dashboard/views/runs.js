// Runs of teams, the newest first. The feed says when something has changed; the list is read again then, and now and
// then for what the feed does not tell: a run whose process died, a feed that is away.

import { get } from "../../kit/api.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, clipped, count, duration, usd } from "../../kit/format.js";
import { failed } from "../../kit/notice.js";
import { badge, emptyState, meter, table } from "../../kit/table.js";
import { choice } from "../choice.js";
import { FINAL, PHASE_TONES, runHref, took } from "../phases.js";

const CHOICES = { all: "All", active: "Active", Succeeded: "Succeeded", Failed: "Failed", Cancelled: "Cancelled" };
const ACTIVE = "Pending,Running,Validating,Waiting";
const PAGE = 50;
const REREAD_MS = 15000;

export const runs = {
  title: "Runs",
  mount(fleet, { query }) {
    return new Runs(fleet, query);
  },
};

class Runs {
  constructor(fleet, query) {
    this.fleet = fleet;
    this.choice = h("div");
    this.note = h("span", { class: "hint" });
    this.slot = h("div", { class: "runs-table" });
    this.more = h("div");
    this.element = h(
      "section",
      { class: "panel" },
      h("div", { class: "panel-head" }, h("div", { class: "tools" }, this.choice), this.note),
      this.slot,
      this.more,
    );
    actions(this.element, { more: () => this.#load(this.cursor) });
    this.navigate({ query });
    this.timer = setInterval(() => !document.hidden && this.#load("", { isShared: false }), REREAD_MS);
  }

  navigate({ query }) {
    const phase = query.get("phase");
    this.phase = Object.hasOwn(CHOICES, phase ?? "") ? phase : "all";
    this.team = query.get("team") ?? "";
    this.found = null;
    this.older = [];
    this.cursor = "";
    this.problem = "";
    const team = this.team ? `&team=${encodeURIComponent(this.team)}` : "";
    patch(this.choice, [choice("Phase", CHOICES, this.phase, (value) => `#/runs?phase=${value}${team}`)]);
    this.#load("");
    this.#draw();
  }

  update(changed) {
    if (changed.has("runs") && this.fleet.part("runs").version !== this.seen) this.#load("");
    if (this.found) this.#draw();
  }

  close() {
    clearInterval(this.timer);
  }

  /** With the feed's version, so that all pages that are open share what the gateway reads for it. */
  async #load(cursor, { isShared = true } = {}) {
    const { phase, team } = this;
    const version = this.fleet.part("runs")?.version;
    const query = new URLSearchParams({ limit: PAGE });
    if (phase !== "all") query.set("phase", phase === "active" ? ACTIVE : phase);
    if (team) query.set("team", team);
    if (cursor) query.set("cursor", cursor);
    else {
      this.seen = version;
      this.asked = query;
      if (isShared && version) query.set("version", version);
    }
    try {
      const page = await get(`/v1/runs?${query}`);
      if (phase !== this.phase || team !== this.team) return;
      if (!cursor && query !== this.asked) return; // a newer one is under way
      this.problem = "";
      if (cursor) this.older = [...this.older, ...page.runs];
      else this.found = page.runs;
      if (cursor || !this.older.length) this.cursor = page.next_cursor ?? "";
    } catch (error) {
      if (phase !== this.phase || team !== this.team) return;
      if (cursor) return failed(error);
      this.problem = error.message;
    }
    this.#draw();
  }

  #draw() {
    if (this.problem) return patch(this.slot, [h("p", { class: "problem" }, this.problem)]);
    if (!this.found) return patch(this.slot, [emptyState("Loading…")]);
    const known = new Set(this.found.map((run) => run.id));
    const shown = [...this.found, ...this.older.filter((run) => !known.has(run.id))];
    const active = shown.filter((run) => !FINAL.has(run.phase)).length;
    const hasTenants = shown.some((run) => run.tenant);
    patch(this.note, [
      this.team ? h("span", {}, `team ${this.team} · `, h("a", { href: "#/runs" }, "all teams"), " · ") : null,
      active ? `${count(active)} active` : "",
    ]);
    patch(this.slot, [
      table({
        label: "Runs",
        columns: [
          { name: "Run", mono: true },
          { name: "Team" },
          ...(hasTenants ? [{ name: "Tenant" }] : []),
          { name: "State" },
          { name: "Steps" },
          { name: "Tokens", number: true },
          { name: "Cost", number: true },
          { name: "Took", number: true },
          { name: "Begun", number: true },
        ],
        rows: shown.map((run) => ({ key: run.id, cells: this.#cells(run, hasTenants) })),
        empty: this.phase === "all" ? "No team has run yet." : "No such run.",
        next: h("span", {}, "Start one under ", h("a", { href: "#/teams" }, "Teams"), ", or with ", h("code", {}, "shoal run team.yaml")),
      }),
    ]);
    patch(
      this.more,
      this.cursor
        ? [h("div", { class: "empty" }, h("button", { class: "button", "data-action": "more" }, "Show more"))]
        : [],
    );
  }

  #cells(run, hasTenants) {
    const seconds = took(run, this.fleet.now);
    const share = run.steps ? run.steps_ended / run.steps : 0;
    const told =
      run.phase === "Failed" ? run.message || run.reason : run.is_interrupted ? `shoal run --resume ${run.id}` : "";
    const [phase, tone] = run.is_interrupted ? ["Interrupted", "warn"] : [run.phase, PHASE_TONES[run.phase]];
    return [
      h("a", { href: runHref(run.id) }, run.id),
      h("a", { href: `#/runs?team=${encodeURIComponent(run.team)}` }, clipped(run.team, 40)),
      ...(hasTenants ? [run.tenant || "–"] : []),
      h("span", {}, badge(phase, tone), told ? h("div", { class: "hint" }, clipped(told, 80)) : null),
      run.steps
        ? h(
            "span",
            {},
            `${run.steps_ended} of ${run.steps}`,
            meter({ label: `Steps of ${run.id} that have ended`, share, tone: run.phase === "Failed" ? "bad" : "good" }),
          )
        : "–",
      run.tokens ? count(run.tokens) : "–",
      run.cost_usd == null ? "–" : usd(run.cost_usd),
      seconds === null ? "–" : duration(seconds),
      ago(run.created_at, this.fleet.now),
    ];
  }
}
