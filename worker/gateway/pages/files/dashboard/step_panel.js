// What a chosen step was asked, what it says while it says it, and what came of it.

import { get } from "../kit/api.js";
import { h, patch } from "../kit/dom.js";
import { count, duration, usd } from "../kit/format.js";
import { badge, emptyState, facts } from "../kit/table.js";
import { Transcript, transcriptNodes } from "../kit/transcript.js";
import { FINAL, PHASE_TONES, runHref, took } from "./phases.js";
import { taskHref } from "./running_table.js";

export class StepPanel {
  /** `path`: of the run, in the API. */
  constructor(path) {
    this.path = path;
    this.name = "";
    this.child = null;
    this.step = null;
    this.detail = null;
    this.problem = "";
    this.transcript = new Transcript();
    this.asked = "";
    this.element = h("section", { class: "panel step-panel", "aria-label": "Step", tabindex: "-1" });
  }

  /** Another step; null: none. */
  choose(name, child = null) {
    if (name !== this.name) {
      this.transcript.clear();
      this.detail = null;
      this.asked = "";
    }
    this.name = name;
    this.child = child;
  }

  take(chunk) {
    return this.transcript.add(chunk);
  }

  show(step, now) {
    this.step = step;
    if (!step) return patch(this.element, [emptyState("Choose a step in the graph.", "Its prompt, output and stream show here.")]);
    this.#read(step);
    if (this.child) patch(this.element, this.#childNodes(now));
    else patch(this.element, this.#nodes(now));
  }

  /** The whole texts, once for each state of the step. */
  async #read(step) {
    const asked = [step.name, step.phase, step.iteration, step.tries].join("/");
    if (asked === this.asked) return;
    this.asked = asked;
    try {
      const detail = await get(`${this.path}/steps/${encodeURIComponent(step.name)}`);
      if (this.name !== step.name) return;
      this.detail = detail;
      this.problem = "";
    } catch (error) {
      this.problem = error.message;
    }
    if (this.step) this.show(this.step, this.now ?? Date.now() / 1000);
  }

  #nodes(now) {
    this.now = now;
    const { step, detail } = this;
    const seconds = took(step, now);
    const isLive = !FINAL.has(step.phase) && step.phase !== "Pending";
    return [
      h("div", { class: "panel-head" }, h("h2", {}, step.name), badge(step.phase, PHASE_TONES[step.phase])),
      h(
        "div",
        { class: "panel-body" },
        step.message ? h("p", { class: step.phase === "Failed" ? "problem" : "hint" }, step.message) : null,
        facts([
          step.role ? ["Role", step.role] : null,
          detail?.model ? ["Model", detail.model] : null,
          step.iteration > 1 ? ["Iteration", count(step.iteration)] : null,
          step.tries > 1 ? ["Tries", count(step.tries)] : null,
          seconds === null ? null : ["Took", duration(seconds)],
          step.tokens ? ["Tokens", count(step.tokens)] : null,
          step.cost_usd == null ? null : ["Cost", usd(step.cost_usd)],
          step.validated ? ["Output", "checked"] : null,
          detail?.condition ? ["Only if", h("code", {}, detail.condition)] : null,
          step.task_id ? ["Task", h("a", { href: taskHref(step.task_id), class: "mono" }, step.task_id)] : null,
          step.run_id ? ["Run", h("a", { href: runHref(step.run_id), class: "mono" }, step.run_id)] : null,
        ]),
      ),
      this.problem ? h("p", { class: "problem" }, this.problem) : null,
      part("Prompt", detail?.prompt || templates(detail?.inputs), { isOpen: !step.output && !isLive }),
      isLive && this.transcript.chunks
        ? h(
            "div",
            { class: "transcript panel-body", "data-key": "tail" },
            transcriptNodes(this.transcript, { isLive: true }),
          )
        : null,
      part("Output", detail?.output || step.output || "", { isOpen: true }),
      part("What the agent said", detail?.raw_output ?? ""),
      Object.keys(detail?.artifacts ?? {}).length
        ? part("Artifacts", Object.entries(detail.artifacts).map(([name, where]) => `${name}: ${where}`).join("\n"))
        : null,
    ];
  }

  #childNodes(now) {
    const { child } = this;
    const seconds = took(child, now);
    return [
      h("div", { class: "panel-head" }, h("h2", {}, child.role || "Subtask"), badge(child.phase, PHASE_TONES[child.phase])),
      h(
        "div",
        { class: "panel-body" },
        child.error ? h("p", { class: "problem" }, child.error) : null,
        facts([
          ["Of step", child.step],
          seconds === null ? null : ["Took", duration(seconds)],
          child.tokens ? ["Tokens", count(child.tokens)] : null,
          child.cost_usd == null ? null : ["Cost", usd(child.cost_usd)],
          ["Task", h("a", { href: taskHref(child.task_id), class: "mono" }, child.task_id)],
        ]),
      ),
      part("Prompt", child.prompt ?? "", { isOpen: true }),
      part("Output", child.output ?? "", { isOpen: true }),
    ];
  }
}

function templates(inputs) {
  return Object.entries(inputs ?? {})
    .map(([key, text]) => `${key}: ${text}`)
    .join("\n");
}

function part(title, text, { isOpen = false } = {}) {
  if (!text) return null;
  return h(
    "details",
    { class: "fold", "data-key": title, open: isOpen },
    h("summary", {}, title),
    h("div", { class: "panel-body" }, h("pre", { tabindex: "0", role: "region", "aria-label": `${title} of the step` }, text)),
  );
}
