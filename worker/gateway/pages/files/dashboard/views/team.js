// One team: its graph, and a form that runs it.

import { get, post } from "../../kit/api.js";
import { h, patch } from "../../kit/dom.js";
import { done } from "../../kit/notice.js";
import { emptyState, facts } from "../../kit/table.js";
import { TeamGraph } from "../graph.js";
import { inputForm } from "../input_form.js";
import { runHref } from "../phases.js";

export const team = {
  title: "Team",
  titleOf: (slug) => `Team ${slug}`,
  mount(fleet, { id, query }) {
    return new TeamPage(fleet, id, query.get("namespace") ?? "");
  },
};

class TeamPage {
  constructor(fleet, slug, namespace) {
    this.fleet = fleet;
    this.slug = slug;
    this.namespace = namespace;
    this.head = h("div");
    this.form = h("div");
    this.graph = new TeamGraph({ label: `Graph of team ${slug}` });
    this.slot = h("div", { class: "graph-slot" }, emptyState("Loading…"));
    this.element = h(
      "div",
      {},
      h(
        "section",
        { class: "panel" },
        h(
          "div",
          { class: "panel-head" },
          h("a", { href: "#/teams" }, "← All teams"),
          h("a", { href: `#/runs?team=${encodeURIComponent(slug)}` }, "Its runs"),
        ),
        h("div", { class: "panel-body" }, this.head),
      ),
      h(
        "div",
        { class: "run-columns" },
        h(
          "section",
          { class: "panel" },
          h("div", { class: "panel-head" }, h("h2", {}, "Graph"), this.graph.controls),
          this.slot,
        ),
        this.form,
      ),
    );
    this.#load();
  }

  update(changed) {
    if (changed.has("about") && this.found) this.#drawForm();
  }

  close() {}

  async #load() {
    const query = this.namespace ? `?namespace=${encodeURIComponent(this.namespace)}` : "";
    try {
      const [{ teams }, graph] = await Promise.all([
        get("/v1/teams"),
        get(`/v1/teams/${encodeURIComponent(this.slug)}/graph${query}`),
      ]);
      this.found = teams.find((one) => one.slug === this.slug && one.namespace === this.namespace) ??
        teams.find((one) => one.slug === this.slug) ?? { inputs: [], mode: "pipeline", description: "", is_active: true };
      patch(this.slot, [this.graph.element]);
      this.graph.show(graph, graph.nodes, 0);
    } catch (error) {
      patch(this.slot, []);
      return patch(this.head, [h("p", { class: "problem" }, error.message)]);
    }
    patch(this.head, [
      this.found.description ? h("p", {}, this.found.description) : null,
      facts([
        ["Kind", this.found.mode],
        this.found.namespace ? ["Namespace", this.found.namespace] : null,
        this.found.steps ? ["Steps", String(this.found.steps)] : null,
        this.found.roles ? ["Roles", String(this.found.roles)] : null,
      ]),
    ]);
    this.#drawForm();
  }

  #drawForm() {
    if (!this.fleet.may("tasks.write") || this.form.firstChild) return;
    this.form.replaceChildren(inputForm(this.found.inputs, (input) => this.#run(input)));
  }

  /** Returns what was wrong, to be shown in the form. */
  async #run(input) {
    try {
      const started = await post("/v1/runs", { team: this.slug, input, tenant: this.found.namespace ?? "" });
      done("The run has begun.");
      location.hash = runHref(started.id);
      return "";
    } catch (error) {
      return error.message;
    }
  }
}
