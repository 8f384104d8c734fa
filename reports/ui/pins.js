// Configurations that are kept beside the current one: a table with ratios to the first, and bars.
import { remember } from "./address.js";
import { desk, element, isReady, state, told } from "./desk.js";

export const MOST_PINS = 4;
const columns = () => [...state.pins, ...(state.answer && desk.dataset.state !== "error" ? [{ ...state.answer, now: true }] : [])];
const called = (column) => (column.now ? "now" : `pin ${state.pins.indexOf(column) + 1}`);
const figureOf = (column, name) => column.figures.find((figure) => figure.name === name);
const compared = () => [...new Map(columns().flatMap(({ figures }) => figures.map((each) => [each.name, each]))).values()];

export function pin() {
  if (!isReady()) return told("Wait for figures, or change what was refused.");
  if (state.pins.length === MOST_PINS) return told(`${MOST_PINS} at most: remove one first.`);
  state.pins.push({ ...state.answer });
  changed();
}

function unpin(column) {
  state.pins.splice(state.pins.indexOf(column), 1);
  changed();
}

function changed() {
  told("");
  remember();
  desk.dispatchEvent(new Event("pins"));
}

// Fill the table.
export function compare() {
  const table = read("pins");
  table.replaceChildren();
  read("comparison").hidden = !state.pins.length;
  if (!state.pins.length) return;
  table.createTHead().insertRow().append(element("th", "figure"), ...columns().map(heading));
  const body = table.createTBody();
  const fits = columns().map((column) => element("td", column.fits ? "yes" : "no", numeric(column, column.fits ? "good" : "bad")));
  body.insertRow().append(element("th", "fits"), ...fits);
  for (const { name, label, less } of compared())
    body.insertRow().append(element("th", label), ...columns().map((column) => cell(column, name, less)));
}

// Figures of now are greyed with all others of it, as long as there are newer ones to come.
const numeric = ({ now }, more = "") => `number ${more} ${now ? "figures" : ""}`;

function heading(column) {
  const made = element("th", called(column), numeric(column));
  made.append(element("br"), element("small", column.command.replace("tensorcast simulate ", "")));
  if (column.now) return made;
  const remove = element("button", "remove");
  remove.type = "button";
  remove.ariaLabel = `remove ${called(column)}`;
  remove.addEventListener("click", () => unpin(column));
  made.append(element("br"), remove);
  return made;
}

function cell(column, name, less) {
  const [figure, base] = [figureOf(column, name), figureOf(state.pins[0], name)];
  const made = element("td", figure ? figure.text : "–", numeric(column));
  if (figure && base && column !== state.pins[0] && base.value) {
    const ratio = figure.value / base.value;
    const better = ratio === 1 || less === null ? "" : (ratio < 1) === less ? "good" : "bad";
    made.append(" ", element("small", `×${ratio.toPrecision(3)}`, better));
  }
  return made;
}

// The chart: every figure as a share of its largest.
export function bars() {
  const drawn = compared().filter((figure) => figure.drawn);
  const valueOf = (column, name) => figureOf(column, name)?.value ?? 0;
  const most = Object.fromEntries(drawn.map(({ name }) => [name, Math.max(...columns().map((column) => valueOf(column, name))) || 1]));
  const data = columns().map((column) => ({
    type: "bar", name: called(column), x: drawn.map(({ label }) => label),
    y: drawn.map(({ name }) => valueOf(column, name) / most[name]),
    customdata: drawn.map(({ name }) => figureOf(column, name)?.text ?? "none"),
    hovertemplate: "%{x}, %{fullData.name}: %{customdata}<extra></extra>",
  }));
  const layout = {
    barmode: "group", height: 300, colorway: read("compared").dataset.colours.split(" "),
    yaxis: { tickformat: ".0%", title: { text: "of the largest" } }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
  };
  return { data, layout };
}
