// Cards of people: all of them, or those whose name is looked for.
(() => {
  document.getElementById("more")?.addEventListener("click", (event) => { document.body.classList.add("all"); event.target.remove(); });
  const find = document.getElementById("find");
  find?.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    if (wanted) { document.body.classList.add("all"); document.getElementById("more")?.remove(); }
    for (const card of document.querySelectorAll(".card")) card.classList.toggle("out", !card.dataset.name.includes(wanted));
  });
  // A link from the timeline to a person beyond the first cards shows all of them.
  addEventListener("hashchange", () => {
    const card = document.querySelector(`.card.later:target`);
    if (card) { document.body.classList.add("all"); document.getElementById("more")?.remove(); card.scrollIntoView(); }
  });
})();
