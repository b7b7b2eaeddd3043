// The table of runs: a click on a heading sorts by its column, and the box filters by words and conditions.
const table = document.getElementById("runs"), body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
const CONDITION = /^([\w.]+)(>=|<=|!=|=|>|<)(.+)$/;
const COMPARE = {
  ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
  "=": (a, b) => a === b, "!=": (a, b) => a !== b,
};

function valueOf(row, column) {
  const text = row.cells[column].dataset.value;
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

// Numbers first, then texts; rows without a value last, in either direction.
function sortBy(column) {
  const heading = headings[column], down = heading.getAttribute("aria-sort") === "ascending";
  headings.forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...[...body.rows].sort((one, other) => {
    const a = valueOf(one, column), b = valueOf(other, column);
    if (a === "" || b === "") return (a === "") - (b === "");
    return (down ? -1 : 1) * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  }));
}

function fits(row, word) {
  const [, key, operator, wanted] = word.match(CONDITION) || [];
  const column = headings.findIndex((heading) => heading.dataset.key === key);
  if (column < 0) return row.textContent.toLowerCase().includes(word.toLowerCase());
  const value = valueOf(row, column);
  return value !== "" && COMPARE[operator](value, typeof value === "number" ? Number(wanted) : wanted);
}

function filter(text) {
  const words = text.split(/\s+/).filter(Boolean);
  for (const row of body.rows) row.hidden = !words.every((word) => fits(row, word));
  const shown = [...body.rows].filter((row) => !row.hidden).length;
  document.getElementById("count").textContent = `${shown} of ${body.rows.length} runs`;
}

headings.forEach((heading, column) => {
  heading.onclick = () => sortBy(column);
  heading.onkeydown = (event) => { if (event.key === "Enter") sortBy(column); };
});
document.getElementById("filter").oninput = (event) => filter(event.target.value);
filter("");
