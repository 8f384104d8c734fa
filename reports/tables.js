// Tables: sorted by their headers, filtered by words and choices, taken as CSV with every digit.
{
  const value = (cell) => cell.dataset.value ?? cell.textContent;
  const isNumber = (header) => header.classList.contains("number");

  // What has no value comes last either way.
  function compared(one, other, numbers, sign) {
    if (!one || !other) return !one - !other;
    return sign * (numbers ? parseFloat(one) - parseFloat(other) : one.localeCompare(other, "en", { numeric: true }));
  }

  // First the most of figures and the first of texts, then the other way round.
  function sort(table, header) {
    const up = header.ariaSort ? header.ariaSort === "descending" : !isNumber(header);
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const at = header.cellIndex;
    const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[at]), row]);
    rows.sort(([one], [other]) => compared(one, other, isNumber(header), up ? 1 : -1));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  function filter(box, table) {
    const words = box.querySelector("[data-filter]").value.toLowerCase().split(/\s+/).filter(Boolean);
    const headers = [...table.tHead.rows[0].cells];
    const chosen = [...box.querySelectorAll("[data-choose]")].filter((select) => select.value).map((select) =>
      [headers.findIndex((header) => header.dataset.name === select.dataset.choose), select.value]);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || chosen.some(([at, name]) => row.cells[at].textContent !== name);
    }
    box.querySelector("[data-count]").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }

  function csv(table) {
    const names = [...table.tHead.rows[0].cells].map((header) => header.dataset.name);
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(value));
    return [names, ...rows].map((cells) => `${cells.map(csvCell).join(",")}\n`).join("");
  }

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table");
    for (const header of table.tHead.rows[0].cells) header.firstElementChild.addEventListener("click", () => sort(table, header));
    for (const control of box.querySelectorAll("[data-filter], [data-choose]")) control.addEventListener("input", () => filter(box, table));
    box.querySelector("[data-csv]")?.addEventListener("click", ({ target }) => saveCsv(target.dataset.csv, csv(table)));
  }
}
