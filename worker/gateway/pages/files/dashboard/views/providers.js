// Providers: whether they work, where calls may go, and how fast.

import { get } from "../../kit/api.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, clipped, count, duration, percent, plural } from "../../kit/format.js";
import { badge, emptyState, meter, table } from "../../kit/table.js";

const REREAD_MS = 10000;
const KINDS = {
  requests: "requests/min",
  tokens: "tokens/min",
  input_tokens: "input tokens/min",
  output_tokens: "output tokens/min",
  concurrent: "calls at once",
};
const CIRCUITS = { closed: "good", probing: "warn", open: "bad" };

export const providers = {
  title: "Providers",
  mount(fleet) {
    return new Providers(fleet);
  },
};

class Providers {
  constructor(fleet) {
    this.fleet = fleet;
    this.found = null;
    this.problem = "";
    this.isChecking = false;
    this.hint = h("span", { class: "hint" });
    this.check = h("button", { class: "button", "data-action": "check" }, "Check now");
    this.slot = h("div");
    this.others = h("div");
    this.routes = h("div");
    this.limits = h("div");
    const section = (title, slot, extra = null) =>
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, title), extra), slot);
    this.element = h(
      "div",
      {},
      section("Providers in use", this.slot, h("div", { class: "tools" }, this.hint, this.check)),
      section("Routes", this.routes, h("span", { class: "hint" }, "circuits as the workers see them")),
      section("Rate limits", this.limits, h("span", { class: "hint" }, "use of the last minute")),
      section("Other providers", this.others),
    );
    actions(this.element, { check: () => this.#load("used"), "check-all": () => this.#load("all") });
    this.#draw();
    this.#load("none").then(() => this.#load("used"));
    this.timer = setInterval(() => this.#load("none"), REREAD_MS);
  }

  update() {
    this.#drawLimits();
  }

  close() {
    clearInterval(this.timer);
  }

  async #load(check) {
    if (check !== "none") this.#checking(true);
    try {
      this.found = await get(`/v1/ops/providers?check=${check}`);
      this.problem = "";
    } catch (error) {
      this.problem = error.message;
    }
    if (check !== "none") this.#checking(false);
    this.#draw();
  }

  #checking(isOn) {
    this.isChecking = isOn;
    this.check.disabled = isOn;
    patch(this.hint, [isOn ? "asking them…" : ""]);
  }

  #draw() {
    if (this.problem) return patch(this.slot, [h("p", { class: "problem" }, this.problem)]);
    if (!this.found) return patch(this.slot, [emptyState("Loading…")]);
    const used = this.found.providers.filter((one) => one.is_used);
    const others = this.found.providers.filter((one) => !one.is_used);
    patch(this.slot, [
      this.#table(
        used,
        "No agent names a provider.",
        h("span", {}, "Set ", h("code", {}, "AGENT_MODEL"), " for the workers, or declare an agent."),
      ),
    ]);
    const isOpen = others.some((one) => one.last_check);
    patch(this.others, [
      h(
        "details",
        { class: "fold", open: isOpen },
        h("summary", {}, `${plural(others.length, "provider")} that nothing names`),
        h(
          "div",
          { class: "panel-body" },
          h("button", { class: "button small", "data-action": "check-all" }, "Check these too"),
        ),
        this.#table(others, "None."),
      ),
    ]);
    this.#drawRoutes();
    this.#drawLimits();
  }

  #table(found, empty, next = null) {
    return table({
      label: "Providers",
      columns: [
        { name: "Provider" },
        { name: "Health" },
        { name: "Message", wide: true },
        { name: "Used by" },
        { name: "Kind" },
        { name: "Version" },
        { name: "Answered in", number: true },
        { name: "Checked", number: true },
      ],
      empty,
      next,
      rows: found.map((one) => ({ key: one.name, cells: this.#cells(one) })),
    });
  }

  #cells(one) {
    const last = one.last_check;
    return [
      h("span", {}, h("strong", {}, one.name), one.is_default ? [" ", badge("default", "accent")] : null),
      last ? badge(last.healthy ? "healthy" : "unhealthy", last.healthy ? "good" : "bad") : badge("not checked"),
      last?.message ? clipped(last.message, 160) : "–",
      one.details.agents ? clipped(one.details.agents, 60) : "–",
      one.kind,
      one.version || "–",
      last ? duration(last.took_ms / 1000) : "–",
      last ? ago(last.at, this.fleet.now) : "–",
    ];
  }

  #drawRoutes() {
    patch(this.routes, [
      table({
        label: "Routes",
        columns: [
          { name: "Route" },
          { name: "Target" },
          { name: "Provider" },
          { name: "Strategy" },
          { name: "Weight", number: true },
          { name: "Circuit" },
        ],
        empty: "No route is declared: every call goes to its agent's own model.",
        next: h(
          "span",
          {},
          "One with a fallback: ",
          h("code", {}, `shoal routes set main '["claude-sonnet-4-5", "gpt-4o"]'`),
        ),
        rows: this.found.routes.flatMap((route) =>
          route.targets.map((target, index) => ({
            key: `${route.name}/${index}`,
            cells: [
              index ? "" : h("strong", {}, route.name),
              target.name,
              target.provider,
              index ? "" : route.strategy.replaceAll("_", " "),
              String(target.weight),
              this.#circuits(target.circuits),
            ],
          })),
        ),
      }),
    ]);
  }

  #circuits(circuits) {
    const known = Object.entries(circuits);
    if (!known.length) return h("span", { class: "muted" }, "not called yet");
    return h(
      "span",
      {},
      known.map(([circuit, number]) => [badge(`${circuit}: ${plural(number, "worker")}`, CIRCUITS[circuit]), " "]),
    );
  }

  #drawLimits() {
    const found = this.fleet.part("limits")?.limits;
    if (!found) return patch(this.limits, [emptyState("Waiting for the first figures.")]);
    patch(this.limits, [
      table({
        label: "Rate limits",
        columns: [
          { name: "Limit" },
          { name: "Account" },
          { name: "Kind" },
          { name: "Used", wide: true },
          { name: "Share", number: true },
          { name: "Now", number: true },
          { name: "Waiting", number: true },
          { name: "Refused", number: true },
          { name: "State" },
        ],
        empty: "No rate limit is set: calls go out as fast as tasks make them.",
        next: h(
          "span",
          {},
          "Set one: ",
          h("code", {}, "shoal limits set claude --where provider=anthropic --requests 4000"),
        ),
        rows: found.flatMap((view) => this.#limitRows(view)),
      }),
    ]);
  }

  #limitRows({ rule, accounts }) {
    if (!accounts.length)
      return [
        {
          key: rule.name,
          cells: [
            h("strong", {}, rule.name),
            h("span", { class: "muted" }, "no calls yet"),
            "–",
            "–",
            "–",
            "–",
            "–",
            "–",
            badge("open", "good"),
          ],
        },
      ];
    return accounts.flatMap((account) =>
      (account.uses.length ? account.uses : [null]).map((use, index) => {
        const share = use?.limit ? use.used / use.limit : 0;
        const tone = share >= 0.9 ? "warn" : "good";
        return {
          key: `${rule.name}/${account.account}/${use?.kind ?? ""}`,
          cells: [
            index ? "" : h("strong", {}, rule.name),
            index ? "" : account.account || "all calls",
            use ? (KINDS[use.kind] ?? use.kind) : "not known yet",
            use ? meter({ label: `${rule.name} ${account.account} ${KINDS[use.kind]}`, share, tone }) : "–",
            use ? percent(share) : "–",
            use ? `${count(use.used)} of ${count(use.limit)}` : "–",
            index ? "" : count(account.waiting),
            index ? "" : count(account.refused),
            index ? "" : limitState(account),
          ],
        };
      }),
    );
  }
}

function limitState(account) {
  if (account.closed_s > 0) return badge(`closed for ${duration(account.closed_s)}`, "bad");
  return account.pace < 0.995 ? badge(`slowed to ${percent(account.pace)}`, "warn") : badge("open", "good");
}
