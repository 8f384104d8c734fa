// The controls: options of `tensorcast simulate`. An empty one is not asked for and shows what it is by default.
import { element, state } from "./desk.js";

const NAMED = ["model", "hw"];
const fields = [...document.querySelectorAll("[data-option]")];
const sliders = [...document.querySelectorAll("[data-slides]")];
const stops = (slider) => slider.dataset.scale.split(" ");

// What the controls ask for, as the server takes it.
export function asked() {
  const given = fields.map((field) => [field.id, field.type === "checkbox" ? field.checked : field.value.trim()]);
  return { options: Object.fromEntries(given.filter(([, value]) => value)), more: read("more").value, view: state.view };
}

export const isSwitch = (name) => fields.some(({ id, type }) => id === name && type === "checkbox");

// Set the controls to what `asked` gave.
export function fill({ options, more, view }) {
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

// Everything but the model and the machine as it is by default.
export function clear() {
  const kept = Object.entries(asked().options).filter(([name]) => NAMED.includes(name));
  fill({ options: Object.fromEntries(kept), more: "", view: "" });
}

// A slider stands at the stop that is nearest to its box.
function place(slider) {
  const field = read(slider.dataset.slides);
  const shown = field.value || field.placeholder;
  const distances = stops(slider).map((stop) => Math.abs(Math.log1p(stop) - Math.log1p(shown || NaN)));
  slider.value = Math.max(0, distances.indexOf(Math.min(...distances)));
  slider.ariaValueText = shown || "default";
}

// Show what the options that are not asked for were: `used`, name → value; of others, what their help says.
export function showDefaults(used, { options }) {
  for (const field of fields) {
    const unknown = field.inputMode ? "" : field.dataset.default; // a number that is not told was not used
    const value = (field.id in options ? undefined : used[field.id]) ?? unknown;
    if (field.tagName === "SELECT") field.options[0].textContent = value ? `default: ${value}` : "default";
    else if (field.type === "text") field.placeholder = value;
  }
  sliders.filter((slider) => slider !== document.activeElement).forEach(place);
}

// Frame the controls whose flag a refusal names, folded ones too; none for "".
export function frame(line) {
  for (const control of document.querySelectorAll(".control[data-flag]")) {
    const isWrong = new RegExp(`${control.dataset.flag}(?![\\w-])`).test(line);
    control.classList.toggle("wrong", isWrong);
    const folded = control.closest("details");
    if (isWrong && folded) folded.open = true;
  }
}

// Call `changed` with the name of a control whenever one has another value.
export function listen(changed) {
  const form = read("asked");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const slider of sliders)
    slider.addEventListener("input", () => {
      const { slides } = slider.dataset;
      slider.ariaValueText = read(slides).value = stops(slider)[slider.value];
      changed(slides);
    });
  for (const field of [...fields, read("more")])
    // Half a name or a number is no question; a list's entry and a choice are whole.
    field.addEventListener("change", () => {
      sliders.filter(({ dataset }) => dataset.slides === field.id).forEach(place);
      changed(field.id);
    });
  read("defaults").addEventListener("click", () => {
    clear();
    changed("");
  });
  for (const event of ["pointerover", "focusin"])
    form.addEventListener(event, ({ target }) => {
      const control = target.closest(".control");
      if (!control) return;
      const flag = control.dataset.flag ? `${control.dataset.flag}: ` : "";
      read("help").textContent = flag + control.querySelector("small").textContent;
    });
}
