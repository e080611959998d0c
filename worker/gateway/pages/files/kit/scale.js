// Axes: round steps for values and for time.

/** At most about `most` round values from 0 to at least `top`. */
export function valueTicks(top, most = 4, { whole = false } = {}) {
  if (!(top > 0)) return [0, 1];
  const rough = top / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(
    [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999),
    whole ? 1 : 0,
  );
  const ticks = [];
  for (let index = 0; index * step < top + step * 0.999; index += 1) ticks.push(Number((index * step).toPrecision(12)));
  return ticks;
}

const STEPS_S = [
  1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600,
];

/** Round local moments between two, in Unix seconds, at most `most`. */
export function timeTicks(from, to, most = 6) {
  const step = STEPS_S.find((candidate) => (to - from) / candidate <= most) || STEPS_S.at(-1);
  const offset = new Date(from * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) ticks.push(at);
  return { ticks, step };
}

/** How a tick of that step is written. */
export function timeLabel(at, step) {
  const date = new Date(at * 1000);
  if (step >= 86400) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return date.toLocaleTimeString("en-GB", step >= 60 ? { hour: "2-digit", minute: "2-digit" } : {});
}
