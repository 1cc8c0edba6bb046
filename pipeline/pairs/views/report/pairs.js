// The matrix of pairs: what a cell stands for, under the pointer.
(() => {
  const matrix = document.querySelector("svg.matches");
  if (!matrix) return;
  const { rows, most, noun, nouns } = JSON.parse(matrix.dataset.told), left = Number(matrix.dataset.left);
  const tip = document.getElementById("tip"), cell = matrix.querySelector(".cell"), side = 600 / rows.length;
  const leave = () => { tip.hidden = true; cell.setAttribute("visibility", "hidden"); };
  matrix.addEventListener("pointerleave", leave);
  matrix.addEventListener("pointermove", (event) => {
    const box = matrix.getBoundingClientRect(), scale = (600 + left) / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - left) / side), row = Math.floor((event.clientY - box.top) * scale / side);
    const value = most[row * rows.length + column];
    if (value === undefined || column < 0 || column >= rows.length) { leave(); return; }
    for (const [name, at] of [["x", left + column * side], ["y", row * side], ["width", side], ["height", side], ["visibility", "visible"]]) cell.setAttribute(name, at);
    const count = `${value} ${value === 1 ? noun : nouns}`;
    const said = value < 0 ? (row === column ? "" : "not compared") : rows[row].includes(" … ") ? `${count} at most` : count;
    tip.replaceChildren(...[rows[row], row === column ? "" : rows[column], said].filter(Boolean).map((text) => { const line = document.createElement("div"); line.textContent = text; return line; }));
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, event.clientX + 16 + size.width > innerWidth ? event.clientX - 16 - size.width : event.clientX + 16)}px`;
    tip.style.top = `${Math.max(6, Math.min(innerHeight - size.height - 6, event.clientY + 14))}px`;
  });
})();
