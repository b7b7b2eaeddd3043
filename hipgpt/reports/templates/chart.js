// Line charts: hover shows values, a drag zooms, a double click shows all again, a click in the legend hides a line,
// and each axis can be logarithmic.
const COLOURS = ["#3b78c2", "#c2410c", "#2f8f5b", "#8b5fbf", "#b8860b", "#c2457f", "#4b9aa8", "#7a6a53"];
const SVG = "http://www.w3.org/2000/svg";
const MARGIN = {left: 58, right: 12, top: 10, bottom: 40}, HEIGHT = 320;
const MANY_POINTS = 400; // of a faint line; one with fewer is drawn in full strength

function drawChart(place) {
  const spec = JSON.parse(place.querySelector("script").textContent);
  spec.lines.forEach((line, i) => {
    const faint = line.faint && line.points.length > MANY_POINTS;
    Object.assign(line, {colour: colourOf(i, spec.lines.length), opacity: faint ? 0.6 : 1, width: faint ? 1.2 : 2});
    line.shown = true;
  });
  const state = {spec, place, zoom: null, logX: Boolean(spec.log_x), logY: Boolean(spec.log_y)};
  const bar = made("div", {class: "chart-bar"}), axes = made("div", {class: "chart-axes"}), drawing = document.createElementNS(SVG, "svg");
  const tip = made("div", {class: "tip"});
  const prefix = sharedPrefix(spec.lines.map((line) => line.name));
  if (prefix) bar.append(made("span", {}, `… is ${prefix}`));
  for (const line of spec.lines) {
    const button = made("button", {type: "button", class: "legend"});
    const mark = made("i", {style: `background:${line.colour};opacity:${line.opacity}`});
    button.append(mark, prefix && line.name.startsWith(prefix) ? `…${line.name.slice(prefix.length)}` : line.name);
    button.onclick = () => { line.shown = !line.shown; button.classList.toggle("off", !line.shown); draw(state); };
    bar.append(button);
  }
  for (const axis of ["logX", "logY"]) {
    const label = made("label", {}), box = made("input", {type: "checkbox"});
    box.checked = state[axis];
    box.onchange = () => { state[axis] = box.checked; draw(state); };
    label.append(box, ` log ${axis.slice(-1).toLowerCase()}`);
    axes.append(label);
  }
  place.append(bar, axes, drawing, tip);
  Object.assign(state, {drawing, tip});
  drawing.onpointermove = (event) => hover(state, event);
  drawing.onpointerdown = (event) => { state.from = event.offsetX; };
  drawing.onpointerup = (event) => zoom(state, event.offsetX);
  drawing.onpointerleave = () => { tip.style.display = "none"; };
  drawing.ondblclick = () => { state.zoom = null; draw(state); };
  draw(state);
  addEventListener("resize", () => draw(state));
}

// The words with which the names of all lines but the first begin, such as those of a sweep: rates_steps-. The first is
// that of the run from which a sweep starts.
function sharedPrefix(names) {
  const swept = names.slice(1);
  if (swept.length < 2) return "";
  let end = 0;
  while (end < swept[0].length && swept.every((name) => name[end] === swept[0][end])) end++;
  return swept[0].slice(0, end).match(/^.*[_-]/)?.[0] ?? "";
}

function colourOf(i, count) {
  return count <= COLOURS.length ? COLOURS[i] : `hsl(${Math.round((360 * i) / count)} 55% 50%)`;
}

function draw(state) {
  const {spec, drawing, place} = state, width = place.clientWidth;
  if (!width) return;
  const lines = spec.lines.filter((line) => line.shown);
  const usable = ([x, y]) => y !== null && (!state.logX || x > 0) && (!state.logY || y > 0);
  const inZoom = ([x]) => !state.zoom || (x >= state.zoom[0] && x <= state.zoom[1]);
  const points = lines.map((line) => line.points.filter(usable).filter(inZoom));
  const all = points.flat();
  drawing.replaceChildren();
  drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  drawing.style.height = `${HEIGHT}px`;
  if (!all.length) return;
  state.x = scale(all.map(([x]) => x), state.logX, MARGIN.left, width - MARGIN.right);
  state.y = scale(all.map(([, y]) => y), state.logY, HEIGHT - MARGIN.bottom, MARGIN.top);
  for (const [tick, label] of labelled(state.x.ticks(Math.max(3, width / 110)))) {
    shape(drawing, "line", {class: "grid", x1: state.x(tick), x2: state.x(tick), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom});
    const text = shape(drawing, "text", {y: HEIGHT - MARGIN.bottom + 16, "text-anchor": "middle"}, label);
    text.setAttribute("x", Math.min(state.x(tick), width - text.getComputedTextLength() / 2)); // the last one whole
  }
  for (const [tick, label] of labelled(state.y.ticks(6))) {
    shape(drawing, "line", {class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: state.y(tick), y2: state.y(tick)});
    shape(drawing, "text", {x: MARGIN.left - 6, y: state.y(tick) + 4, "text-anchor": "end"}, label);
  }
  shape(drawing, "text", {x: (MARGIN.left + width) / 2, y: HEIGHT - 6, "text-anchor": "middle"}, spec.x);
  const middle = (HEIGHT - MARGIN.bottom) / 2;
  shape(drawing, "text", {x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})`}, spec.y);
  lines.forEach((line, i) => {
    if (!points[i].length) return;
    const path = points[i].map(([x, y]) => `${state.x(x).toFixed(1)} ${state.y(y).toFixed(1)}`).join("L");
    shape(drawing, "path", {d: `M${path}`, fill: "none", stroke: line.colour, "stroke-width": line.width, opacity: line.opacity});
    if (points[i].length <= 40) {
      for (const [x, y] of points[i]) shape(drawing, "circle", {cx: state.x(x), cy: state.y(y), r: 3, fill: line.colour});
    }
  });
  state.points = points.map((found, i) => [lines[i], found]);
}

// Return a function from values to pixels, with its inverse and its ticks.
function scale(values, isLog, from, to) {
  const map = isLog ? Math.log10 : (value) => value, back = isLog ? (value) => 10 ** value : (value) => value;
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, map(value)); high = Math.max(high, map(value)); }
  if (low === high) { low -= 0.5; high += 0.5; }
  const toPixel = (value) => from + ((map(value) - low) / (high - low)) * (to - from);
  toPixel.inverse = (pixel) => back(low + ((pixel - from) / (to - from)) * (high - low));
  toPixel.ticks = (count) => (isLog && high - low > 0.7 ? logTicks(low, high, count) : ticks(back(low), back(high), count));
  return toPixel;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((multiple) => multiple * power >= rough) * power, found = [];
  for (let n = Math.ceil(low / step); n * step <= high * (1 + 1e-9); n++) found.push(n * step);
  return found;
}

function logTicks(low, high, count) {
  const multiples = (high - low) * 3 <= count * 1.5 ? [1, 2, 5] : [1], found = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const multiple of multiples) {
      const value = multiple * 10 ** power;
      if (Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9) found.push(value);
    }
  }
  return found;
}

function hover(state, event) {
  const {tip, drawing} = state;
  if (!state.points) return;
  drawing.querySelector(".cursor")?.remove();
  const at = state.x.inverse(event.offsetX), rows = [];
  let x = null;
  for (const [line, points] of state.points) {
    if (!points.length) continue;
    const nearest = points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    if (x === null) x = nearest[0];
    rows.push([line, nearest]);
  }
  if (x === null) return;
  shape(drawing, "line", {class: "cursor", x1: event.offsetX, x2: event.offsetX, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom});
  tip.replaceChildren(...rows.slice(0, 12).map(([line, [px, py]]) => {
    const row = made("div", {}), mark = made("i", {style: `background:${line.colour}`});
    row.append(mark, `${line.name}: ${short(py)} at ${short(px)}`);
    return row;
  }));
  tip.style.display = "block";
  const right = event.offsetX > state.place.clientWidth / 2;
  tip.style.left = right ? "auto" : `${event.offsetX + 14}px`;
  tip.style.right = right ? `${state.place.clientWidth - event.offsetX + 14}px` : "auto";
}

function zoom(state, to) {
  if (state.from === undefined || Math.abs(to - state.from) < 6) return;
  state.zoom = [state.x.inverse(state.from), state.x.inverse(to)].sort((a, b) => a - b);
  state.from = undefined;
  draw(state);
}

// The ticks of an axis with their labels, which have one form: not 0.001 next to 5e-4.
function labelled(ticks) {
  const sizes = ticks.map(Math.abs).filter((size) => size > 0);
  const form = formOf(Math.min(...sizes), Math.max(...sizes));
  return ticks.map((tick) => [tick, form(tick)]);
}

function short(value) {
  return formOf(Math.abs(value), Math.abs(value))(value);
}

// The form of numbers whose sizes are between two values.
function formOf(least, most) {
  const rounded = (value) => Number(value.toPrecision(5));
  if (least > 0 && (least < 1e-3 || most >= 1e15)) {
    return (value) => (value === 0 ? "0" : rounded(value).toExponential().replace("+", ""));
  }
  const compact = Intl.NumberFormat("en", {notation: "compact", maximumSignificantDigits: 4});
  return most >= 1e4 ? (value) => compact.format(value) : (value) => String(rounded(value));
}

function made(name, attributes, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(text);
  return element;
}

function shape(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

document.querySelectorAll(".chart").forEach(drawChart);
