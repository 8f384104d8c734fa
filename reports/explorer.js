// Rows of a search: charts over the axes one chooses, and a table of all. Columns travel packed, see report/pages/explorer.py.
const choices = JSON.parse(read("choices").textContent);
const figureNames = new Set(Object.keys(choices.figures));
let packedColumns, rowCount;

const typed = (Kind, text) => new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

// All values of a column, null where there is none; unpacked when first asked for.
function column(name) {
  const found = packedColumns[name];
  found.cells ??= found.names
    ? Array.from(typed(Int32Array, found.codes), (code) => (code < 0 ? null : found.names[code]))
    : Array.from(typed(Float64Array, found.numbers), (value) => (Number.isFinite(value) ? value : null));
  return found.cells;
}

// Plotly reads some tags and entities in labels.
const letters = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const NONE = "none";

// A column as charts show it: figures scaled, options as numbers or escaped text, NONE where there is none.
function shownColumn(name) {
  if (figureNames.has(name)) {
    const { scale } = choices.figures[name];
    return column(name).map((value) => (value === null ? null : value * scale));
  }
  return column(name).map((value) => (value === null ? NONE : typeof value === "number" ? value : letters(String(value))));
}

// Each value once: numbers rising, texts in the order they come in, what has none last.
function steps(values) {
  const found = [...new Set(values)];
  const numbers = found.filter((value) => typeof value === "number").sort((a, b) => a - b);
  const texts = found.filter((value) => typeof value === "string" && value !== NONE);
  return [...numbers, ...texts, ...found.filter((value) => value === NONE)];
}

const called = (name) => choices.figures[name]?.label ?? name;
const signed = (name) => column(name).map((value) => (choices.figures[name].less ? -value : value));
const everyRow = () => Array.from({ length: rowCount }, (_, row) => row);
const counts = (row) => column(choices.good)[row] === true;

// Of these rows those that no other beats in both figures, the first figure rising; of equal ones the first.
function front(rows, x, y) {
  const [across, up] = [signed(x), signed(y)];
  let top = -Infinity;
  const found = [...rows].sort((a, b) => across[b] - across[a] || up[b] - up[a] || a - b)
    .filter((row) => up[row] > top && ((top = up[row]), true));
  return choices.figures[x].less ? found : found.reverse();
}

const ROWS = choices.fronts ? "rows on this page" : "rows"; // where some were left out
const hasBest = (value, pair) => !choices.cells ||
  (value === choices.cells.ranked && choices.cells.pairs.some((cells) => pair.every((name) => cells.includes(name))));
const isWhole = (x, y) => !choices.fronts || choices.fronts.some((pair) => pair.includes(x) && pair.includes(y));

function paretoChart(template, { x, y, colour: by }) {
  const [across, up, hovers] = [shownColumn(x), shownColumn(y), choices.hover.map(shownColumn)];
  const there = everyRow().filter((row) => across[row] !== null && up[row] !== null);
  const fit = there.filter(counts);
  const best = front(fit, x, y);
  const filled = (trace, rows, more = {}) => ({
    ...trace, ...more, x: rows.map((row) => across[row]), y: rows.map((row) => up[row]),
    customdata: rows.map((row) => hovers.map((values) => values[row])),
  });
  const [points, unfit, frontTrace] = [template.data[0], ...template.data.slice(-2)];
  const label = by ? shownColumn(by) : null;
  const groups = label
    ? steps(label).map((value) => filled(points, fit.filter((row) => label[row] === value), { name: `${letters(by)} ${value}` }))
    : [filled(points, fit)];
  const name = isWhole(x, y) ? frontTrace.name : "front of the rows shown";
  const waits = fit.length ? "legendonly" : true;
  const others = filled(unfit, there.filter((row) => !counts(row)), { visible: waits });
  const data = [...groups, others, filled(frontTrace, best, { name })];
  const [does, doesNot] = choices.words;
  const meta = fit.length
    ? `On the ${name} of ${called(x)} and ${called(y)}: ` +
      `${plainNumber(best.length, 0)} of the ${plainNumber(fit.length, 0)} ${ROWS} that ${does}.`
    : `No rows ${does}, so there is no ${name}; these ${doesNot}.`;
  return { data, layout: { ...template.layout, meta, xaxis: choices.figures[x].axis, yaxis: choices.figures[y].axis } };
}

function heatmapChart(template, { across, up, value }) {
  const [xs, ys, figures, { less, cells }] = [shownColumn(across), shownColumn(up), shownColumn(value), choices.figures[value]];
  const [columns, lines] = [steps(xs), steps(ys)];
  const [best, rows] = [lines.map(() => columns.map(() => null)), lines.map(() => columns.map(() => 0))];
  const [place, line] = [new Map(columns.map((x, at) => [x, at])), new Map(lines.map((y, at) => [y, at]))];
  for (const row of everyRow()) {
    if (figures[row] === null || !counts(row)) continue;
    const [i, j] = [line.get(ys[row]), place.get(xs[row])];
    const before = best[i][j];
    best[i][j] = before === null || (less ? figures[row] < before : figures[row] > before) ? figures[row] : before;
    rows[i][j] += 1;
  }
  const isExact = hasBest(value, [across, up]);
  const data = [{ ...cells, x: columns.map(String), y: lines.map(String), z: best, customdata: rows,
    xgap: Number(columns.length <= 60), ygap: Number(lines.length <= 60) }];
  const layout = {
    ...template.layout, xaxis: choices.options[across], yaxis: choices.options[up],
    height: Math.max(260, Math.min(700, 120 + 30 * lines.length)),
    meta: `Each cell: the ${less ? "least" : "most"} ${called(value)} of the ${isExact ? "rows" : ROWS} with that ${across} and ${up} that ` +
      `${choices.words[0]}; empty where none do.${isExact ? "" : " Rows left out may have better ones."}`,
  };
  return { data, layout };
}

const FILLED = { pareto: paretoChart, heatmap: heatmapChart };

// The controls of a chart say what it shows.
function chosen(id) {
  const controls = document.querySelectorAll(`[data-chart="${id}"] select`);
  return Object.fromEntries([...controls].map((select) => [select.name, select.value]));
}

window.prepare = async (figures) => {
  ({ columns: packedColumns, rows: rowCount } = JSON.parse(await unpack(read("rows").textContent)));
  for (const [id, fill] of Object.entries(FILLED)) {
    if (!figures[id]) continue;
    const template = figures[id];
    const refill = () => {
      figures[id] = fill(template, chosen(id));
      const words = figures[id].layout.meta;
      read(id).setAttribute("aria-label", words);
      read(id).parentElement.querySelector("figcaption").textContent = words;
    };
    refill();
    document.querySelector(`[data-chart="${id}"]`).addEventListener("change", () => {
      refill();
      draw({ [id]: figures[id] });
    });
  }
  rowsTable();
};

// ---- the table of rows: sorted and filtered as a whole, shown a page at a time
const PAGE = 50;
const view = { rows: [], sort: null, down: false, shown: PAGE };

const valueText = (name, value) =>
  value === null ? "" : value === true ? "yes" : value === false ? "no"
    : figureNames.has(name) ? said(value, choices.figures[name].unit) : String(value);

const RELATIONS = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b };
const UNITS = {
  "": 1, s: 1, ms: 1e-3, us: 1e-6, ns: 1e-9, b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40, "%": 0.01,
};

// A number in SI units, or with a unit as the table writes it: 0.5, 500ms, 80gib; NaN for what is none.
function numberOf(text) {
  const [, number, unit] = /^(.*?)([a-z%]*)$/.exec(text);
  return number ? Number(number.replaceAll(",", "")) * (UNITS[unit] ?? NaN) : NaN;
}

const plainText = (text) => text.toLowerCase().replace(/\s/g, "");

function textTest(word) {
  const searched = choices.columns.filter((name) => !figureNames.has(name)).map(column);
  return (row) => searched.some((cells) => cells[row] !== null && String(cells[row]).toLowerCase().includes(word));
}

// A row → whether it has a word: tp=8 or ttft_s<500ms in that column, any other in some option or reason.
function wordTest(word) {
  const [, asked, relation, value] = /^([\w.-]+)(<=|>=|=|<|>)(.*)$/.exec(word) ?? [];
  const name = Object.keys(packedColumns).find((each) => each.toLowerCase() === asked);
  if (!name) {
    const test = textTest(word);
    if (asked && !everyRow().some(test)) throw new Error(`no column ${asked}`);
    return test;
  }
  if (!value) return () => true; // not typed yet
  const [cells, number] = [column(name), numberOf(value)];
  if (relation === "=") {
    const forms = (cell) => (cell === null ? [NONE] : [String(cell), valueText(name, cell)]);
    return (row) => cells[row] === number || forms(cells[row]).some((text) => plainText(text) === value);
  }
  if (Number.isNaN(number)) throw new Error(`${value}: not a number such as 0.5, 500ms or 80GiB`);
  return (row) => cells[row] !== null && RELATIONS[relation](cells[row], number);
}

// A row → whether it has every word; Error for a word that cannot be looked for.
function wanted(text) {
  const joined = text.toLowerCase().replace(/([\w.-])\s*(<=|>=|=|<|>)\s*/g, "$1$2"); // ttft_s < 0.5
  const tests = joined.split(/\s+/).filter(Boolean).map(wordTest);
  return (row) => tests.every((test) => test(row));
}

function ordered(rows, name, down) {
  const cells = column(name);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b) * (down ? -1 : 1);
  // What has no value comes last either way.
  return [...rows].sort((a, b) => (cells[a] === null) - (cells[b] === null) ||
    (cells[a] === null ? 0 : compare(cells[a], cells[b])) || a - b);
}

function filtered() {
  const rows = everyRow().filter(wanted(read("rows-filter").value));
  if (view.sort) return ordered(rows, view.sort, view.down);
  // At first the best that fit, then what does not, then what is refused.
  const good = column(choices.good);
  const sorted = choices.sort ? ordered(rows, choices.sort, !choices.figures[choices.sort].less) : rows;
  const rank = (row) => (good[row] === true ? 0 : good[row] === false ? 1 : 2);
  return [...sorted].sort((a, b) => rank(a) - rank(b));
}

function fillRows() {
  const body = read("rows-table").tBodies[0];
  body.replaceChildren(...view.rows.slice(0, view.shown).map((row) => {
    const line = document.createElement("tr");
    for (const name of choices.columns) {
      const cell = line.insertCell();
      const value = column(name)[row];
      if (figureNames.has(name) || typeof value === "number") cell.className = "number";
      if (name === "reason") cell.className = "reason";
      cell.textContent = valueText(name, value);
    }
    return line;
  }));
  const [all, some] = [view.rows.length, Math.min(view.shown, view.rows.length)].map((n) => n.toLocaleString("en-US"));
  read("rows-count").textContent = `${all} of ${rowCount.toLocaleString("en-US")} rows` + (all === some ? "" : `, the first ${some} shown`);
  read("rows-more").hidden = view.shown >= view.rows.length;
}

// What cannot be looked for is said, and the rows stay as they are.
function again() {
  try {
    view.rows = filtered();
  } catch ({ message }) {
    read("rows-count").textContent = message;
    return;
  }
  view.shown = PAGE;
  fillRows();
}

function sortBy(header) {
  const name = header.dataset.column;
  view.down = view.sort === name ? !view.down : Boolean(figureNames.has(name) && !choices.figures[name].less);
  view.sort = name;
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", view.down ? "descending" : "ascending");
  again();
}

// A number with every digit, as Python writes it: 1e-05, and 120.0 of a column that is not of whole numbers.
function everyDigit(value, whole) {
  if (whole) return String(value);
  const [digits, power] = value.toExponential().split("e");
  if (power >= -4 && power < 16) return Number.isInteger(value) ? `${value}.0` : String(value);
  return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

// The rows that the filter leaves, in their order on the page, with every column and digit.
function csvText() {
  const names = Object.keys(packedColumns);
  const cells = names.map((name) => [column(name), packedColumns[name].whole]);
  const text = (value, whole) => (typeof value === "number" ? everyDigit(value, whole) : csvCell(String(value ?? "")));
  const line = (row) => cells.map(([values, whole]) => text(values[row], whole)).join(",");
  return [names.map(csvCell).join(","), ...view.rows.map(line), ""].join("\n");
}

function rowsTable() {
  const headers = [...read("rows-table").tHead.rows[0].cells];
  for (const header of headers) {
    header.classList.toggle("number", "numbers" in packedColumns[header.dataset.column]);
    header.firstElementChild.addEventListener("click", () => sortBy(header));
  }
  read("rows-filter").addEventListener("input", again);
  read("rows-more").addEventListener("click", () => { view.shown += 4 * PAGE; fillRows(); });
  read("rows-csv").addEventListener("click", (event) => saveCsv(event.target.dataset.file, csvText()));
  again();
}
