// The conversations of the reader, those used last first, and what runs in them.

import { actions, h, patch } from "../kit/dom.js";
import { clock } from "../kit/format.js";
import { getSession, listSessions } from "./api.js";
import { icon } from "./icons.js";

const PAGE = 50;
const RUNNING_MS = 2000;
const IDLE_MS = 30_000;
const SEARCH_FROM = 8;

export class ConversationList {
  /** `on`: {rename(row), remove(row), ended(row)}; `nameOf` an agent. */
  constructor(element, search, nameOf, on) {
    this.element = element;
    this.search = search;
    this.nameOf = nameOf;
    this.on = on;
    this.rows = new Map();
    this.shown = null; // key of the open one
    this.limit = PAGE;
    this.hasMore = false;
    this.problem = null;
    this.isLoaded = false;
    this.timer = 0;
    actions(element, {
      rename: (button) => on.rename(this.#rowOf(button)),
      remove: (button) => on.remove(this.#rowOf(button)),
      more: () => this.#more(),
    });
    search.addEventListener("input", () => this.draw());
    document.addEventListener("visibilitychange", () => !document.hidden && this.refresh());
  }

  /** Read them anew. */
  async refresh() {
    clearTimeout(this.timer);
    try {
      const page = await listSessions(this.limit, 0);
      const rows = page.sessions.flatMap((session) => session.conversations.map((view) => rowOf(session.id, session.agent, view)));
      const open = this.rows.get(this.shown);
      this.rows = new Map(rows.map((row) => [row.key, row]));
      if (open && !this.rows.has(open.key)) this.rows.set(open.key, open);
      this.hasMore = page.has_more;
      this.problem = null;
      this.isLoaded = true;
    } catch (error) {
      this.problem = error;
    }
    this.draw();
    this.#later();
  }

  /** News of one conversation. */
  learn(session, agent, view) {
    const row = rowOf(session, agent, view);
    this.rows.set(row.key, row);
    this.draw();
    this.#later();
  }

  /** It was deleted. */
  forget(key) {
    this.rows.delete(key);
    this.draw();
  }

  open(key) {
    this.shown = key;
    this.draw();
  }

  /** The other conversations of a session. */
  beside(row) {
    return [...this.rows.values()].filter((one) => one.session === row.session && one.key !== row.key);
  }

  draw() {
    const wanted = this.search.value.trim().toLowerCase();
    const all = [...this.rows.values()].filter((row) => row.count > 0 || row.key === this.shown).sort((a, b) => b.usedAt - a.usedAt);
    this.search.hidden = all.length < SEARCH_FROM && !wanted;
    const rows = wanted ? all.filter((row) => `${row.title} ${this.nameOf(row.agent)}`.toLowerCase().includes(wanted)) : all;
    patch(this.element, [
      this.problem ? h("p", { class: "problem", "data-key": "problem" }, this.problem.message) : null,
      rows.length ? h("ul", { class: "conversations", "data-key": "rows" }, rows.map((row) => this.#rowNode(row)))
        : h("p", { class: "hint", "data-key": "none" }, !this.isLoaded ? "Loading…" : wanted ? "No conversation matches." : "What you talk about will be listed here."),
      this.hasMore ? h("button", { class: "button small quiet", type: "button", "data-action": "more", "data-key": "more" }, "Show older ones") : null,
    ]);
  }

  #rowNode(row) {
    const title = row.title || "New conversation";
    return h("li", { class: "conversation", "data-key": row.key },
      h("a", { href: `#/c/${row.session}/${row.id}`, "aria-current": row.key === this.shown ? "page" : null },
        h("span", { class: "conversation-title", title }, title),
        h("span", { class: "conversation-about" }, row.isRunning ? h("span", { class: "running" }, h("span", { class: "pulse", "aria-hidden": "true" }), "answering") : h("span", {}, this.nameOf(row.agent)), h("span", {}, clock(row.usedAt, { seconds: false })))),
      h("div", { class: "conversation-buttons" },
        h("button", { class: "button icon quiet", type: "button", "data-action": "rename", "aria-label": `Rename “${title}”`, title: "Rename" }, icon("edit")),
        h("button", { class: "button icon quiet", type: "button", "data-action": "remove", "aria-label": `Delete “${title}”`, title: "Delete" }, icon("remove"))));
  }

  #rowOf(element) {
    return this.rows.get(element.closest("li").dataset.key);
  }

  #more() {
    this.limit = Math.min(this.limit + PAGE, 200);
    this.refresh();
  }

  /** The open one is heard; others that run are looked at. */
  #later() {
    clearTimeout(this.timer);
    const running = [...this.rows.values()].filter((row) => row.isRunning && row.key !== this.shown);
    this.timer = setTimeout(() => (document.hidden ? this.#later() : running.length ? this.#look(running) : this.refresh()), running.length ? RUNNING_MS : IDLE_MS);
  }

  async #look(running) {
    const sessions = [...new Set(running.map((row) => row.session))].slice(0, 10);
    await Promise.all(sessions.map(async (id) => {
      try {
        const { session, conversations } = await getSession(id);
        for (const view of conversations) this.rows.set(`${id}/${view.id}`, rowOf(id, session.agent, view));
      } catch (error) {
        if (error.status === 404) for (const row of running) if (row.session === id) this.rows.delete(row.key);
      }
    }));
    for (const row of running) if (this.rows.get(row.key)?.isRunning === false) this.on.ended(this.rows.get(row.key));
    this.draw();
    this.#later();
  }
}

function rowOf(session, agent, view) {
  return { key: `${session}/${view.id}`, session, agent, id: view.id, title: view.title, usedAt: view.used_at, count: view.message_count, isRunning: Boolean(view.running || view.waiting.length) };
}
