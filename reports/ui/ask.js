// The server is asked one thing at a time, as the controls move, and the answer to the latest is the one that counts.
import { remember } from "./address.js";
import { asked } from "./controls.js";
import { desk, say, settled, state } from "./desk.js";
import { refused, show } from "./figures.js";

const LONG_MS = 300; // a request that takes longer has a model to trace; it is left for what is asked after it
let running = null, isStale = false, lastMoved = "";

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

// Ask for figures of the controls as they stand. `moved`: the one that changed, whose other values may be next.
export function update(moved = "") {
  remember();
  lastMoved = moved;
  const wanted = asked();
  if (!state.answer && !wanted.options.hw && !wanted.more) {
    say(wanted.options.model ? "Choose a machine." : "Choose a model and a machine.");
    return settled();
  }
  if (state.answer) desk.dataset.state = "waiting";
  if (!running) return ask(wanted);
  isStale = true;
  const old = running;
  setTimeout(() => running === old && isStale && old.abort(), LONG_MS);
}

async function ask(wanted) {
  const mine = (running = new AbortController());
  const slow = setTimeout(() => say("Tracing the model …"), LONG_MS);
  let found;
  try {
    found = await (await post("answer", { ...wanted, moved: lastMoved }, mine.signal)).json();
  } catch (error) {
    found = { error: mine.signal.aborted ? "" : `no answer: ${error.message}` };
  }
  clearTimeout(slow);
  const stale = isStale;
  running = null;
  isStale = false;
  if (found.error === undefined) show(found, wanted);
  else if (!stale) refused(found.error);
  if (stale) {
    desk.dataset.state = "waiting";
    ask(asked());
  }
}
