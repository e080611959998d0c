// Approvals: what runs ask people, and the buttons that answer.

import { get, post } from "../../kit/api.js";
import { shown } from "../../kit/dialog.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, ahead, clipped } from "../../kit/format.js";
import { done, failed } from "../../kit/notice.js";
import { badge, emptyState, facts, table } from "../../kit/table.js";
import { details, readable } from "../asked.js";
import { taskHref } from "../running_table.js";

const MOST = 100;
const MOST_DECIDED = 50;
const WORDS = { tool: "Tool", step: "Step", plugin: "Plugin" };
const AFTERWARDS = { reject: "then rejected", approve: "then approved", skip: "then skipped" };

export const approvals = {
  title: "Approvals",
  mount(fleet) {
    return new Approvals(fleet);
  },
};

class Approvals {
  constructor(fleet) {
    this.fleet = fleet;
    this.open = null;
    this.decided = [];
    this.seen = null;
    this.waiting = h("div");
    this.past = h("div");
    this.element = h(
      "div",
      {},
      h(
        "section",
        { class: "panel", "aria-label": "Waiting" },
        h("div", { class: "panel-head" }, h("h2", {}, "Waiting for an answer"), h("span", { class: "hint" })),
        this.waiting,
      ),
      h(
        "section",
        { class: "panel", "aria-label": "Decided" },
        h("div", { class: "panel-head" }, h("h2", {}, "Decided")),
        this.past,
      ),
    );
    this.hint = this.element.querySelector(".hint");
    actions(this.element, {
      approve: (button) => this.#answer(button.dataset.id, true),
      reject: (button) => this.#answer(button.dataset.id, false),
    });
  }

  update(changed) {
    const part = this.fleet.part("approvals");
    // The feed says that something has changed; what it is, the list says.
    if (this.seen === null || (changed.has("approvals") && part?.version !== this.seen)) this.#load(part?.version);
    this.#draw();
  }

  close() {
    this.isClosed = true;
    this.dialog?.close();
  }

  async #load(version) {
    this.seen = version ?? -1;
    try {
      const [open, decided] = await Promise.all([
        get(`/v1/approvals?limit=${MOST}`),
        get(`/v1/approvals?state=decided&limit=${MOST_DECIDED}`),
      ]);
      if (this.isClosed) return;
      this.problem = "";
      this.open = open.approvals;
      this.total = open.open;
      this.decided = decided.approvals;
    } catch (error) {
      this.problem = error.message;
      this.seen = null; // the next news of anything asks again
    }
    if (!this.isClosed) this.#draw();
  }

  #draw() {
    const { open, fleet } = this;
    if (!open) {
      patch(this.waiting, [this.problem ? h("p", { class: "problem" }, this.problem) : emptyState("Loading…")]);
      return;
    }
    const mayAnswer = fleet.may("approvals.write");
    patch(this.hint, [open.length < this.total ? `The oldest ${open.length} of ${this.total} are shown.` : ""]);
    patch(
      this.waiting,
      open.length
        ? open.map((each) => question(each, fleet.now, mayAnswer))
        : [
            emptyState(
              "Nobody waits for an answer.",
              "Calls of tools in approve_tools, steps with an approval and plugins that ask appear here.",
            ),
          ],
    );
    patch(this.past, [
      table({
        label: "Decided approvals",
        columns: [
          { name: "Question", wide: true },
          { name: "Answer" },
          { name: "By" },
          { name: "Comment", wide: true },
          { name: "Task or run", mono: true },
          { name: "When", number: true },
        ],
        empty: "Nothing was decided lately.",
        rows: this.decided.map((each) => ({ key: each.id, cells: decidedCells(each, fleet.now) })),
      }),
    ]);
  }

  async #answer(id, approved) {
    const asked = this.open?.find((each) => each.id === id);
    if (!asked) return;
    const comment = h("input", { id: "approval-comment", type: "text", maxlength: 2000, autocomplete: "off" });
    this.dialog = answerDialog(asked, approved, comment);
    const answer = await shown(this.dialog);
    this.dialog = null;
    if (answer !== "yes") return;
    try {
      await post(`/v1/approvals/${encodeURIComponent(id)}`, { approved, comment: comment.value.trim() });
      done(approved ? "Approved: whoever waits goes on now." : "Rejected.");
    } catch (error) {
      failed(error);
    }
    await this.#load(this.fleet.part("approvals")?.version);
  }
}

/** One question, whole: who asks knows what its text means, so all of it is there. */
function question(each, now, mayAnswer) {
  const heading = `approval-${each.id}`;
  return h(
    "article",
    { class: "approval", "data-key": each.id, "aria-labelledby": heading },
    h("h3", { id: heading }, badge(WORDS[each.what] ?? "Plugin", "accent"), " ", readable(each.message)),
    facts([
      each.tool ? ["Tool", h("span", { class: "mono" }, each.tool)] : null,
      each.agent ? ["Agent", each.agent] : null,
      each.role ? ["Role", `${each.role} of ${each.team}`] : null,
      each.run && each.what !== "plugin"
        ? ["Run", h("a", { href: `#/runs/${encodeURIComponent(each.run)}` }, each.run)]
        : null,
      each.step ? ["Step", each.step] : null,
      each.task ? ["Task", h("a", { class: "mono", href: taskHref(each.task) }, each.task)] : null,
      each.tenant ? ["Tenant", each.tenant] : null,
      each.permission ? ["Permission", each.permission] : null,
      ["Asked", ago(each.asked_at, now)],
      ["Time is up", [ahead(each.until, now), `, ${AFTERWARDS[each.fallback ?? "reject"]}`]],
    ]),
    details(each),
    mayAnswer
      ? h(
          "div",
          { class: "tools" },
          h(
            "button",
            {
              class: "button primary",
              "data-action": "approve",
              "data-id": each.id,
              "aria-label": `Approve: ${each.message}`,
            },
            "Approve",
          ),
          h(
            "button",
            {
              class: "button danger",
              "data-action": "reject",
              "data-id": each.id,
              "aria-label": `Reject: ${each.message}`,
            },
            "Reject",
          ),
        )
      : h("p", { class: "hint" }, "Answering needs a key with the scope approvals.write."),
  );
}

function decidedCells(each, now) {
  const approved = each.approved === true;
  return [
    clipped(each.message, 160),
    badge(
      `${approved ? "approved" : "rejected"}${each.timed_out ? ", in time unanswered" : ""}`,
      approved ? "good" : "bad",
    ),
    each.timed_out ? h("span", { class: "muted" }, "nobody") : each.reviewer || "–",
    clipped(each.comment ?? "", 160) || "–",
    each.task ? h("a", { href: taskHref(each.task) }, each.task) : each.run || "–",
    ago(each.decided_at, now),
  ];
}

function answerDialog(asked, approved, comment) {
  return h(
    "dialog",
    { class: "dialog wide", "aria-labelledby": "answer-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "answer-title" }, approved ? "Approve this?" : "Reject this?"),
      h("p", {}, readable(asked.message)),
      details(asked),
      h("label", { for: comment.id }, approved ? "Comment (optional)" : "Why not (optional)"),
      comment,
      h(
        "div",
        { class: "dialog-buttons" },
        h(
          "button",
          {
            class: "button",
            value: "no",
            type: "button",
            click: (event) => event.target.closest("dialog").close("no"),
          },
          "Cancel",
        ),
        h(
          "button",
          { class: approved ? "button primary" : "button danger", value: "yes", autofocus: true },
          approved ? "Approve" : "Reject",
        ),
      ),
    ),
  );
}
