// The page of `tensorcast ui`: controls ask (ask.js), answers are shown (figures.js), the address remembers.
import { recalled } from "./address.js";
import { post, update } from "./ask.js";
import { loaded } from "./charts.js";
import { fill, listen } from "./controls.js";
import { desk, state, told } from "./desk.js";
import { redraw } from "./figures.js";
import { MOST_PINS, pin } from "./pins.js";
import { copy, download } from "./take.js";

function buttons() {
  read("pin").addEventListener("click", pin);
  read("copy").addEventListener("click", copy);
  for (const button of document.querySelectorAll("[data-kind]"))
    button.addEventListener("click", () => download(button.dataset.kind));
  read("view").addEventListener("change", ({ target }) => {
    state.view = target.value;
    update();
  });
}

// The pins of the address, those that are refused left out.
async function recallPins(pins) {
  for (const wanted of pins.slice(0, MOST_PINS)) {
    try {
      const found = await (await post("answer", wanted)).json();
      if (found.error !== undefined) throw new Error(found.error);
      state.pins.push({ ...found, asked: wanted });
    } catch (error) {
      told(`A pin of the address is refused: ${error.message}`);
    }
  }
}

const { now, pins } = recalled();
listen(update);
buttons();
desk.addEventListener("pins", redraw);
document.addEventListener("theme", redraw);
fill(now);
await recallPins(pins);
update();
loaded();
