// The agents that the reader may talk to.

import { get } from "../kit/api.js";

const MOST = 200;
const STORED = "shoal.agent";

export class Agents {
  constructor() {
    this.all = [];
    this.total = 0;
    this.isLoaded = false;
  }

  /** Throws `ApiError`. */
  async load() {
    const page = await get(`/v1/agents?is_active=true&limit=${MOST}`);
    this.all = page.items;
    this.total = page.total;
    this.isLoaded = true;
  }

  /** Those whose name or description has the text: of many, the gateway looks. */
  async find(text) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return this.all;
    if (this.total > this.all.length) return (await get(`/v1/agents?is_active=true&limit=50&text=${encodeURIComponent(text.trim())}`)).items;
    return this.all.filter((agent) => [agent.slug, agent.name, agent.description].some((part) => part.toLowerCase().includes(wanted)));
  }

  bySlug(slug) {
    return this.all.find((agent) => agent.slug === slug) ?? null;
  }

  nameOf(slug) {
    return this.bySlug(slug)?.name ?? slug;
  }

  /** Whether it is known that nobody can talk to it now. */
  isMissing(slug) {
    return this.isLoaded && this.total <= this.all.length && !this.bySlug(slug);
  }

  /** The one that was chosen last, or the first. */
  get usual() {
    return this.bySlug(localStorage.getItem(STORED)) ?? this.bySlug("default") ?? this.all[0] ?? null;
  }

  remember(slug) {
    localStorage.setItem(STORED, slug);
  }
}
