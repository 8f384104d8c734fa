// Charts are drawn after the figures are seen, and only those of the latest answer.
import { settled } from "./desk.js";

let plotly, painting = false, wanted = null;
const shown = {}; // id → chart, as last drawn: what a printer is given

export function loaded() {
  plotly ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: "plotly.js", onload: done, onerror: failed });
    document.head.append(script);
  }).then(() => printing(shown));
  return plotly;
}

// Draw these; `command` then stands at the document, for whoever waits for them.
export async function paint(charts, command) {
  wanted = { charts, command };
  if (painting) return;
  painting = true;
  await loaded();
  while (wanted) {
    const now = wanted;
    wanted = null;
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
    if (wanted) continue; // something newer has come
    for (const [id, { data }] of Object.entries(now.charts)) {
      const figure = read(id)?.closest("figure");
      if (figure) figure.hidden = !data.length;
    }
    for (const id of Object.keys(shown)) delete shown[id];
    await draw(visible(Object.assign(shown, now.charts)));
    document.documentElement.dataset.charts = now.command;
  }
  painting = false;
  settled();
}
