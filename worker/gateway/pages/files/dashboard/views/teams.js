// The teams that can be run.

import { get } from "../../kit/api.js";
import { h, patch } from "../../kit/dom.js";
import { ago, plural } from "../../kit/format.js";
import { badge, emptyState, table } from "../../kit/table.js";
import { teamHref } from "../phases.js";

export const teams = {
  title: "Teams",
  mount(fleet) {
    return new Teams(fleet);
  },
};

class Teams {
  constructor(fleet) {
    this.fleet = fleet;
    this.found = null;
    this.slot = h("div", {}, emptyState("Loading…"));
    this.element = h("section", { class: "panel" }, this.slot);
    this.#load();
  }

  update(changed) {
    if (this.problem && changed.has("queue") && !this.fleet.queue.problem) this.#load();
  }

  close() {}

  async #load() {
    try {
      this.found = (await get("/v1/teams")).teams;
      this.problem = "";
    } catch (error) {
      this.problem = error.message;
      return patch(this.slot, [h("p", { class: "problem" }, error.message)]);
    }
    patch(this.slot, [
      table({
        label: "Teams",
        columns: [
          { name: "Team" },
          { name: "Kind" },
          { name: "What it does", wide: true },
          { name: "Inputs" },
          { name: "Updated", number: true },
        ],
        rows: this.found.map((team) => ({
          key: `${team.namespace}/${team.slug}`,
          cells: [
            h("a", { href: teamHref(team.slug, team.namespace) }, team.slug),
            h("span", {}, team.mode === "pipeline" ? plural(team.steps, "step") : `${team.mode}, ${plural(team.roles, "role")}`),
            h("span", {}, team.description || "–", team.is_active ? null : [" ", badge("switched off", "warn")]),
            team.inputs.length ? team.inputs.map((input) => input.name).join(", ") : "any",
            ago(team.updated_at, this.fleet.now),
          ],
        })),
        empty: "The fleet has no team yet.",
        next: h("span", {}, "Store one: ", h("code", {}, "shoal team apply team.yaml")),
      }),
    ]);
  }
}
