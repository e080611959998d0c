// One task: what it says while it says it, what it did, and what it cost.

import { get, post } from "../../kit/api.js";
import { confirm } from "../../kit/dialog.js";
import { actions, h, patch } from "../../kit/dom.js";
import { ago, ahead, count, duration, moment, usd } from "../../kit/format.js";
import { done, failed } from "../../kit/notice.js";
import { follow } from "../../kit/sse.js";
import { badge, emptyState, facts } from "../../kit/table.js";
import { Transcript, transcriptNodes } from "../../kit/transcript.js";
import { ENDED, STATE_TONES } from "../task_states.js";
import { timelineTable } from "../timeline.js";

const REREAD_MS = 2000;

export const task = {
  title: "Task",
  titleOf: (id) => `Task ${id}`,
  mount(fleet, { id }) {
    return new TaskPage(fleet, id);
  },
};

/** What a parked task waits for; an approval can be given here. */
function waitsFor(text) {
  return text.startsWith("approval") ? h("a", { href: "#/approvals" }, text) : text;
}

class TaskPage {
  constructor(fleet, id) {
    this.fleet = fleet;
    this.id = id;
    this.path = `/v1/tasks/${encodeURIComponent(id)}`;
    this.transcript = new Transcript();
    this.task = null;
    this.entries = null;
    this.frame = 0;
    this.isClosed = false;
    this.head = h("div");
    this.buttons = h("div", { class: "tools" });
    this.state = h("span", { class: "hint" });
    this.chunks = h("div", { class: "transcript panel-body", "aria-live": "off" });
    this.prompt = h("div");
    this.timeline = h("div");
    this.element = h(
      "div",
      {},
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("a", { href: "#/tasks" }, "← All tasks"), this.buttons),
        h("div", { class: "panel-body" }, this.head),
      ),
      this.prompt,
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, "Run"), this.state), this.chunks),
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, "Timeline")), this.timeline),
    );
    actions(this.element, { cancel: () => this.#cancel(), retry: () => this.#retry() });
    this.#read();
    this.#follow();
    this.timer = setInterval(() => this.#isGoing && this.#read(), REREAD_MS);
  }

  update() {
    this.#drawHead();
  }

  close() {
    this.isClosed = true;
    this.stream?.close();
    clearInterval(this.timer);
  }

  get #isGoing() {
    return !this.task || !ENDED.has(this.task.state);
  }

  async #read() {
    try {
      const [found, { entries }] = await Promise.all([get(this.path), get(`${this.path}/timeline`)]);
      if (this.isClosed) return;
      this.task = found;
      this.entries = entries;
    } catch (error) {
      if (!this.isClosed) patch(this.head, [h("p", { class: "problem" }, error.message)]);
      if (error.status >= 400 && error.status < 500 && error.status !== 429) clearInterval(this.timer);
      return;
    }
    this.#drawHead();
    this.#drawChunks();
    patch(this.timeline, [timelineTable(this.entries)]);
  }

  #follow() {
    this.stream?.close();
    this.streamState = "connecting";
    this.streamError = null;
    this.stream = follow(`${this.path}/stream`, {
      onEvent: ({ data }) => this.#take(data),
      onState: (state, error) => {
        this.streamState = state;
        this.streamError = error;
        this.#draw();
        if (state === "ended") this.#read();
      },
    });
  }

  #take(chunk) {
    if (typeof chunk !== "object" || chunk === null || chunk.type === undefined) return true;
    this.transcript.add(chunk);
    this.#draw();
    return !chunk.is_final;
  }

  /** At most once a frame, however quickly chunks come. */
  #draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.isClosed) this.#drawChunks();
    });
  }

  #drawHead() {
    const { task: found, fleet } = this;
    if (!found) return;
    const running = fleet.part("running")?.tasks.find((one) => one.id === this.id);
    const result = found.result ?? {};
    const usage = result.usage ?? {};
    // The queue forgets an ended task's fields; its journal knows who ran it, and for whom, if it called a model.
    const told = this.entries?.find((entry) => entry.kind === "model_call")?.usage;
    const call = told ?? {};
    const isKnown = Boolean(told) || !ENDED.has(found.state);
    const enqueued = found.submitted_at ?? (found.enqueued_at ? Date.parse(found.enqueued_at) / 1000 : null);
    const tokens = found.result ? (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0) : running?.tokens;
    const cost = found.result ? result.cost_usd : running?.cost_usd;
    patch(this.head, [
      facts([
        ["State", badge(found.state, STATE_TONES[found.state])],
        isKnown || found.agent ? ["Agent", found.agent || call.agent || "default"] : null,
        isKnown || found.tenant ? ["Tenant", found.tenant || call.tenant || "–"] : null,
        call.model ? ["Model", `${call.provider}/${call.model}`] : null,
        found.priority || !ENDED.has(found.state) ? ["Priority", found.priority ?? "normal"] : null,
        found.attempt ? ["Attempts that failed", count(found.attempt)] : null,
        found.worker ? ["Worker", h("span", { class: "mono" }, found.worker)] : null,
        enqueued ? ["Submitted", ago(enqueued, fleet.now)] : null,
        running?.started_at ? ["Running for", duration(fleet.now - running.started_at)] : null,
        found.waits_for ? ["Waits for", waitsFor(found.waits_for)] : null,
        found.due_at ? ["Ready again", ahead(found.due_at, fleet.now)] : null,
        found.deadline ? ["Deadline", moment(found.deadline)] : null,
        result.finished_at ? ["Ended", ago(result.finished_at, fleet.now)] : null,
        [
          "Tokens",
          tokens
            ? `${count(tokens)}${found.result ? ` (${count(usage.input_tokens)} in, ${count(usage.output_tokens)} out)` : ""}`
            : "–",
        ],
        ["Cost", cost == null ? "–" : usd(cost)],
        found.session_id ? ["Session", h("span", { class: "mono" }, found.session_id)] : null,
        found.conversation_id ? ["Conversation", h("span", { class: "mono" }, found.conversation_id)] : null,
        ...Object.entries(found.meta ?? {}).slice(0, 12),
      ]),
    ]);
    const mayWrite = fleet.may("tasks.write");
    patch(this.buttons, [
      mayWrite && this.#isGoing && found.state !== "unknown"
        ? h("button", { class: "button danger", "data-action": "cancel", "data-key": "cancel" }, "Cancel task")
        : null,
      mayWrite && found.state === "failed"
        ? h("button", { class: "button primary", "data-action": "retry", "data-key": "retry" }, "Retry")
        : null,
    ]);
    patch(
      this.prompt,
      found.prompt
        ? [
            h(
              "section",
              { class: "panel" },
              h("div", { class: "panel-head" }, h("h2", {}, "Prompt")),
              h("div", { class: "panel-body" }, h("pre", {}, found.prompt)),
            ),
          ]
        : [],
    );
  }

  #drawChunks() {
    const { transcript } = this;
    const isLive = this.streamState === "live" && !transcript.final && this.task?.state === "running";
    const nodes = transcriptNodes(transcript, { isLive });
    if (!nodes.length) nodes.push(this.#nothing());
    patch(this.chunks, nodes);
    patch(this.state, [this.#streamText()]);
  }

  #nothing() {
    const result = this.task?.result;
    if (result)
      return h(
        "div",
        { class: "block text" },
        result.error ? h("p", { class: "problem" }, result.error) : result.output || "(no output)",
      );
    if (this.streamState === "failed")
      return h("p", { class: "problem" }, this.streamError?.message ?? "The stream cannot be read.");
    return emptyState(
      this.task?.state === "ready"
        ? "The task waits for a worker."
        : this.task?.state === "delayed"
          ? "The task waits, and holds no worker."
          : "Nothing was said yet.",
    );
  }

  #streamText() {
    const { transcript } = this;
    if (transcript.final) return transcript.final.isError ? "ended with an error" : "ended";
    return { live: "live", connecting: "connecting", reconnecting: "reconnecting", failed: "not live", ended: "ended" }[
      this.streamState
    ];
  }

  async #cancel() {
    if (
      !(await confirm({
        title: "Cancel this task?",
        text: "It ends with the error “run cancelled”. A model call that is under way is stopped; what it has used stays counted.",
        action: "Cancel task",
        danger: true,
      }))
    )
      return;
    try {
      const { outcome } = await post(`${this.path}/cancel`);
      done(
        {
          cancelled: "The task was cancelled.",
          requested: "Its worker was told to end it.",
          finished: "It had ended already.",
        }[outcome] ?? outcome,
      );
      await this.#read();
    } catch (error) {
      failed(error);
    }
  }

  async #retry() {
    try {
      const answer = await post(`${this.path}/retry`);
      const id = answer?.id ?? this.id;
      done(id === this.id ? "The task waits for a worker again." : `Submitted again as ${id}.`);
      if (id !== this.id) {
        location.hash = `#/tasks/${encodeURIComponent(id)}`;
        return;
      }
      this.transcript.clear();
      await this.#read();
      this.#follow();
    } catch (error) {
      failed(error);
    }
  }
}
