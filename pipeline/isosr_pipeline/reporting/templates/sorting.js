"use strict";
for (const header of document.querySelectorAll("table.sortable th")) {
  header.querySelector("button").addEventListener("click", () => {
    const table = header.closest("table"), body = table.tBodies[0];
    const rising = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = row => row.cells[header.cellIndex].dataset.value;
    const empty = value => value === undefined || value === "";
    const compare = (a, b) => {
      // What is not known comes last, whatever the order.
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      const numbers = [Number(a), Number(b)];
      const order = numbers.some(Number.isNaN) ? a.localeCompare(b, undefined, {numeric: true})
        : numbers[0] === numbers[1] ? 0 : numbers[0] < numbers[1] ? -1 : 1;
      return rising ? order : -order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  });
}
