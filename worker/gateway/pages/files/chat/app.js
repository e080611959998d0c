// The chat page's frame: which conversation is open, and what the reader does with it.
//
// Routes are in the address' hash: `#/c/SESSION/CONVERSATION`, `#/new`, `#/new/AGENT`.

import { onKeyWanted } from "../kit/api.js";
import { keyButton, themeButton } from "../kit/corner.js";
import { askForKey, askForText, confirm } from "../kit/dialog.js";
import { h } from "../kit/dom.js";
import { done, failed } from "../kit/notice.js";
import { Agents } from "./agents.js";
import { Announcer } from "./announcer.js";
import { deleteConversation, deleteSession, openSession, renameConversation } from "./api.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { ConversationList } from "./conversation_list.js";
import { Drawer } from "./drawer.js";
import { icon } from "./icons.js";
import { Picker } from "./picker.js";
import { Thread } from "./thread.js";
import { wordsFor } from "./words.js";

const STATES = { connecting: "connecting", live: "live", reconnecting: "reconnecting", failed: "not connected", ended: "not connected" };
const ENDINGS = { done: "End of the answer.", failed: "The answer failed.", cancelled: "The answer was stopped." };

const byId = (id) => document.getElementById(id);
const askKey = (reason = "") => askForKey(reason, "agents.use");

class App {
  constructor() {
    this.agents = new Agents();
    this.announcer = new Announcer();
    this.conversation = null;
    this.agent = null;
    this.thread = new Thread({
      older: () => this.#try(() => this.conversation.loadOlder()),
      again: () => this.#again(),
      sendAgain: (entry) => this.#send(entry.content, entry),
      edit: (entry) => this.#edit(entry),
    });
    this.picker = new Picker(this.agents, {
      choose: (agent) => this.#choose(agent),
      example: (text) => {
        this.composer.write(text);
        this.composer.focus({ always: true });
      },
    });
    this.composer = new Composer({ send: (text) => this.#send(text), stop: () => this.#stop() });
    this.list = new ConversationList(byId("list"), byId("search"), (slug) => this.agents.nameOf(slug), {
      rename: (row) => this.#rename(row),
      remove: (row) => this.#remove(row),
      ended: (row) => this.announcer.say(`The answer in “${row.title}” is there.`),
    });
    this.trouble = h("div", { class: "trouble", hidden: true });
    byId("main").append(this.trouble, this.picker.element, this.thread.element, this.composer.element, this.announcer.element);
    this.drawer = new Drawer({ side: byId("side"), rest: byId("rest"), button: byId("drawer"), close: byId("close"), shade: byId("shade") });
  }

  async start() {
    window.addEventListener("hashchange", () => this.show());
    byId("new").addEventListener("click", () => this.#leaveDrawer());
    byId("list").addEventListener("click", (event) => event.target.closest("a") && this.#leaveDrawer());
    const agents = this.#try(() => this.agents.load());
    const list = this.list.refresh();
    await Promise.all([this.show(), agents.then(() => this.#agentsAreThere()), list]);
  }

  /** What the address asks for. */
  async show() {
    const [kind, first = "", second = ""] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    if (kind === "c" && first && second) return this.#open(first, second);
    return this.#openNew(kind === "new" ? first : "");
  }

  // Places

  #openNew(slug) {
    this.#leave();
    this.wanted = slug;
    this.#place({ isNew: true, title: "New conversation" });
    this.list.open(null);
    this.composer.open("new");
    this.composer.set({ isRunning: false, refusal: "", isBusy: !this.agents.isLoaded });
    this.picker.open(slug);
    this.#stateIs(null);
    this.composer.focus();
  }

  async #open(session, id) {
    if (this.conversation?.session === session && this.conversation.id === id) return;
    const conversation = this.#attach(session, id);
    const row = this.list.rows.get(`${session}/${id}`);
    this.#place({ title: row?.title ?? "Conversation", agent: row?.agent });
    this.thread.showAbove([h("p", { class: "hint" }, "Loading…")]);
    this.composer.set({ isBusy: true });
    try {
      await conversation.load();
      if (this.conversation !== conversation) return;
      this.composer.set({ isBusy: false });
      this.#drawConversation();
      this.thread.follower.jump();
      this.composer.focus();
    } catch (error) {
      if (this.conversation === conversation) this.#cannotOpen(error);
    }
  }

  #attach(session, id) {
    this.#leave();
    const conversation = new Conversation(session, id, {
      change: (entry) => this.#changed(conversation, entry),
      state: (state, error) => this.conversation === conversation && this.#stateIs(state, error),
      info: (view) => this.list.learn(view.session, view.agent, view),
      gone: (text) => this.conversation === conversation && this.#gone(text),
      heard: (entry, chunk) => this.#heard(entry, chunk),
    });
    this.conversation = conversation;
    this.thread.open(conversation);
    this.list.open(`${session}/${id}`);
    this.composer.open(id);
    this.composer.set({ isRunning: false, refusal: "", isBusy: false });
    return conversation;
  }

  #leave() {
    this.conversation?.leave();
    this.conversation = null;
    this.thread.close();
    this.announcer.begin();
  }

  #place({ isNew = false, trouble = null, title, agent = "" }) {
    this.picker.element.hidden = !isNew;
    this.thread.element.hidden = isNew || Boolean(trouble);
    this.composer.element.hidden = Boolean(trouble);
    this.trouble.hidden = !trouble;
    this.trouble.replaceChildren(...(trouble ?? []));
    this.#title(title, agent);
  }

  #title(title, agent) {
    byId("title").textContent = title;
    byId("agent").textContent = agent ? this.agents.nameOf(agent) : "";
    byId("agent").hidden = !agent;
    document.title = `${title} · Shoal chat`;
  }

  #cannotOpen(error) {
    const again = h("button", { class: "button primary", type: "button", click: () => this.#openAgain() }, "Try again");
    this.#trouble(wordsFor(error), error.status === 404 ? null : again);
  }

  #openAgain() {
    const { session, id } = this.conversation;
    this.conversation = null;
    this.#open(session, id);
  }

  #gone(text) {
    const { session, id } = this.conversation;
    this.conversation.leave();
    this.list.forget(`${session}/${id}`);
    this.#trouble(text, null);
  }

  #trouble(text, button) {
    const link = h("a", { class: "button", href: "#/new" }, "New conversation");
    this.#place({ title: "Conversation", trouble: [h("p", { role: "alert" }, text), h("div", { class: "tools" }, button ?? "", link)] });
    this.#stateIs(null);
  }

  #agentsAreThere() {
    this.list.draw();
    if (!this.conversation) {
      this.composer.set({ isBusy: !this.agents.isLoaded });
      if (this.agents.isLoaded) this.picker.open(this.wanted);
      else this.picker.tell([h("div", { class: "tools" }, h("button", { class: "button", type: "button", click: () => location.reload() }, "Try again"))]);
    } else if (this.conversation.isLoaded) this.#drawConversation();
  }

  // What the reader does

  #choose(agent) {
    this.agent = agent;
    byId("agent").textContent = agent.name;
    byId("agent").hidden = false;
  }

  async #send(text, entry = null) {
    if (!this.conversation) return this.#begin(text);
    this.thread.follower.jump();
    const sending = this.conversation.send(text, entry);
    this.composer.focus();
    await sending;
    this.list.refresh();
  }

  async #begin(text) {
    if (!this.agent) {
      this.composer.write(text);
      return this.composer.tell("Choose an agent first.");
    }
    this.composer.set({ isBusy: true });
    let whole;
    try {
      whole = await openSession(this.agent.slug);
    } catch (error) {
      this.composer.write(text);
      this.composer.set({ isBusy: false });
      return this.composer.tell(wordsFor(error));
    }
    this.agents.remember(this.agent.slug);
    const { session, conversations: [view] } = whole;
    history.pushState(null, "", `#/c/${session.id}/${view.id}`);
    this.list.learn(session.id, session.agent, view);
    const conversation = this.#attach(session.id, view.id);
    this.#place({ title: "New conversation", agent: session.agent });
    conversation.send(text).then(() => this.list.refresh());
    this.composer.focus();
    try {
      await conversation.load();
    } catch (error) {
      if (this.conversation === conversation) this.#cannotOpen(error);
    }
  }

  async #stop() {
    this.composer.focus();
    const texts = await this.#try(() => this.conversation.stop());
    if (texts?.length && !this.composer.text.trim()) this.composer.write(texts.join("\n\n"));
  }

  async #again() {
    this.composer.focus();
    this.thread.follower.jump();
    await this.#try(() => this.conversation.again());
  }

  #edit(entry) {
    this.composer.write(this.conversation.withdraw(entry));
    this.composer.focus({ always: true });
  }

  async #rename(row) {
    const title = await askForText({ title: "Rename the conversation", label: "Title", value: row.title, action: "Rename" });
    if (!title) return;
    const view = await this.#try(() => renameConversation(row.session, row.id, title));
    if (!view) return;
    this.list.learn(row.session, row.agent, view);
    if (this.conversation?.id === row.id) {
      this.conversation.title = title;
      this.#drawConversation();
    }
  }

  async #remove(row) {
    const running = row.isRunning ? " The answer that is being written is stopped." : "";
    if (!(await confirm({ title: "Delete this conversation?", text: `“${row.title || "New conversation"}” is deleted with all that was said in it, for good.${running}`, action: "Delete", danger: true }))) return;
    const isAlone = !this.list.beside(row).length;
    const isOpen = this.list.shown === row.key;
    if (isOpen) this.conversation?.leave();
    const isDone = await this.#try(async () => {
      await (isAlone ? deleteSession(row.session) : deleteConversation(row.session, row.id));
      return true;
    });
    if (!isDone) return;
    this.list.forget(row.key);
    done("The conversation was deleted.");
    if (!isOpen) return this.composer.focus();
    history.replaceState(null, "", "#/new");
    this.#leaveDrawer();
    this.show();
  }

  #leaveDrawer() {
    this.drawer.close({ giveFocus: false });
  }

  async #try(work) {
    try {
      return await work();
    } catch (error) {
      failed(wordsFor(error));
      return null;
    }
  }

  // What happens

  #changed(conversation, entry) {
    if (this.conversation !== conversation) return;
    this.thread.change(entry);
    this.#drawConversation();
  }

  #drawConversation() {
    const { title, agent, isClosed, isRunning, isLoaded } = this.conversation;
    if (isLoaded && agent) this.#title(title || "New conversation", agent);
    const refusal = isClosed ? "This conversation is closed: it can be read, but takes no more messages."
      : this.agents.isMissing(agent) && isLoaded ? "This agent is not there any more, or it is switched off: the conversation can be read, but not gone on with." : "";
    this.composer.set({ isRunning, refusal });
  }

  #heard(entry, chunk) {
    if (chunk.seq === 0) this.announcer.begin("The agent answers.");
    if (chunk.type === "TOOL_CALL") this.announcer.say(`Uses the tool ${chunk.metadata.name || chunk.content}.`);
    if (chunk.type === "CONTENT" && entry.isTimed) this.announcer.progress(entry.text);
    if (chunk.is_final) this.announcer.end(entry.text, ENDINGS[entry.state] ?? "");
  }

  #stateIs(state, error) {
    const live = byId("live");
    live.hidden = state === null;
    if (state === null) return;
    const text = state === "failed" && error ? wordsFor(error) : STATES[state];
    live.className = `live is-${state}`;
    if (live.textContent !== text) live.textContent = text;
  }
}

onKeyWanted(askKey);
themeButton(byId("theme"));
keyButton(byId("key"), askKey);
byId("drawer").append(icon("list"));
byId("close").append(icon("close"));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("input").focus();
});
new App().start();
