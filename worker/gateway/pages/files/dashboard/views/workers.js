// Who works on the queue, and letting one leave.

import { post } from "../../kit/api.js";
import { confirm } from "../../kit/dialog.js";
import { actions, h, patch } from "../../kit/dom.js";
import { count, plural } from "../../kit/format.js";
import { done, failed } from "../../kit/notice.js";
import { emptyState } from "../../kit/table.js";
import { workersTable } from "../workers_table.js";

export const workers = {
  title: "Workers",
  mount(fleet) {
    return new Workers(fleet);
  },
};

class Workers {
  constructor(fleet) {
    this.fleet = fleet;
    this.slot = h("div");
    this.summary = h("span", { class: "hint" });
    this.element = h(
      "section",
      { class: "panel" },
      h("div", { class: "panel-head" }, h("h2", {}, "Workers that are up"), this.summary),
      this.slot,
    );
    actions(this.element, { drain: (button) => this.#drain(button.dataset.id) });
  }

  update() {
    const found = this.fleet.part("workers");
    if (!found) return patch(this.slot, [emptyState("Waiting for the first figures.")]);
    const slots = found.reduce((sum, worker) => sum + worker.slots, 0);
    const running = found.reduce((sum, worker) => sum + worker.running, 0);
    patch(this.summary, [
      found.length ? `${plural(found.length, "worker")}, ${count(running)} of ${plural(slots, "slot")} taken` : "",
    ]);
    patch(this.slot, [workersTable(found, this.fleet, { canDrain: this.fleet.mayChangeFleet })]);
  }

  close() {}

  async #drain(id) {
    const worker = this.fleet.part("workers").find((one) => one.id === id);
    const isSure = await confirm({
      title: "Drain this worker?",
      text: [
        `${id} takes no new task, finishes the ${worker?.running ? plural(worker.running, "task") : "tasks"} it has within its grace period, hands the rest back and leaves.`,
        "Its supervisor does not start it again.",
      ],
      action: "Drain",
      danger: true,
    });
    if (!isSure) return;
    try {
      await post(`/v1/ops/workers/${encodeURIComponent(id)}/drain`);
      done(`${id} was asked to leave.`);
    } catch (error) {
      failed(error);
    }
  }
}
