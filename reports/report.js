"use strict";
// Charts: they and plotly.js travel gzipped inside the page; text and tables are there before they are unpacked.
const read = (id) => document.getElementById(id);
const FINGER = window.matchMedia("(pointer: coarse)").matches;
const SYSTEM = window.matchMedia("(prefers-color-scheme: dark)");

// As the system says until somebody chooses.
function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : SYSTEM.matches;
}

// What a colour of the style sheet is at the moment.
function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function themed(layout, text, line) {
  const axis = (given) => ({ gridcolor: line, zerolinecolor: line, automargin: true, ...given });
  const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 10, t: 30, b: 10 },
    dragmode: FINGER ? false : "zoom", // a finger scrolls the page
    ...layout, font: { color: text, family: "system-ui, sans-serif", size: 13 },
    ...Object.fromEntries(["xaxis", "yaxis", ...axes].map((key) => [key, axis(layout[key])])),
  };
}

// Nothing is sent anywhere: without plotlyServerURL the library has no place to send a chart to.
const OPTIONS = {
  responsive: true, displaylogo: false, plotlyServerURL: "", displayModeBar: FINGER ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"],
};

// Scales of colours are made for white paper: what is dark there is light on a dark page.
const turned = (part) => ({ ...part, reversescale: !part.reversescale });
const toned = (trace) => (trace.colorscale ? turned(trace) : trace.line?.colorscale ? { ...trace, line: turned(trace.line) } : trace);

function draw(figures, width) {
  const colours = [colour("--text"), colour("--line")];
  const dark = isDark();
  return Promise.all(Object.entries(figures).map(([id, figure]) =>
    window.Plotly.react(read(id), dark ? figure.data.map(toned) : figure.data, { ...themed(figure.layout, ...colours), width }, OPTIONS)));
}

// A chart is drawn when it can be seen: hidden ones have no size. A page need not have a place for each.
const visible = (figures) =>
  Object.fromEntries(Object.entries(figures).filter(([id]) => read(id) && !read(id).closest("[hidden]")));

// Paper is white, and narrower than a screen.
function printing(figures) {
  const PAPER = 700;
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    draw(visible(figures), PAPER);
  });
  window.addEventListener("afterprint", async () => {
    theme ? (document.documentElement.dataset.theme = theme) : delete document.documentElement.dataset.theme;
    await draw(visible(figures));
    for (const id of Object.keys(visible(figures))) window.Plotly.Plots.resize(id);
  });
}

// Light and dark: "theme" is told to the document.
function themes() {
  const tell = () => document.dispatchEvent(new Event("theme"));
  SYSTEM.addEventListener("change", tell);
  document.querySelector("[data-toggle-theme]").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
}

// One of several charts: the one that is chosen.
function chooseViews(drawn) {
  for (const select of document.querySelectorAll("[data-views]")) {
    const show = () => {
      for (const view of select.closest(".views").querySelectorAll("[data-view]")) view.hidden = view.dataset.view !== select.value;
      drawn();
    };
    select.addEventListener("change", show);
  }
}

function copies() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const text = read(button.dataset.copy);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected: copy it with the keyboard";
      }
    });
  }
}

// Parallel coordinates are drawn by WebGL; where there is none, a sentence stands in their place.
function withoutWebGL(figures) {
  if (document.createElement("canvas").getContext("webgl")) return;
  for (const [id, { data }] of Object.entries(figures)) {
    if (!data.some((trace) => trace.type === "parcoords")) continue;
    delete figures[id];
    read(id)?.replaceWith("This chart is drawn with WebGL, which this browser does not have or has turned off.");
  }
}

const csvCell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function saveCsv(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function charts() {
  const figures = JSON.parse(await unpack(read("figures").textContent));
  withoutWebGL(figures);
  const redraw = () => draw(visible(figures));
  if (Object.keys(figures).length) {
    const script = document.createElement("script");
    script.textContent = await unpack(read("plotly").textContent);
    document.head.append(script);
    await window.prepare?.(figures); // a page that fills its charts from rows
    await redraw();
    chooseViews(redraw);
    printing(figures);
    document.addEventListener("theme", redraw);
  }
  document.documentElement.dataset.drawn = "yes";
}

themes();
copies();
if (read("figures")) requestAnimationFrame(() => setTimeout(charts));
