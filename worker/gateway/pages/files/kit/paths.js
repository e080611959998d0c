// Lines of a plot as SVG paths. A gap in the points is a gap in the line.

/** Points in runs without a gap: a value that is missing ends one, and so does a step in x of more than `most`. */
export function runsOf(xs, values, point, most = Infinity) {
  const runs = [];
  let run = [];
  values.forEach((value, index) => {
    const isMissing = value === null || value === undefined;
    const isAfterGap = index > 0 && xs[index] - xs[index - 1] > most;
    if ((isMissing || isAfterGap) && run.length) {
      runs.push(run);
      run = [];
    }
    if (!isMissing) run.push(point(index, value));
  });
  return run.length ? [...runs, run] : runs;
}

/** The line through each run; a single point is a dash. */
export function linePath(runs) {
  return runs.map((run) => `M${run.map(written).join("L")}${run.length === 1 ? "h1.5" : ""}`).join("");
}

/** The area between each run and the floor. */
export function areaPath(runs, floor) {
  return runs
    .map((run) => `M${written([run[0][0], floor])}L${run.map(written).join("L")}L${written([run.at(-1)[0], floor])}Z`)
    .join("");
}

function written([x, y]) {
  return `${x.toFixed(1)} ${y.toFixed(1)}`;
}
