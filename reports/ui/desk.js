// What the page knows, and its two lines of text.
export const desk = read("desk");
export const state = { answer: null, pins: [], view: "" };

export const isReady = () => desk.dataset.state === "ready";

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Of the figures: that they fit, why there are none.
export function say(text, className = "") {
  read("said").textContent = text;
  read("said").className = className;
}

// Of the buttons: what came of pressing one.
export function told(text) {
  read("told").textContent = text;
}

// Charts are drawn, or there are none to draw.
export function settled() {
  document.documentElement.dataset.drawn = "yes";
}
