// States of a task and their colours.

export const STATE_TONES = {
  ready: "",
  delayed: "warn",
  running: "accent",
  succeeded: "good",
  failed: "bad",
  cancelled: "",
  unknown: "",
};
export const ENDED = new Set(["succeeded", "failed", "cancelled"]);
