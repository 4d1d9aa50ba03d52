"use strict";
// The best cells of a grid under limits. The rule is that of results/choice.py, the texts are those of
// render/choosing.py; a test in tests/browser compares all of it.
(() => {
  const number = (value) => {
    const text = String(Number(value.toPrecision(4)));
    return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : text;
  };
  // An end that is unknown is undefined: every comparison with it is false.
  const estimate = (cell, figure) => ({ value: cell[figure.name], low: cell[figure.low], high: cell[figure.high] });
  const text = ({ value, low, high }) => {
    if (value === undefined) return "";
    if (low === undefined) return `${number(value)} ±?`;
    return number(low) === number(high) ? number(value) : `${number(value)} (${number(low)} to ${number(high)})`;
  };
  const verdict = (cell, limit) => {
    const { value, high } = estimate(cell, limit.figure);
    if (value === undefined) return "unknown";
    return value > limit.most ? "exceeds" : high <= limit.most ? "meets" : "perhaps";
  };

  const choose = (all, goal, limits) => {
    const higher = goal.better === "higher";
    const cells = all.filter((cell) => goal.name in cell);
    cells.sort((a, b) => (higher ? b[goal.name] - a[goal.name] : a[goal.name] - b[goal.name]));
    const are = (cell, ...wanted) => limits.every((limit) => wanted.includes(verdict(cell, limit)));
    const meet = cells.filter((cell) => are(cell, "meets"));
    const perhaps = cells.filter((cell) => are(cell, "meets", "perhaps") && !are(cell, "meets"));
    const first = meet[0] ?? perhaps[0];
    const mayEqual = (cell) => {
      const [one, other] = [estimate(cell, goal), estimate(first, goal)];
      return higher ? one.high >= other.low || one.value >= other.value : one.low <= other.high || one.value <= other.value;
    };
    const factor = (cell, limit) => cell[limit.figure.name] / limit.most;
    const worst = (cell) => limits.reduce((a, b) => (factor(cell, b) > factor(cell, a) ? b : a));
    const known = first ? [] : cells.filter((cell) => !limits.some((limit) => verdict(cell, limit) === "unknown"));
    const nearest = known.length ? known.reduce((a, b) => (factor(b, worst(b)) < factor(a, worst(a)) ? b : a)) : null;
    return {
      cells,
      best: meet.filter(mayEqual),
      perhaps: perhaps.filter(mayEqual),
      nearest: nearest && { cell: nearest, limit: worst(nearest) },
    };
  };

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const choosing = read("choosing");
  const answer = (points, wanted) => {
    const own = points.filter((point) => point.outcome === "ok" && !point.baseline);
    const plausible = own.filter((cell) => !cell.warnings?.includes(choosing.above_limit));
    const { goal, limits, price, carbon } = wanted;
    const chosen = choose(plausible, goal, limits);
    const name = (cell) => `${cell.series} batch ${cell.batch_size}`;
    const lines = [];
    if (!chosen.best.length && chosen.cells.length)
      lines.push(`No cell meets the limits${chosen.perhaps.length ? " for certain" : ""}.`);
    if (chosen.nearest) {
      const { cell, limit } = chosen.nearest;
      const value = cell[limit.figure.name];
      lines.push(`Nearest: ${name(cell)}, ${number(value / limit.factor)} ${limit.label}, ${number(value / limit.most)} times the limit.`);
    }
    for (const limit of limits) {
      const verdicts = chosen.cells.map((cell) => verdict(cell, limit));
      const unknown = verdicts.filter((each) => each === "unknown").length;
      const excluded = verdicts.filter((each) => each === "exceeds").length + unknown;
      const why = unknown ? `, ${unknown} of them because the figure is unknown.` : ".";
      if (excluded) lines.push(`At most ${number(limit.given)} ${limit.label}: excludes ${excluded} of ${verdicts.length} cells${why}`);
    }
    const without = plausible.length - chosen.cells.length;
    if (without) lines.push(`Cells without the figure of the goal: ${without}.`);
    const columns = new Set(plausible.map((cell) => cell.series)).size;
    if (columns > 1 && !limits.some((limit) => choosing.quality.includes(limit.figure.name)))
      lines.push(choosing.quality.some((name) => plausible.some((cell) => name in cell))
        ? "No limit on the quality of answers is given."
        : "The quality of answers is not known.");
    const above = own.length - plausible.length;
    if (above) lines.push(`Cells left out because they are faster than their machine can be (${choosing.above_limit}): ${above}.`);

    const all = [goal, ...choosing.shown.filter((figure) => figure.name !== goal.name)];
    const shown = all.filter((figure) => plausible.some((cell) => figure.name in cell));
    const headings = ["choice", "cell", ...shown.map((figure) => figure.heading)];
    if (price) headings.push("price per million tokens");
    if (carbon) headings.push("g CO2 per million tokens");
    const row = (rank, cell) => {
      const map = ({ value, low, high }, change) => ({ value: value && change(value), low: low && change(low), high: high && change(high) });
      const inUnit = (figure) => map(estimate(cell, figure), (value) => value * figure.times);
      const texts = [rank, name(cell), ...shown.map((figure) => text(inUnit(figure)))];
      const [speed, energy] = [estimate(cell, choosing.throughput), estimate(cell, choosing.energy)];
      const cost = (rate) => (price / 3600) * 1e6 / rate;
      if (price) texts.push(text(map({ value: speed.value, low: speed.high, high: speed.low }, cost)));
      if (carbon) texts.push(text(map(energy, (joules) => (joules * 1e6 / 3.6e6) * carbon)));
      return [...texts, (cell.warnings ?? []).join(", ")];
    };
    const rows = [
      ...chosen.best.map((cell, n) => row(n ? "as good" : "best", cell)),
      ...chosen.perhaps.map((cell) => row("perhaps", cell)),
    ];
    return { lines, headings: [...headings, "warnings"], rows };
  };

  const make = (tag, content, attributes = {}) => {
    const element = document.createElement(tag);
    element.append(...[content].flat());
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const show = (panel, points) => {
    const given = (input) => Math.max(0, Number(input.value)); // 0: not given
    const inputs = panel.querySelectorAll(".limit");
    const limits = choosing.limits.map((limit, n) => ({ ...limit, given: given(inputs[n]), most: given(inputs[n]) * limit.factor }));
    const { lines, headings, rows } = answer(points, {
      goal: choosing.goals.find((goal) => goal.name === panel.querySelector(".goal").value),
      limits: limits.filter((limit) => limit.given),
      price: given(panel.querySelector(".price")),
      carbon: given(panel.querySelector(".carbon")),
    });
    const head = make("thead", make("tr", headings.map((each) => make("th", each, { scope: "col" }))));
    const body = make("tbody", rows.map(([rank, cell, ...texts]) =>
      make("tr", [make("td", rank), make("th", cell, { scope: "row" }), ...texts.map((each) => make("td", each))])));
    const table = make("table", [head, body], { class: "facts" });
    const scroll = make("div", table, { class: "scroll", tabindex: "0", role: "region", "aria-label": "The best cells" });
    panel.querySelector(".answer").replaceChildren(...lines.map((line) => make("p", line)), ...(rows.length ? [scroll] : []));
  };
  // A page of many grids reads the data of each when its panel comes near.
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      const { points } = read(`${target.closest(".grid").id}-data`);
      target.addEventListener("input", () => show(target, points));
      show(target, points);
    }
  }, { rootMargin: "200px" });
  for (const panel of document.querySelectorAll(".choose")) {
    panel.hidden = false;
    watcher.observe(panel);
  }
})();
