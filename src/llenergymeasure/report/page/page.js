"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { figures, plane } = data;
  const at = (id) => document.getElementById(id);
  const short = (value) => (value === null || value === undefined ? "-" : Number(value.toPrecision(4)).toString());
  const interval = (one, i) => {
    if (one.mean[i] === null) return "-";
    const ends = one.low[i] === null ? "" : ` (${short(one.low[i])} to ${short(one.high[i])})`;
    return short(one.mean[i]) + ends;
  };

  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { labelColor: "currentColor", titleColor: "currentColor", gridColor: "currentColor", gridOpacity: 0.15,
      domainColor: "currentColor", tickColor: "currentColor", labelFontSize: 12, titleFontSize: 12 },
    legend: { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12 },
    rule: { color: "#2f7fc1" }, line: { color: "#2f7fc1" }, point: { color: "#2f7fc1" },
    range: { category: ["#2f7fc1", "#d1603d", "#1f9e77", "#b565a7", "#c98a00", "#4fb3d9", "#8a7a2f", "#8a8f98"] },
  };
  const draw = (id, spec, datasets) => vegaEmbed(at(id), { ...spec, datasets, config }, {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });

  const table = (where, heads, rows) => {
    const made = document.createElement("table");
    const add = (parent, tag, text) => {
      const cell = parent.appendChild(document.createElement(tag));
      if (text !== undefined) cell.textContent = text;
      return cell;
    };
    const head = add(add(made, "thead"), "tr");
    heads.forEach((one) => { add(head, "th", one).scope = "col"; });
    const body = add(made, "tbody");
    rows.forEach((row) => { const line = add(body, "tr"); row.forEach((cell) => add(line, "td", cell)); });
    const wide = document.createElement("div");
    wide.className = "wide";
    wide.tabIndex = 0;
    wide.append(made);
    where.querySelector(".wide")?.remove();
    where.append(wide);
  };
  // A table is made when it is opened, so that a thousand rows cost nothing before.
  const tables = new Map();
  const lazily = (id, make) => {
    tables.set(id, make);
    if (at(id).open) make();
  };
  for (const id of ["points", "pairs"]) at(id).addEventListener("toggle", () => { if (at(id).open) tables.get(id)?.(); });
  addEventListener("beforeprint", () => { for (const [id, make] of tables) { at(id).open = true; make(); } });

  // Speed against cost ------------------------------------------------------------------------
  const across = figures[plane.x], up = figures[plane.y];
  const speed = plane.inverse ? (value) => (value > 0 ? 1000 / value : null) : (value) => value;
  const points = data.names.flatMap((name, i) => {
    const x = across.mean[i] === null ? null : speed(across.mean[i]), y = up.mean[i];
    if (x === null || y === null || !(y > 0)) return [];
    const ends = across.low[i] === null ? [null, null] : [speed(across.low[i]), speed(across.high[i])];
    // A bar whose interval reaches nought or less runs on to a tenth or ten times of its point.
    const [a, b] = plane.inverse ? [ends[1], across.low[i] === null ? null : ends[0] ?? x * 10] : ends;
    return [{
      index: i, name, label: data.labels[i], series: data.seriesNames[data.series[i]], order: data.order[i],
      x, y, xLow: a, xHigh: b, yLow: up.low[i] === null ? null : Math.max(up.low[i], y / 10), yHigh: up.high[i],
      xText: a === null ? short(x) : `${short(x)} (${short(a)} to ${short(b)}) tokens/s`,
      yText: `${interval(up, i)} ${up.unit}`, trust: data.trust[i].join(", ") || "none",
      caution: data.trust[i].length > 0, dominated: data.dominated[i],
    }];
  });
  at("plane-said").textContent =
    `${points.length} of ${data.names.length} configurations: ${up.title} against ` +
    (plane.inverse ? `the speed of one user, from ${across.title}` : across.title) +
    ". Bars are 95 % intervals over cycles, where there are three or more. Hollow points rest on cautions; " +
    "faint ones are dominated: another is shown to be better both ways, by paired intervals.";
  lazily("points", () => table(at("points"),
    ["", "settings", "cautions", "dominated by", ...Object.values(figures).map((one) => `${one.title}, ${one.unit}`)],
    data.names.map((name, i) => [name, data.labels[i], data.trust[i].join(", "), data.dominated[i] ?? "",
      ...Object.values(figures).map((one) => interval(one, i))])));

  // Differences -------------------------------------------------------------------------------
  const most = 40;
  const label = new Map(data.names.map((name, i) => [name, `${name} ${data.labels[i]}`]));
  const told = (one) => {
    const change = (ratio) => (one.factor ? ratio : 100 * (ratio - 1));
    const rows = one.rows.map(([name, ratio, low, high, shown]) =>
      ({ name: label.get(name), ratio: change(ratio), low: change(low), high: change(high), shown }));
    const unit = one.factor ? "times as much" : "difference, %";
    at("differences-said").textContent =
      `${one.title}: each configuration against ${label.get(one.reference)}, ${one.factor ? "as a factor" : "in %"}, ` +
      `with 95 % intervals that hold together. Grey: not shown to differ, which is no proof of being equal.` +
      (rows.length > most ? ` The first ${most} of ${rows.length}; the table has all.` : "");
    lazily("pairs", () => table(at("pairs"), ["", unit, "from", "to", "shown"],
      rows.map((row) => [row.name, short(row.ratio), short(row.low), short(row.high), row.shown ? "yes" : "no"])));
    const drawn = rows.slice(0, most);
    const spec = { ...data.specs[one.factor ? "factor" : "percent"], height: 20 * drawn.length };
    return draw("differences", spec, { differences: drawn });
  };
  data.differences.forEach((one, i) => { at("metric").add(new Option(one.title, String(i))); });
  at("metric").addEventListener("change", (event) => told(data.differences[Number(event.target.value)]));
  if (!data.differences.length) at("compared").hidden = true;

  window.drawn = Promise.all([
    draw("plane", data.specs.plane, { points }),
    data.differences.length ? told(data.differences[0]) : null,
  ]).then((views) => ({ points, views: views.length, after_ms: performance.now() }));
})();
