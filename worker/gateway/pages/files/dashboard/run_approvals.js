// The questions of one run that wait for an answer, with the buttons that answer them.

import { get, post } from "../kit/api.js";
import { actions, h, patch } from "../kit/dom.js";
import { done, failed } from "../kit/notice.js";
import { details, readable } from "./asked.js";

export class RunApprovals {
  constructor(fleet, runId) {
    this.fleet = fleet;
    this.runId = runId;
    this.open = [];
    this.asked = "";
    this.element = h("div");
    actions(this.element, {
      approve: (button) => this.#answer(button.dataset.id, true),
      reject: (button) => this.#answer(button.dataset.id, false),
    });
  }

  /** Look again if something has changed: `state` says what is known of the run's questions from elsewhere. */
  show(state) {
    if (state !== this.asked) {
      this.asked = state;
      this.#load();
    }
    this.#draw();
  }

  async #load() {
    try {
      const page = await get(`/v1/approvals?run=${encodeURIComponent(this.runId)}`);
      this.open = page.approvals;
    } catch {
      this.open = []; // the steps still say that they wait
    }
    this.#draw();
  }

  #draw() {
    const may = this.fleet.may("approvals.write");
    patch(
      this.element,
      this.open.map((question) =>
        h(
          "div",
          { class: "banner", "data-key": question.id, role: "group", "aria-label": `Approval of ${question.step || question.tool}` },
          h("span", { class: "run-question", tabindex: question.message.length > 300 ? "0" : null }, h("strong", {}, question.step || question.tool || "approval"), `: ${readable(question.message)}`),
          may
            ? [
                h("button", { class: "button small primary", "data-action": "approve", "data-id": question.id }, "Approve"),
                h("button", { class: "button small danger", "data-action": "reject", "data-id": question.id }, "Reject"),
              ]
            : null,
          h("a", { href: "#/approvals" }, "All approvals"),
          details(question),
        ),
      ),
    );
  }

  async #answer(id, approved) {
    try {
      await post(`/v1/approvals/${encodeURIComponent(id)}`, { approved });
      this.open = this.open.filter((question) => question.id !== id);
      done(approved ? "Approved." : "Rejected.");
    } catch (error) {
      failed(error);
    }
    this.#draw();
  }
}
