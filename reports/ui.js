"use strict";
// The page asks for figures as its controls move, one request at a time, and shows the answer to the latest.
const MOST_PINS = 4;
const LONG_MS = 300; // a request that takes longer has a model to trace; it is left for what is asked after it
const desk = read("desk");
const fields = [...document.querySelectorAll("[data-option]")];
const sliders = [...document.querySelectorAll("[data-slides]")];
const state = { answer: null, pins: [], view: "", running: null, waiting: false };

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

// -- what is asked -----------------------------------------------------------------------------------------------------

function asked() {
  const given = fields.map((field) => [field.id, field.type === "checkbox" ? field.checked : field.value.trim()]);
  return { options: Object.fromEntries(given.filter(([, value]) => value)), more: read("more").value, view: state.view };
}

function queryOf({ options, more, view }) {
  const query = new URLSearchParams(options);
  if (more) query.set("more", more);
  if (view) query.set("view", view);
  return query;
}

function askedBy(query) {
  const { more = "", view = "", ...texts } = Object.fromEntries([...query].filter(([name]) => name !== "pin"));
  const options = {};
  for (const [name, value] of Object.entries(texts)) {
    const field = fields.find(({ id }) => id === name);
    options[name] = field?.type === "checkbox" ? value === "true" : value;
  }
  return { options, more, view };
}

function fill({ options, more, view }) {
  for (const field of fields) {
    const value = options[field.id] ?? "";
    if (field.type === "checkbox") field.checked = value === true;
    else if (field.tagName === "SELECT" && ![...field.options].some((each) => each.value === value)) {
      field.append(element("option", value)); // refused by the server, in its own words
      field.value = value;
    } else field.value = value;
    const folded = field.closest("details");
    if (folded && value) folded.open = true;
  }
  const strange = Object.entries(options).filter(([name]) => !fields.some(({ id }) => id === name));
  read("more").value = [more, ...strange.map(([name, value]) => `--${name.replaceAll("_", "-")}='${value}'`)].join(" ").trim();
  state.view = view;
  sliders.forEach(place);
}

function place(slider) {
  const field = read(slider.dataset.slides);
  const value = Number(field.value || field.placeholder || NaN);
  const scale = slider.dataset.scale.split(" ").map(Number);
  const distances = scale.map((each) => Math.abs(Math.log1p(each) - Math.log1p(value)));
  slider.value = Number.isNaN(value) ? 0 : distances.indexOf(Math.min(...distances));
}

let remembering;
function remember() {
  clearTimeout(remembering); // browsers take few changes of the address a second
  remembering = setTimeout(() => {
    const query = queryOf(asked());
    state.pins.forEach((pin) => query.append("pin", queryOf(pin.asked)));
    history.replaceState(null, "", `?${query}`);
  }, 200);
}

// -- answers -----------------------------------------------------------------------------------------------------------

async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

function update() {
  remember();
  const wanted = asked();
  if (!state.answer && !Object.keys(wanted.options).length && !wanted.more) return;
  if (state.answer) desk.dataset.state = "waiting";
  if (state.running) {
    state.waiting = true;
    const old = state.running;
    setTimeout(() => state.running === old && state.waiting && old.abort(), LONG_MS);
  } else ask(wanted);
}

async function ask(wanted) {
  const running = (state.running = new AbortController());
  const slow = setTimeout(() => {
    read("said").className = "";
    say("Tracing the model …");
  }, LONG_MS);
  let found;
  try {
    found = await (await post("answer", wanted, running.signal)).json();
  } catch (error) {
    found = { error: running.signal.aborted ? "" : `no answer: ${error.message}` };
  }
  clearTimeout(slow);
  state.running = null;
  const stale = state.waiting;
  state.waiting = false;
  if (found.error === undefined) show(found, wanted);
  else if (!stale) refused(found.error);
  if (stale) {
    desk.dataset.state = "waiting";
    ask(asked());
  }
}

function say(text) {
  read("said").textContent = text;
}

function refused(line) {
  desk.dataset.state = state.answer ? "error" : "empty";
  read("said").className = "bad";
  say(state.answer ? `${line}. The figures below are of: ${state.answer.command}` : line);
  for (const control of document.querySelectorAll(".control[data-flag]"))
    control.classList.toggle("wrong", new RegExp(`${control.dataset.flag}(?![\\w-])`).test(line));
  if (state.answer) compare();
  if (state.answer) paint();
  else drawn();
}

function show(answer, wanted) {
  state.answer = Object.assign(answer, { asked: wanted });
  desk.dataset.state = "ready";
  document.querySelectorAll(".wrong").forEach((each) => each.classList.remove("wrong"));
  document.title = answer.title;
  document.querySelector("h1").textContent = answer.title;
  say(answer.fits ? "It fits." : `It does not fit in memory.${answer.suggestions.length ? ` Try ${answer.suggestions.join(", or ")}` : ""}`);
  read("said").className = answer.fits ? "good" : "bad";
  read("answers").replaceChildren(...answer.figures.map((figure) => {
    const card = element("div", figure.label, "answer");
    card.title = figure.meaning;
    card.dataset.figure = figure.name;
    card.append(element("b", figure.text));
    return card;
  }));
  for (const field of fields) {
    const used = answer.used[field.id];
    if (field.tagName === "SELECT") field.options[0].textContent = used === undefined ? "default" : `default: ${used}`;
    else if (field.type === "text" && !["model", "hw"].includes(field.id)) field.placeholder = used ?? "";
  }
  sliders.filter((slider) => slider !== document.activeElement).forEach(place);
  read("view").replaceChildren(...answer.phases.map((phase) => element("option", phase)));
  read("view").value = answer.view;
  read("command").textContent = answer.command;
  const warnings = read("warnings");
  warnings.hidden = !answer.warnings.length;
  warnings.querySelector("summary").textContent = `${answer.warnings.length} remarks`;
  warnings.querySelector("ul").replaceChildren(...answer.warnings.map((each) => element("li", each)));
  compare();
  paint();
}

// -- charts: drawn after the figures are seen, and of the latest answer only -------------------------------------------

let plotly, painting = false, again = false;
function loaded() {
  plotly ??= new Promise((done, failed) => {
    const script = element("script");
    Object.assign(script, { src: "plotly.js", onload: done, onerror: failed });
    document.head.append(script);
  });
  return plotly;
}

async function paint() {
  again = true;
  if (painting) return;
  painting = true;
  await loaded();
  while (again) {
    again = false;
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
    const { command } = state.answer;
    await draw(charts());
    document.documentElement.dataset.charts = command;
  }
  painting = false;
  drawn();
}

function charts() {
  for (const [id, { data }] of Object.entries(state.answer.charts)) read(id).closest("figure").hidden = !data.length;
  return visible({ ...state.answer.charts, ...(state.pins.length ? { compared: bars() } : {}) });
}

function drawn() {
  document.documentElement.dataset.drawn = "yes";
}

// -- comparison --------------------------------------------------------------------------------------------------------

const refusedNow = () => desk.dataset.state === "error";
const columns = () => [...state.pins, ...(state.answer && !refusedNow() ? [{ ...state.answer, now: true }] : [])];
const called = (column) => (column.now ? "now" : `pin ${state.pins.indexOf(column) + 1}`);
const figureOf = (column, name) => column.figures.find((figure) => figure.name === name);
const compared = () => [...new Map(columns().flatMap(({ figures }) => figures.map((each) => [each.name, each]))).values()];

function compare() {
  const table = read("pins");
  table.replaceChildren();
  read("comparison").hidden = !state.pins.length;
  if (!state.pins.length) return;
  const head = table.createTHead().insertRow();
  head.append(element("th", "figure"));
  for (const column of columns()) {
    const cell = element("th", called(column), `number ${column.now ? "figures" : ""}`);
    cell.append(element("br"), element("small", column.command.replace("tensorcast simulate ", "")));
    if (!column.now) {
      const remove = element("button", "remove");
      remove.type = "button";
      remove.ariaLabel = `remove ${called(column)}`;
      remove.addEventListener("click", () => unpin(column));
      cell.append(element("br"), remove);
    }
    head.append(cell);
  }
  const body = table.createTBody();
  for (const { name, label, less } of compared()) {
    const row = body.insertRow();
    row.append(element("th", label));
    for (const column of columns()) row.append(compareCell(column, name, less));
  }
  const row = body.insertRow();
  row.append(element("th", "fits"));
  for (const { fits, now } of columns()) row.append(element("td", fits ? "yes" : "no", `number ${fits ? "good" : "bad"} ${now ? "figures" : ""}`));
}

function compareCell(column, name, less) {
  const [figure, base] = [figureOf(column, name), figureOf(state.pins[0], name)];
  const cell = element("td", figure ? figure.text : "–", `number ${column.now ? "figures" : ""}`);
  if (figure && base && column !== state.pins[0] && base.value) {
    const ratio = figure.value / base.value;
    const better = ratio === 1 || less === null ? "" : (ratio < 1) === less ? "good" : "bad";
    cell.append(" ", element("small", `×${ratio.toPrecision(3)}`, better));
  }
  return cell;
}

function bars() {
  const shared = compared().filter(({ drawn }) => drawn);
  const most = Object.fromEntries(shared.map(({ name }) =>
    [name, Math.max(...columns().map((column) => figureOf(column, name)?.value ?? 0))]));
  const data = columns().map((column) => ({
    type: "bar", name: called(column), x: shared.map(({ label }) => label),
    y: shared.map(({ name }) => (figureOf(column, name)?.value ?? 0) / most[name]),
    customdata: shared.map(({ name }) => figureOf(column, name)?.text ?? "none"),
    hovertemplate: "%{x}, %{fullData.name}: %{customdata}<extra></extra>",
  }));
  const colorway = read("compared").dataset.colours.split(" ");
  const layout = {
    barmode: "group", height: 300, colorway, yaxis: { tickformat: ".0%", title: { text: "of the largest" } },
    legend: { orientation: "h", y: -0.2 },
  };
  return { data, layout };
}

function pin() {
  if (desk.dataset.state !== "ready") return told("Wait for figures, or change what was refused.");
  if (state.pins.length === MOST_PINS) return told(`${MOST_PINS} at most: remove one first.`);
  state.pins.push({ ...state.answer });
  told("");
  pinsChanged();
}

function unpin(column) {
  state.pins.splice(state.pins.indexOf(column), 1);
  told("");
  pinsChanged();
}

function pinsChanged() {
  remember();
  compare();
  paint();
}

function told(text) {
  read("told").textContent = text;
}

// -- to take along -----------------------------------------------------------------------------------------------------

async function download(kind) {
  if (desk.dataset.state !== "ready") return told("Wait for figures, or change what was refused.");
  told(`Writing ${kind} …`);
  try {
    const response = await post(`download/${kind}`, state.answer.asked);
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
    if (!name) throw new Error((await response.json()).error);
    const link = element("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = name[1];
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    told("");
  } catch (error) {
    told(error.message);
  }
}

async function copy() {
  if (desk.dataset.state !== "ready") return told("Wait for figures, or change what was refused.");
  try {
    await navigator.clipboard.writeText(state.answer.command);
    told("Copied.");
  } catch {
    told("The browser does not allow it: select the line below.");
  }
}

// -- start -------------------------------------------------------------------------------------------------------------

function listen() {
  read("asked").addEventListener("submit", (event) => event.preventDefault());
  for (const slider of sliders)
    slider.addEventListener("input", () => {
      read(slider.dataset.slides).value = slider.dataset.scale.split(" ")[slider.value];
      update();
    });
  for (const field of [...fields, read("more")]) {
    // Half a name or a number is no question; a list's entry and a choice are whole.
    field.addEventListener("change", () => {
      sliders.filter(({ dataset }) => dataset.slides === field.id).forEach(place);
      update();
    });
  }
  read("view").addEventListener("change", ({ target }) => {
    state.view = target.value;
    update();
  });
  read("pin").addEventListener("click", pin);
  read("copy").addEventListener("click", copy);
  for (const button of document.querySelectorAll("[data-kind]"))
    button.addEventListener("click", () => download(button.dataset.kind));
  document.addEventListener("theme", () => state.answer && paint());
}

async function start() {
  listen();
  const query = new URLSearchParams(location.search);
  fill(askedBy(query));
  for (const each of query.getAll("pin").slice(0, MOST_PINS)) {
    const wanted = askedBy(new URLSearchParams(each));
    const found = await (await post("answer", wanted)).json();
    if (found.error === undefined) state.pins.push({ ...found, asked: wanted });
    else told(`a pin of the address is refused: ${found.error}`);
  }
  if ([...query].length) update();
  else drawn();
  loaded();
}

start();
