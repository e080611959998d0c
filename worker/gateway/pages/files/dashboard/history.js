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
    this.span = span in SPAN_S ? span : "15m";
    this.series = null;
  }

  async load() {
    this.series = await get(`/v1/ops/history?span=${this.span}`);
  }

  /** Take the feed's newest sample; says whether it is new. */
  add(sample) {
    const { series } = this;
    if (!sample || !series || (series.at.length && sample.at < series.at.at(-1) + series.every_s * 0.7)) return false;
    series.at.push(sample.at);
    for (const name of COLUMNS) series[name].push(sample[name]);
    const oldest = sample.at - SPAN_S[this.span];
    const gone = series.at.findIndex((at) => at >= oldest);
    if (gone > 0) for (const name of ["at", ...COLUMNS]) series[name].splice(0, gone);
    return true;
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
