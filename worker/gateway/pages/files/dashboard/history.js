// The queue's recent past, fetched once for a span and then kept up by the feed's samples.

import { get } from "../kit/api.js";

const COLUMNS = [
  "ready",
  "running",
  "delayed",
  "dead",
  "oldest_ready_age_s",
  "workers",
  "slots",
  "tasks_per_minute",
  "tokens_per_minute",
  "cost_usd_per_hour",
];
const SPAN_S = { "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400 };
export const SPANS = { "15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h" };

export class History {
  constructor(span) {
    this.span = Object.hasOwn(SPAN_S, span ?? "") ? span : "15m";
    this.series = null;
  }

  async load() {
    const known = this.series;
    const series = await get(`/v1/ops/history?span=${this.span}`);
    // A gateway that was started anew has forgotten what this page still knows.
    const older = known ? known.at.findIndex((at) => at >= (series.at[0] ?? Infinity)) : 0;
    const kept = older < 0 ? known.at.length : older;
    if (kept) for (const name of ["at", ...COLUMNS]) series[name] = [...known[name].slice(0, kept), ...series[name]];
    this.series = series;
    this.#forgetOld();
  }

  /** Whether samples were missed before this one: in the background, or while the gateway was away. */
  isBehind(sample) {
    const last = this.series?.at.at(-1);
    return last !== undefined && sample !== undefined && sample.at - last > this.series.every_s * 3;
  }

  /** Take the feed's newest sample, and fetch those that were missed; `draw` is called when there is something new. */
  async follow(sample, draw) {
    if (this.isBehind(sample) && !this.isLoading) {
      this.isLoading = true;
      try {
        await this.load();
      } catch {
        // The newest one is shown all the same, with a gap before it; the next one asks again.
      } finally {
        this.isLoading = false;
      }
      this.add(sample);
      draw();
    } else if (!this.isLoading && this.add(sample)) draw();
  }

  /** Take the feed's newest sample; says whether it is new. */
  add(sample) {
    const { series } = this;
    if (!sample || !series || (series.at.length && sample.at < series.at.at(-1) + series.every_s * 0.7)) return false;
    series.at.push(sample.at);
    for (const name of COLUMNS) series[name].push(sample[name]);
    this.#forgetOld();
    return true;
  }

  #forgetOld() {
    const { at } = this.series;
    const gone = at.findIndex((one) => one >= at.at(-1) - SPAN_S[this.span]);
    if (gone > 0) for (const name of ["at", ...COLUMNS]) this.series[name].splice(0, gone);
  }

  /** What a plot shows of these columns. */
  columns(...names) {
    const { series } = this;
    if (!series) return { x: [], values: [] };
    const to = Math.max(series.at.at(-1) ?? 0, Date.now() / 1000 - 5);
    // A gateway that began a moment ago would show a thin line at the edge of an empty hour.
    const from = Math.max(to - SPAN_S[this.span], Math.min(series.at[0] ?? to, to - 120));
    return { x: series.at, values: names.map((name) => series[name]), every: series.every_s, from, to };
  }
}
