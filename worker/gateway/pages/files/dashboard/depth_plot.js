// The plot of how many tasks are ready, running and delayed.

import { short } from "../kit/format.js";
import { Plot } from "../kit/plot.js";

export function depthPlot(title) {
  return new Plot({
    title,
    format: short,
    whole: true,
    series: [
      { name: "ready", tone: 1 },
      { name: "running", tone: 2 },
      { name: "delayed", tone: 3 },
    ],
    empty: "No samples yet: the gateway takes one every two seconds.",
  });
}
