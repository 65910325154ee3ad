"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const block = document.getElementById("data");
  const data = block ? JSON.parse(block.textContent) : {};

  // The switch between light and dark. Without a choice, the page follows the system.
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const toggle = document.getElementById("theme");
  const label = () => { if (toggle) toggle.textContent = isDark() ? "Light" : "Dark"; };
  if (toggle) toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); draw(); });
  label();

  // Copy a command.
  for (const button of all("button[data-copy]")) button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
  });

  // Tables: a click on a header sorts, a word filters, a box hides a column.
  const key = (cell) => cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
  const compare = (a, b) => {
    const x = parseFloat(a), y = parseFloat(b);
    const both = a !== "" && b !== "" && !isNaN(x) && !isNaN(y) && isFinite(Number(a)) && isFinite(Number(b));
    return both ? x - y : a.localeCompare(b);
  };
  for (const table of all("table.sortable")) {
    const headers = all("thead th", table);
    headers.forEach((header, column) => {
      const button = header.querySelector("button");
      if (button) button.addEventListener("click", () => {
        const isUp = header.getAttribute("aria-sort") !== "ascending";
        for (const other of headers) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", isUp ? "ascending" : "descending");
        const rows = all("tbody tr", table);
        const isEmpty = (row) => key(row.cells[column]) === "";
        rows.sort((a, b) => isEmpty(a) !== isEmpty(b) ? (isEmpty(a) ? 1 : -1)
          : (isUp ? 1 : -1) * compare(key(a.cells[column]), key(b.cells[column])));
        table.tBodies[0].append(...rows);
      });
    });
  }
  for (const input of all("input[data-filters]")) input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of all(`#${input.dataset.filters} tbody tr`)) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  for (const box of all("input[data-column]")) box.addEventListener("change", () => {
    for (const row of all(`#${box.dataset.table} tr`)) row.cells[Number(box.dataset.column)].hidden = !box.checked;
  });

  // Parallel coordinates: dragging along an axis selects groups in the chart and in the table of the jobs.
  for (const chart of all("svg.parallel")) {
    const top = Number(chart.dataset.top), bottom = Number(chart.dataset.bottom), chosen = new Map();
    const lines = all("path[data-shares]", chart).map((line) => ({ line, shares: line.dataset.shares.split(" ").map(Number) }));
    const share = (event) => {
      const box = chart.getBoundingClientRect(), y = (event.clientY - box.top) * chart.viewBox.baseVal.height / box.height;
      const place = (bottom - y) / (bottom - top);
      return place < 0.03 ? 0 : place > 0.97 ? 1 : place;  // the ends of an axis are easy to reach
    };
    const select = () => {
      const groups = new Set();
      for (const { line, shares } of lines) {
        const isIn = [...chosen].every(([axis, [low, high]]) => shares[axis] >= low && shares[axis] <= high);
        line.classList.toggle("off", !isIn);
        if (isIn) groups.add(line.dataset.group);
      }
      for (const mark of all("#jobs [data-group]")) mark.closest("tr").hidden = chosen.size > 0 && !groups.has(mark.dataset.group);
    };
    for (const brush of all("rect.brush", chart)) {
      const axis = Number(brush.dataset.axis);
      let start = null;
      const show = (low, high) => {
        brush.setAttribute("y", bottom - high * (bottom - top));
        brush.setAttribute("height", (high - low) * (bottom - top));
      };
      brush.addEventListener("pointerdown", (event) => { start = share(event); brush.setPointerCapture(event.pointerId); });
      brush.addEventListener("pointermove", (event) => {
        if (start === null) return;
        const range = [start, share(event)].sort((a, b) => a - b);
        chosen.set(axis, range);
        brush.classList.add("set");
        show(...range);
        select();
      });
      brush.addEventListener("pointerup", (event) => {
        if (start !== null && Math.abs(share(event) - start) < 0.02) {  // a click removes the selection of this axis
          chosen.delete(axis);
          brush.classList.remove("set");
          show(0, 1);
          select();
        }
        start = null;
      });
    }
  }

  // Interactive charts, if the page contains uPlot. Otherwise, the SVG charts stay.
  const charts = new Map();
  const control = (name) => document.getElementById(name);
  const value = (name, other) => control(name) ? (control(name).type === "checkbox" ? control(name).checked
    : control(name).value) : other;
  const colour = (style) => getComputedStyle(root).getPropertyValue(`--c${style % 6}`).trim();
  const dash = (style) => style < 4 ? [] : [[6, 3], [2, 3], [8, 3, 2, 3]][(style - 4) % 3];
  const WHOLE = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
  const scaleOf = (kind) => {
    if (kind === "samples" && data.samples_per_step) return (step) => step * data.samples_per_step;
    if (kind === "hours" && data.hours) return (step) => {
      const [steps, hours] = data.hours;
      let high = steps.findIndex((each) => each >= step);
      if (high < 0) high = steps.length - 1;
      const low = Math.max(0, high - 1), span = steps[high] - steps[low];
      return span ? hours[low] + (hours[high] - hours[low]) * (step - steps[low]) / span : hours[high];
    };
    return (step) => step;
  };
  const smooth = (values, weight) => {
    let mean = 0, sum = 0;
    return values.map((each) => {
      if (each === null) return null;
      mean = weight * mean + (1 - weight) * each;
      sum = weight * sum + (1 - weight);
      return mean / sum;
    });
  };
  const joined = (series, x) => {
    const steps = [...new Set(series.flatMap((each) => each.x))].sort((a, b) => a - b);
    const place = new Map(steps.map((step, index) => [step, index]));
    const columns = series.map((each) => {
      const column = new Array(steps.length).fill(undefined);
      each.x.forEach((step, index) => { column[place.get(step)] = each.y[index]; });
      return column;
    });
    return [steps.map(x), ...columns];
  };
  const shown = (number) => {
    if (number === null || number === undefined) return "–";
    const short = Number(number.toPrecision(5));
    return short !== 0 && (Math.abs(short) < 1e-3 || Math.abs(short) >= 1e9) ? short.toExponential()
      : short.toLocaleString("en", { maximumFractionDigits: 6 });
  };
  const plot = (figure) => {
    const chart = data.charts[figure.dataset.chart];
    const svg = figure.querySelector("svg.chart");
    if (!chart || !svg) return;
    const weight = Number(value("smoothing", 0)), kind = value("x-axis", "steps");
    const series = chart.series.flatMap((each) => weight && each.x.length > 20
      ? [{ ...each, isPale: true }, { ...each, name: `${each.name}, smoothed`, y: smooth(each.y, weight) }] : [each]);
    const all_values = series.flatMap((each) => each.y.filter((y) => y !== null));
    const isLog = (value("log", false) || chart.is_log) && all_values.every((y) => y > 0);
    const text = getComputedStyle(root).getPropertyValue("--pale").trim();
    const grid = { stroke: getComputedStyle(root).getPropertyValue("--grid").trim(), width: 1 };
    const width = figure.clientWidth - 26;
    // All charts begin with one range of steps. A zoom has another range.
    const whole = chart.x_range.map(scaleOf(kind));
    let isWhole = true;  // uPlot asks for the range of steps before the range of values
    const xRange = (drawn, low, high) => {
      const x = drawn.data[0];
      isWhole = low === null || (low === x[0] && high === x[x.length - 1]);
      return isWhole ? whole : [low, high];
    };
    // A logarithmic axis marks powers of ten, and 2 and 5 times these if its range is small. If its
    // range is large, only every second or third power is marked.
    const isMarked = (drawn, each) => {
      if (!isLog) return true;
      const { min, max } = drawn.scales.y, power = Math.floor(Math.log10(each) + 1e-9), digit = each / 10 ** power;
      if (digit < 1.01) return power % Math.ceil(Math.log10(max / min) / 8) === 0;
      return max / min < 30 && (Math.abs(digit - 2) < 0.01 || Math.abs(digit - 5) < 0.01);
    };
    const marked = (drawn, ticks) => ticks.map((each) => each !== null && isMarked(drawn, each) ? each : null);
    const yLabels = (drawn, ticks) => marked(drawn, ticks).map((each) => each === null ? "" : shown(each));
    const yRange = (drawn, low, high) => {
      if (low === null) return isLog ? [1, 10] : [0, 1];
      if (chart.y_range && isWhole && !weight && isLog === chart.is_log) return chart.y_range;
      return isLog ? [low / 1.1, high * 1.1] : uPlot.rangeNum(low, high, 0.1, false);
    };
    const options = {
      width, height: Math.round(Math.max(160, Math.min(width * 0.46, 240))),
      cursor: { sync: { key: "steps" }, focus: { prox: 24 }, drag: { x: true, y: false } },
      legend: { show: series.length <= 8 },
      scales: { x: { time: false, range: xRange }, y: { distr: isLog ? 3 : 1, range: yRange } },
      axes: [{ stroke: text, grid, ticks: grid, size: 34, values: (_, ticks) => ticks.map(shown),
        ...(kind === "hours" ? {} : { incrs: WHOLE }) },
      { stroke: text, grid: { ...grid, filter: marked }, ticks: { ...grid, filter: marked }, size: 62, values: yLabels }],
      series: [{ label: kind, value: (_, number) => shown(number) }, ...series.map((each) => ({
        label: each.name, stroke: colour(each.style) + (each.isPale || each.is_faint ? "77" : ""),
        width: each.isPale || each.is_faint ? 1 : 1.8,
        dash: dash(each.style), spanGaps: false, points: { show: each.x.length <= 40 },
        value: (_, number) => shown(number),
      }))],
      hooks: { setLegend: [(drawn) => {  // without a cursor, the legend shows the last values
        if (!drawn.legend.show) return;
        if (drawn.legend.idx === null || drawn.legend.idx === undefined)
          drawn.setLegend({ idx: drawn.data[0].length - 1 }, false);
      }], draw: [(drawn) => {
        const context = drawn.ctx;
        context.save();
        context.strokeStyle = text;
        for (const [step, mark] of chart.marks || []) {
          const x = Math.round(drawn.valToPos(scaleOf(kind)(step), "x", true));
          const { top, height } = drawn.bbox;
          if (x < drawn.bbox.left || x > drawn.bbox.left + drawn.bbox.width) continue;
          context.setLineDash(mark === "resume" ? [3, 3] : []);
          context.beginPath();
          context.moveTo(x, top + height);
          context.lineTo(x, mark === "resume" ? top : top + height - 7);
          context.stroke();
        }
        context.setLineDash([]);
        context.strokeStyle = getComputedStyle(root).getPropertyValue("--bad").trim();
        for (const [step, y] of chart.failed || []) {
          const x = drawn.valToPos(scaleOf(kind)(step), "x", true), place = drawn.valToPos(y, "y", true);
          context.beginPath();
          context.moveTo(x - 5, place - 5); context.lineTo(x + 5, place + 5);
          context.moveTo(x + 5, place - 5); context.lineTo(x - 5, place + 5);
          context.stroke();
        }
        if (chart.best) {
          context.setLineDash([]);
          context.lineWidth = 2;
          context.strokeStyle = getComputedStyle(root).getPropertyValue("--text").trim();
          context.beginPath();
          context.arc(drawn.valToPos(scaleOf(kind)(chart.best[0]), "x", true), drawn.valToPos(chart.best[1], "y", true),
            6, 0, 2 * Math.PI);
          context.stroke();
        }
        context.restore();
      }] },
    };
    const values = joined(series, scaleOf(kind));
    // uPlot connects over undefined values, which are steps of another series, and leaves gaps at null values.
    svg.style.display = "none";
    const legend = figure.querySelector("ul.legend");
    if (legend) legend.style.display = options.legend.show ? "none" : "";
    const old = charts.get(figure);
    if (old) old.destroy();
    const drawn = new uPlot(options, values, figure.querySelector(".plot"));
    if (options.legend.show) drawn.setLegend({ idx: values[0].length - 1 }, false);
    charts.set(figure, drawn);
  };
  const draw = () => {
    if (typeof uPlot === "undefined" || !data.charts) return;
    for (const figure of all("figure[data-chart]")) plot(figure);
  };
  for (const name of ["smoothing", "log", "x-axis"]) if (control(name)) control(name).addEventListener("input", draw);
  if (typeof uPlot === "undefined") for (const each of all(".needs-plot")) each.hidden = true;
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); });
  // Printed charts are the SVG charts, because they need no script.
  addEventListener("beforeprint", () => {
    for (const each of all("details")) each.open = true;
    for (const [figure, chart] of charts) { chart.destroy(); figure.querySelector("svg.chart").style.display = ""; }
    charts.clear();
    for (const legend of all("ul.legend")) legend.style.display = "";
  });
  addEventListener("afterprint", draw);
  draw();
})();
