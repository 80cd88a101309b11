"use strict";
// The search box: every word must come up in a node's name, operator, type, module or source line; names come first.

const MOST = 40;

function searched(graph, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  graph.texts = graph.texts || graph.slots.map((slot) => textOf(graph, slot));
  const found = graph.slots.filter((slot) => words.every((word) => graph.texts[slot.id].includes(word)));
  const isNamed = (slot) => words.some((word) => slot.any.name.toLowerCase().includes(word));
  return [...found.filter(isNamed), ...found.filter((slot) => !isNamed(slot))];
}

function textOf(graph, slot) {
  const words = [];
  for (const node of new Set([slot.before, slot.after])) {
    if (node) words.push(node.name, node.op, node.type, ...(graph.lines[node.line] || []));
  }
  for (let group = slot.up; group && group.id >= 0; group = group.up) words.push(group.name, group.note);
  return words.join("\n").toLowerCase();
}

class Search {
  constructor(input, list, act) {
    Object.assign(this, { input, list, act, found: [], at: -1 });
    input.addEventListener("input", () => this.look());
    input.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("click", (event) => { if (!event.target.closest("#finder")) list.hidden = true; });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && document.activeElement !== input) { event.preventDefault(); input.focus(); }
    });
  }

  look() {
    this.found = searched(this.act.graph(), this.input.value);
    this.at = -1;
    this.list.replaceChildren();
    this.list.hidden = !this.input.value.trim();
    this.found.slice(0, MOST).forEach((slot, i) => {
      const entry = button(add(this.list, "li"), "", undefined, () => this.go(i));
      add(entry, "b", "", slot.any.name);
      add(entry, "span", "quiet", [slot.any.op === slot.any.kind ? "" : shortName(slot.any.op), slot.up ? slot.up.name : "input"].filter(Boolean).join(" \u00b7 "));
    });
    const more = this.found.length - MOST;
    if (!this.found.length) add(this.list, "li", "quiet", "nothing found");
    if (more > 0) add(this.list, "li", "quiet", `and ${more} more`);
  }

  key(event) {
    if (event.key === "Escape") this.list.hidden = true;
    if (event.key !== "Enter" || !this.found.length) return;
    event.preventDefault();
    this.go((this.at + (event.shiftKey ? -1 : 1) + this.found.length) % this.found.length);
  }

  go(i) {
    this.at = i;
    [...this.list.children].forEach((entry, place) => entry.classList.toggle("active", place === i));
    this.act.reveal(this.found[i]);
  }
}
