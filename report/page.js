"use strict";
// What a reader can do with the page besides reading it. Without scripts, all content is there too.
(() => {
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const button = (text, act, attributes = {}) => {
    const element = make("button", text, { type: "button", ...attributes });
    element.addEventListener("click", act);
    return element;
  };
  const save = (name, text) => {
    const link = make("a", "", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  // -- theme: the system's, until another is chosen
  const themes = ["auto", "light", "dark"];
  const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a page from a file may not */ } };
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const theme = button("", () => { choose(themes[(themes.indexOf(theme.dataset.value) + 1) % 3]); }, { id: "theme" });
  const choose = (value) => {
    theme.dataset.value = value;
    theme.textContent = `Theme: ${value}`;
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    keep("inference-benchmark-theme", value);
  };
  choose(themes.includes(kept("inference-benchmark-theme")) ? kept("inference-benchmark-theme") : "auto");
  const controls = document.getElementById("controls");
  controls.append(theme);
  if (document.getElementById("summary"))
    controls.append(button("All figures as CSV", () => save("summary.csv", read("summary")), { id: "all-csv" }));

  // -- on paper nothing is folded
  addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });

  // -- tooltips of the points of charts
  const tooltip = document.getElementById("tooltip");
  const showTooltip = (_, event, item, value) => {
    if (!value || !value.tooltip) { tooltip.hidden = true; return; }
    tooltip.replaceChildren(make("strong", `${value.series} batch ${value.batch_size}: ${value.outcome}`), make("dl", ""));
    for (const [name, text] of Object.entries(value.tooltip)) tooltip.lastChild.append(make("dt", name), make("dd", text));
    tooltip.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = tooltip;
    const left = event.clientX + 14 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 14;
    const top = event.clientY + 14 + height > innerHeight ? event.clientY - height - 14 : event.clientY + 14;
    tooltip.style.left = `${Math.max(4, left)}px`;
    tooltip.style.top = `${Math.max(4, top)}px`;
  };

  // -- charts: each static chart becomes interactive when it comes into view
  const grids = new Map();
  const embed = async (holder, grid) => {
    const text = JSON.stringify(grid.data.specs[holder.dataset.chart]);
    const linear = /"type":"linear","zero":true|"zero":true,"type":"linear"/g;
    const spec = JSON.parse(grid.logarithmic ? text.replace(linear, '"type":"log"') : text);
    spec.datasets = { cells: grid.data.points };
    for (const parameter of spec.params) if (parameter.name === "hidden") parameter.value = grid.hidden;
    const place = document.createElement("div");
    const { view } = await vegaEmbed(place, spec, { renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: showTooltip, logLevel: 1 });
    const fit = () => {
      const svg = place.querySelector("svg");
      svg.setAttribute("aria-hidden", "true"); // the chart around it has a name, and its figures are in the tables
      if (!svg.hasAttribute("width")) return;
      svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
      svg.removeAttribute("width");
      svg.removeAttribute("height");
    };
    fit();
    view.addResizeListener(fit);
    grid.views.get(holder)?.finalize();
    grid.views.set(holder, view);
    holder.replaceChildren(place);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      embed(target, grids.get(target.closest(".grid").id));
    }
  }, { rootMargin: "200px" });
  for (const section of document.querySelectorAll(".grid")) {
    let data;
    const grid = { get data() { return (data ??= read(`${section.id}-data`)); }, hidden: [], logarithmic: false, views: new Map() };
    grids.set(section.id, grid);
    for (const holder of section.querySelectorAll(".chart")) watcher.observe(holder);
    for (const item of section.querySelectorAll(".legend li")) {
      const toggle = button("", () => {
        const name = item.dataset.series;
        const off = !grid.hidden.includes(name);
        grid.hidden = off ? [...grid.hidden, name] : grid.hidden.filter((other) => other !== name);
        toggle.setAttribute("aria-pressed", String(!off));
        for (const view of grid.views.values()) view.signal("hidden", grid.hidden).runAsync();
      }, { "aria-pressed": "true" });
      toggle.append(...item.childNodes);
      item.append(toggle);
    }
    const scale = button("Scale: linear", () => {
      grid.logarithmic = !grid.logarithmic;
      scale.textContent = `Scale: ${grid.logarithmic ? "logarithmic" : "linear"}`;
      for (const holder of grid.views.keys()) embed(holder, grid);
    }, { class: "scale" });
    section.querySelector(".switches").append(scale);
  }

  // -- tables: sort, copy, save
  const texts = (row) => [...row.cells].map((cell) => [...cell.querySelectorAll("small")].length
    ? [...cell.querySelector("span, button").childNodes].map((node) => node.textContent.trim()).filter(Boolean).join(" ")
    : cell.textContent.trim());
  const everyRow = (table) => [...table.rows].map(texts);
  const number = (text) => parseFloat(text.replace(/,/g, ""));
  const compare = (a, b, sign) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) && isNaN(y) ? sign * a.localeCompare(b) : isNaN(x) ? 1 : -1;
    return sign * (x - y);
  };
  for (const table of document.querySelectorAll("table.figures")) {
    for (const head of table.tHead.rows[0].cells) {
      const sort = button("", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((a, b) => compare(a.cells[head.cellIndex].textContent, b.cells[head.cellIndex].textContent, ascending ? 1 : -1)));
      });
      sort.append(...head.querySelector("span").childNodes);
      head.replaceChildren(sort);
    }
    const block = table.closest(".block");
    if (!block) continue;
    const tools = make("div", "", { class: "tools" });
    const copy = button("Copy as Markdown", async () => {
      const [heads, ...rows] = everyRow(table);
      const line = (cells) => `| ${cells.map((cell) => cell.replace(/\|/g, "\\|")).join(" | ")} |`;
      const text = [line(heads), line(heads.map(() => ":---:")), ...rows.map(line)].join("\n") + "\n";
      copy.dataset.copied = text;
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        const area = make("textarea", text);
        document.body.append(area);
        area.select();
        copy.textContent = document.execCommand("copy") ? "Copied" : "Not allowed here";
        area.remove();
      }
      setTimeout(() => { copy.textContent = "Copy as Markdown"; }, 1500);
    });
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
    const name = block.querySelector("h4").textContent.split("(")[0].trim().toLowerCase().replace(/\W+/g, "-");
    tools.append(copy, button("Download CSV", () => save(`${name}.csv`, everyRow(table).map((row) => row.map(quoted).join(",")).join("\n") + "\n")));
    block.append(tools);
  }
})();
