// Phases of runs and steps, and their colours.

export const PHASE_TONES = {
  Pending: "",
  Running: "accent",
  Validating: "accent",
  Waiting: "warn",
  Succeeded: "good",
  Failed: "bad",
  Skipped: "",
  Cancelled: "bad",
};
export const FINAL = new Set(["Succeeded", "Failed", "Skipped", "Cancelled"]);

export const runHref = (id) => `#/runs/${encodeURIComponent(id)}`;
export const teamHref = (slug, namespace = "") =>
  `#/teams/${encodeURIComponent(slug)}${namespace ? `?namespace=${encodeURIComponent(namespace)}` : ""}`;

/** Seconds from the beginning to the end, or until now; null: it has not begun. */
export function took(of, now) {
  if (!of.started_at) return null;
  return Math.max(0, (of.ended_at || now) - of.started_at);
}
