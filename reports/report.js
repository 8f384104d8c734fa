"use strict";
// Charts: plotly.js travels gzipped inside the page; text and tables are there before it is unpacked.
const read = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function themed(layout) {
  const axis = (given) => ({ gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true, ...given });
  const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 10, t: 30, b: 10 },
    ...layout, font: { color: colour("--text"), family: "system-ui, sans-serif", size: 13 },
    ...Object.fromEntries(["xaxis", "yaxis", ...axes].map((key) => [key, axis(layout[key])])),
  };
}

function draw(figures) {
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  return Promise.all(Object.entries(figures).map(([id, figure]) =>
    window.Plotly.react(read(id), figure.data, themed(figure.layout), options)));
}

async function charts() {
  const figures = JSON.parse(read("figures").textContent);
  if (!Object.keys(figures).length) return;
  const script = document.createElement("script");
  script.textContent = await unpack(read("plotly").textContent);
  document.head.append(script);
  await draw(figures);
  const again = () => draw(figures);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", again);
  document.documentElement.dataset.drawn = "yes";
}

if (read("figures")) requestAnimationFrame(() => setTimeout(charts));
