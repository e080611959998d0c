// What may be spent, what is, and what is reserved for calls that are under way.

import { h, patch } from "../../kit/dom.js";
import { ahead, count, percent, plural, usd } from "../../kit/format.js";
import { badge, emptyState, meter, table } from "../../kit/table.js";

const PERIODS = { day: "in any 24 hours", month: "per calendar month (UTC)", ever: "in all" };

export const budgets = {
  title: "Budgets",
  mount(fleet) {
    return new Budgets(fleet);
  },
};

class Budgets {
  constructor(fleet) {
    this.fleet = fleet;
    this.element = h("div");
  }

  update() {
    const found = this.fleet.part("budgets")?.budgets;
    if (!found)
      return patch(this.element, [h("section", { class: "panel" }, emptyState("Waiting for the first figures."))]);
    if (!found.length) {
      const next = h(
        "span",
        {},
        "Set one for the whole fleet at once: ",
        h("code", {}, "shoal budgets set all --scope fleet --period day --usd 50"),
      );
      return patch(this.element, [
        h("section", { class: "panel" }, emptyState("There is no budget: nothing limits what is spent.", next)),
      ]);
    }
    patch(
      this.element,
      found.map((view) => this.#budget(view)),
    );
  }

  close() {}

  #budget({ rule, accounts, accounts_in_all: inAll }) {
    const limits = [rule.usd != null && usd(rule.usd), rule.tokens != null && `${count(rule.tokens)} tokens`]
      .filter(Boolean)
      .join(" and ");
    const about = [
      `${limits} for each ${rule.scope}`.replace("for each fleet", "for the fleet"),
      PERIODS[rule.period ?? "ever"],
      rule.match && rule.match !== "*" ? `matching ${rule.match}` : "",
      Object.entries(rule.where ?? {})
        .map(([key, value]) => `${key} ${value}`)
        .join(", "),
    ]
      .filter(Boolean)
      .join(", ");
    const isHard = rule.hard ?? true;
    return h(
      "section",
      { class: "panel", "data-key": rule.name },
      h(
        "div",
        { class: "panel-head" },
        h("h2", {}, rule.name, " ", badge(isHard ? "hard" : "warns only", isHard ? "accent" : "")),
        h("span", { class: "hint" }, about),
      ),
      accounts.length ? this.#accounts(rule, accounts, isHard) : emptyState("Nothing was charged to it yet."),
      inAll > accounts.length
        ? h(
            "p",
            { class: "hint panel-body" },
            `The fullest ${count(accounts.length)} of ${plural(inAll, "account")} are shown.`,
          )
        : null,
    );
  }

  #accounts(rule, accounts, isHard) {
    return table({
      label: `Accounts of ${rule.name}`,
      columns: [
        { name: "Account" },
        { name: "Used", wide: true },
        { name: "Share", number: true },
        { name: "Spent", number: true },
        { name: "Limit", number: true },
        { name: "Reserved", number: true },
        { name: "Room again", number: true },
      ],
      rows: accounts.map((use) => ({ key: use.account, cells: this.#cells(use, isHard) })),
    });
  }

  #cells(use, isHard) {
    const tone = use.share >= 1 && isHard ? "bad" : use.share >= use.soft ? "warn" : "good";
    const held = Math.max(
      use.usd_limit ? use.usd_held / use.usd_limit : 0,
      use.tokens_limit ? use.tokens_held / use.tokens_limit : 0,
    );
    const both = (money, tokens) =>
      [use.usd_limit != null && usd(money), use.tokens_limit != null && `${count(tokens)} tokens`]
        .filter(Boolean)
        .join(", ");
    const marks = [
      { at: use.soft, title: `warns at ${percent(use.soft)}` },
      ...(isHard ? [{ at: 1, title: "stops here", tone: "hard" }] : []),
    ];
    return [
      use.scope === "fleet" ? "the fleet" : use.account,
      meter({ label: `${use.account}: share that is used`, share: use.share, held, tone, marks }),
      h("span", { class: tone }, percent(use.share)),
      both(use.usd_used, use.tokens_used),
      both(use.usd_limit, use.tokens_limit),
      use.usd_held || use.tokens_held ? both(use.usd_held, use.tokens_held) : "–",
      use.renews_at ? ahead(use.renews_at, this.fleet.now) : use.share >= 1 ? "never by itself" : "–",
    ];
  }
}
