// What the dashboard knows of the fleet: the newest form of each part of the feed, and who asks.

import { get } from "../kit/api.js";
import { follow } from "../kit/sse.js";

export class Fleet {
  constructor() {
    this.parts = new Map();
    this.about = null;
    this.listeners = new Set();
    this.stateListeners = new Set();
    this.changed = new Set();
    this.frame = 0;
    /** Resolves to who asks, once that is known. */
    this.ready = new Promise((resolve) => {
      this.isKnown = resolve;
    });
  }

  /** The newest form of a part, or undefined. */
  part(name) {
    return this.parts.get(name);
  }

  get queue() {
    return this.parts.get("queue");
  }

  /** The gateway's clock, which may differ from this computer's. Unix seconds. */
  get now() {
    return this.parts.get("queue")?.at ?? Date.now() / 1000;
  }

  may(scope) {
    return Boolean(this.about?.scopes.includes(scope));
  }

  /** What touches other tenants is refused to callers that are bound to one. */
  get mayChangeFleet() {
    return this.may("ops.write") && !this.about?.tenant;
  }

  onChange(listener) {
    this.listeners.add(listener);
  }

  onState(listener) {
    this.stateListeners.add(listener);
  }

  /** Follow the feed for as long as the page stands, and ask who asks whenever it has connected: the key, or what it
   * may do, can be another one then. `onError` hears why that is not known. */
  start(onError) {
    follow("/v1/ops/events", {
      onEvent: ({ event, data }) => this.take(event, data),
      onState: (state, error) => {
        this.stateListeners.forEach((listener) => listener(state, error));
        if (state === "live") this.#ask().catch(onError);
      },
    });
  }

  async #ask() {
    this.about = await get("/v1/ops/about");
    this.isKnown(this.about);
    this.#tell("about");
  }

  /** A part's new form; what comes in quick succession is told at once. */
  take(name, value) {
    this.parts.set(name, value);
    this.#tell(name);
  }

  #tell(name) {
    this.changed.add(name);
    if (this.frame) return;
    // A page in the background draws no frames; it need not be told either.
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const { changed } = this;
      this.changed = new Set();
      this.listeners.forEach((listener) => listener(changed));
    });
  }
}
