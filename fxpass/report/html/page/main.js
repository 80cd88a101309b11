"use strict";
// The page as a whole: which graph is shown, what is open, selected and highlighted.

(function () {
  const graphs = readGraphs(document.getElementById("data"));
  const side = document.getElementById("side");
  const state = { graph: null, open: new Set(), selected: null, flow: null, only: null };
  const act = { graph: () => state.graph, toggle, select, reveal, flow };
  const panes = new Panes(act);
  const notice = document.getElementById("notice");

  function refresh() {
    panes.show(laidOut(state.graph, state.graph.root, state.open, state.only));
    notice.hidden = !state.only;
    panes.mark(state.flow, state.selected);
  }

  function show(graph) {
    Object.assign(state, { graph, open: firstOpen(graph), selected: null, flow: null, only: null });
    document.querySelectorAll("#graphs button").forEach((tab, i) => tab.setAttribute("aria-pressed", graphs[i] === graph));
    SIDES.forEach((name, i) => { document.querySelector(`#${name} h2 span`).textContent = opsOf(graph.ops[i]); });
    showOverview(side, graph, act);
    showLegend(document.getElementById("legend"), graph);
    refresh();
    panes.fit();
  }

  function boxOfItem(item) {
    const { items, open } = panes.layout;
    return items.find((box) => box.item === item) || open.find((box) => box.group === item);
  }

  function toggle(group) {
    const from = boxOfItem(group);
    if (!state.open.delete(group.id)) state.open.add(group.id);
    refresh();
    const to = boxOfItem(group);
    if (from && to) panes.hold({ x: from.x + from.width / 2, y: from.y }, { x: to.x + to.width / 2, y: to.y });
    if (to) panes.bring(to);
  }

  function select(slot) {
    state.selected = slot === state.selected ? null : slot;
    showSlot(side, state.graph, state.selected, act);
    panes.mark(state.flow, state.selected);
  }

  function openAround(slot) {
    for (let group = slot.up; group; group = group.up) state.open.add(group.id);
  }

  function reveal(slot) {
    if (state.only && !state.only.has(slot.id)) state.only = state.flow = null;
    openAround(slot.up ? slot : state.graph.slots[slot.users.after[0] ?? slot.users.before[0]] || slot);
    state.selected = null;
    refresh();
    select(slot);
    const box = boxOfItem(slot) || panes.layout.chips.find((made) => made.value === slot);
    if (box) panes.center([box]);
  }

  // Shows what lies between a position, a slice and its consumer, and what that takes; all else is left out.
  function flow(place) {
    const { slots } = state.graph;
    state.flow = { before: new Set(place.before), after: new Set(place.after) };
    state.only = new Set([...place.before, ...place.after]);
    for (const side of SIDES) place[side].forEach((id) => uses(slots[id], side).forEach((use) => state.only.add(use)));
    state.only.forEach((id) => openAround(slots[id]));
    notice.querySelector("span").textContent = `The flow of ${place.buffer || slots[place.slot].any.name}`;
    state.selected = null;
    refresh();
    select(slots[place.slot]);
    const lit = panes.layout.items.filter((box) => slotsIn(box.item).some(({ id }) => SIDES.some((side) => state.flow[side].has(id))));
    panes.center(lit.length ? lit : panes.layout.items);
  }

  function showAll() {
    state.only = null;
    refresh();
    const boxes = panes.layout.items.filter((box) => box.item === state.selected);
    if (boxes.length) panes.center(boxes);
    else panes.fit();
  }

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (name) => { document.documentElement.dataset.theme = name; };
  setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  document.getElementById("fit").addEventListener("click", () => panes.fit());
  document.getElementById("fold").addEventListener("click", () => show(state.graph));
  notice.querySelector("button").addEventListener("click", () => { state.flow = null; showAll(); });
  SIDES.forEach((name) => document.querySelector(`#${name} svg`).addEventListener("click", () => state.selected && select(state.selected)));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.target.id === "search") return;
    if (state.selected) select(state.selected);
    else if (state.only) notice.querySelector("button").click();
  });
  window.addEventListener("resize", () => panes.fit());

  graphs.forEach((graph) => button(document.getElementById("graphs"), "", graph.name, () => show(graph)));
  new Search(document.getElementById("search"), document.getElementById("results"), act);
  show(graphs[graphs.length - 1]);
})();
