// The address has the whole state, pins too, so that it can be kept, sent and reloaded.
import { asked, isSwitch } from "./controls.js";
import { state } from "./desk.js";

const PAUSE_MS = 200; // browsers take few changes of the address a second

function queryOf({ options, more, view }) {
  const query = new URLSearchParams(options);
  if (more) query.set("more", more);
  if (view) query.set("view", view);
  return query;
}

function askedBy(query) {
  const { more = "", view = "", ...texts } = Object.fromEntries([...query].filter(([name]) => name !== "pin"));
  const typed = Object.entries(texts).map(([name, value]) => [name, isSwitch(name) ? value === "true" : value]);
  return { options: Object.fromEntries(typed), more, view };
}

// What the address asks for now, and what each of its pins asked for.
export function recalled() {
  const query = new URLSearchParams(location.search);
  return { now: askedBy(query), pins: query.getAll("pin").map((pin) => askedBy(new URLSearchParams(pin))) };
}

let remembering;
export function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const query = queryOf(asked());
    state.pins.forEach((pin) => query.append("pin", queryOf(pin.asked)));
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  }, PAUSE_MS);
}
