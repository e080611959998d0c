// The conversation that is open: what was said in it, and what is being said.
//
// History comes from the messages API; the events that follow it tell what happens from there on, a running answer from
// its beginning. Whoever loads the page again, here or elsewhere, sees the same.

import { follow } from "../kit/sse.js";
import { askAgain, eventsPath, getMessages, getSession, newId, postMessage, stopAnswer } from "./api.js";
import { Entry } from "./entry.js";
import { wordsFor } from "./words.js";

const LOST_MS = 2000; // so long the end of an answer may take to be heard; then it is read
const SETTLED_MS = 2000; // after it, what begins is no replay

export class Conversation {
  /** `on`: {change(entry | null), state(state, error), info(view), gone(text), heard(entry, chunk)}. */
  constructor(session, id, on) {
    this.session = session;
    this.id = id;
    this.on = on;
    this.title = "";
    this.agent = "";
    this.isClosed = false; // takes no more messages
    this.isLoaded = false;
    this.hasOlder = false;
    this.older = [];
    this.recent = [];
    this.liveSince = 0;
    this.hasLeft = false;
    this.syncing = null;
    this.lost = 0;
  }

  get entries() {
    return [...this.older, ...this.recent];
  }

  get last() {
    return this.recent.at(-1);
  }

  get isRunning() {
    return this.recent.some((entry) => entry.isPending);
  }

  /** Read it, and follow it. Throws `ApiError`. */
  async load() {
    const [whole, page] = await Promise.all([getSession(this.session), getMessages(this.session, this.id)]);
    if (this.hasLeft) return;
    this.#learnSession(whole.session);
    const view = whole.conversations.find((one) => one.id === this.id);
    if (view) this.#learnView(view);
    this.#merge(page);
    this.isLoaded = true;
    this.on.change(null);
    this.stream = follow(eventsPath(this.session, page.last_event_id), {
      onEvent: (event) => this.#take(event),
      onState: (state, error) => this.#stateIs(state, error),
    });
  }

  leave() {
    this.hasLeft = true;
    clearTimeout(this.lost);
    this.stream?.close();
  }

  async loadOlder() {
    const [first] = this.entries;
    const page = await getMessages(this.session, this.id, first.taskId);
    this.older = [...page.messages.map(entryOf), ...this.older];
    this.hasOlder = page.has_more;
    this.on.change(null);
  }

  // What the reader does

  async send(content, entry = null) {
    const sent = entry ?? new Entry({ content, messageId: newId(), at: Date.now() / 1000 });
    if (!entry) this.recent.push(sent);
    Object.assign(sent, { state: "sending", problem: "", isTimed: true });
    this.on.change(null);
    try {
      this.#accepted(sent, await postMessage(this.session, this.id, sent.content, sent.messageId));
    } catch (error) {
      if (sent.state !== "sending") return; // its answer was heard: it came through
      Object.assign(sent, { state: "unsent", problem: wordsFor(error) });
    }
    this.on.change(sent);
  }

  /** Take back what could not be sent; returns its text. */
  withdraw(entry) {
    this.recent = this.recent.filter((one) => one !== entry);
    this.on.change(null);
    return entry.content;
  }

  /** Ask the last message again. Throws `ApiError`. */
  async again() {
    const before = this.last;
    const entry = new Entry({ content: before.content, messageId: newId(), state: "sending", at: Date.now() / 1000 });
    Object.assign(entry, { images: before.images, isTimed: true });
    this.recent = [...this.recent.slice(0, -1), entry];
    this.on.change(null);
    try {
      this.#accepted(entry, await askAgain(this.session, this.id, entry.messageId));
      this.on.change(entry);
    } catch (error) {
      if (entry.state !== "sending") return;
      this.recent = this.recent.map((one) => (one === entry ? before : one));
      this.on.change(null);
      throw error;
    }
  }

  /** Stop the answer; returns the texts of messages that waited behind it. Throws `ApiError`. */
  async stop() {
    const queued = this.recent.filter((entry) => entry.state === "queued"); // the news of it may come before the answer
    const { message_ids: ids } = await stopAnswer(this.session, this.id);
    const waited = queued.filter((entry) => entry.state === "queued" && ids.includes(entry.messageId));
    this.recent = this.recent.filter((entry) => !waited.includes(entry));
    this.on.change(null);
    return waited.map((entry) => entry.content);
  }

  #accepted(entry, answer) {
    entry.taskId ||= answer.task_id;
    if (entry.state === "sending") entry.state = answer.state === "queued" ? "queued" : "running";
  }

  // What happens

  #take({ event, data }) {
    const isOurs = data?.conversation_id === this.id;
    if (event === "chunk" && isOurs) this.#heard(data);
    else if (event === "message" && isOurs) this.#begun(data);
    else if (event === "missed" && isOurs) this.#sync();
    else if (event === "session") this.#learnSession(data);
    else if (event === "conversation") {
      if (data.id === this.id) this.#learnView(data);
      this.on.info({ ...data, session: this.session, agent: this.agent });
    } else if (event === "conversation_deleted" && data.id === this.id) {
      this.on.gone("This conversation was deleted.");
      return false;
    }
    return true;
  }

  #heard(chunk) {
    const entry = this.recent.find((one) => one.isSame(chunk));
    if (!entry) return this.#sync();
    if (!entry.hear(chunk)) return;
    this.on.heard(entry, chunk);
    this.on.change(entry);
  }

  #begun(message) {
    let entry = this.recent.find((one) => one.isSame(message));
    if (!entry) {
      entry = new Entry({
        content: message.content,
        messageId: message.message_id,
        taskId: message.task_id,
        state: "running",
        at: Date.now() / 1000,
      });
      const waiting = this.recent.findIndex((one) => one.state === "queued" || one.state === "unsent");
      this.recent.splice(waiting < 0 ? this.recent.length : waiting, 0, entry);
      this.#sync(); // somebody else said it, and may have taken back what was before it
    }
    entry.taskId = message.task_id;
    entry.messageId = message.message_id;
    entry.isTimed ||= this.liveSince > 0 && Date.now() - this.liveSince > SETTLED_MS;
    if (entry.isPending) entry.state = "running";
    this.on.change(null);
  }

  #learnSession(view) {
    this.agent = view.agent;
    this.isClosed = view.is_closed;
  }

  #learnView(view) {
    this.title = view.title;
    const known = [...(view.running ? [view.running] : []), ...view.waiting];
    this.recent = this.recent.filter((entry) => entry.state !== "queued" || known.some((one) => entry.isSame(one)));
    for (const waiting of view.waiting) {
      if (this.recent.some((entry) => entry.isSame(waiting))) continue;
      this.recent.push(new Entry({ content: waiting.content, messageId: waiting.message_id, at: waiting.at }));
    }
    const isLost = (entry) => entry.state === "running" && !known.some((one) => entry.isSame(one));
    clearTimeout(this.lost);
    if (this.recent.some(isLost)) this.lost = setTimeout(() => this.recent.some(isLost) && this.#sync(), LOST_MS);
    this.on.change(null);
  }

  #stateIs(state, error) {
    this.liveSince = state === "live" ? Date.now() : 0;
    if (state === "failed" && (error?.status === 404 || error?.status === 410)) this.on.gone(wordsFor(error));
    this.on.state(state, error);
  }

  /** Read the messages anew; what is heard meanwhile is kept. */
  #sync() {
    this.syncing ??= getMessages(this.session, this.id)
      .then((page) => {
        if (this.hasLeft) return;
        this.#merge(page);
        this.on.change(null);
      })
      .catch((error) => this.on.state("reconnecting", error))
      .finally(() => {
        this.syncing = null;
      });
  }

  #merge(page) {
    const from = this.recent.findIndex((entry) => page.messages[0] && entry.isSame(page.messages[0]));
    if (page.has_more && from >= 0) this.older.push(...this.recent.slice(0, from));
    else {
      this.older = [];
      this.hasOlder = page.has_more;
    }
    const known = this.recent;
    const fresh = page.messages.map((message) => {
      const entry = known.find((one) => one.isSame(message));
      entry?.learn(message);
      return entry ?? entryOf(message);
    });
    const ours = known.filter((entry) => !fresh.includes(entry) && (entry.isPending || entry.state === "unsent"));
    this.recent = [...fresh, ...ours];
  }
}

function entryOf(message) {
  const entry = new Entry({ state: message.state });
  entry.state = "queued";
  entry.learn(message);
  return entry;
}
