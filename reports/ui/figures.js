// The answer of the server on the page: its figures, or the line that says why there are none.
import { paint } from "./charts.js";
import { frame, showDefaults } from "./controls.js";
import { desk, element, say, settled, state } from "./desk.js";
import { bars, compare } from "./pins.js";

export function show(answer, wanted) {
  state.answer = { ...answer, asked: wanted };
  desk.dataset.state = "ready";
  document.title = answer.title;
  document.querySelector("h1").textContent = answer.title;
  say(verdict(answer), answer.fits ? "good" : "bad");
  frame("");
  showDefaults(answer.used, wanted);
  read("answers").replaceChildren(...answer.figures.map(card));
  read("view").replaceChildren(...answer.phases.map((phase) => element("option", phase)));
  read("view").value = answer.view;
  read("command").textContent = answer.command;
  showWarnings(answer.warnings);
  redraw();
}

// The last figures stay, but never as if they were those that were asked for.
export function refused(line) {
  desk.dataset.state = state.answer ? "error" : "empty";
  say(state.answer ? `${line}. The figures below are of: ${state.answer.command}` : line, "bad");
  frame(line);
  redraw();
}

// Pins and charts as they should be now.
export function redraw() {
  compare();
  if (!state.answer) return settled();
  paint({ ...state.answer.charts, ...(state.pins.length ? { compared: bars() } : {}) }, state.answer.command);
}

function verdict({ fits, suggestions }) {
  if (fits) return "It fits.";
  return `It does not fit in memory.${suggestions.length ? ` Try ${suggestions.join(", or ")}` : ""}`;
}

function card({ name, label, text, meaning }) {
  const made = element("div", label, "answer");
  made.title = meaning;
  made.dataset.figure = name;
  made.append(element("b", text));
  return made;
}

function showWarnings(warnings) {
  const place = read("warnings");
  place.hidden = !warnings.length;
  place.querySelector("summary").textContent = warnings.length === 1 ? "1 remark" : `${warnings.length} remarks`;
  place.querySelector("ul").replaceChildren(...warnings.map((each) => element("li", each)));
}
