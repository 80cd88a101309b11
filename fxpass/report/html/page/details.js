"use strict";
// The column at the side: what was found in the graph, and all about what is selected. All text is set as text.

const MOST_REASONS = 3;

function add(parent, tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function button(parent, name, text, act) {
  const made = add(parent, "button", name, text);
  made.addEventListener("click", act);
  return made;
}

function showOverview(side, graph, act) {
  side.replaceChildren();
  const card = add(side, "section", "card");
  add(card, "h3", "", graph.name);
  const counts = add(card, "p", "counts");
  add(counts, "b", "good", `${graph.rewritten} rewritten`);
  add(counts, "b", graph.refused ? "bad" : "quiet", `${graph.refused} refused`);
  if (graph.parts.length) {
    const parts = add(card, "p", "parts");
    graph.parts.forEach((part) => add(parts, "span", `part-${part.name}`, `${part.name}: ${opsOf(part.ops)}, ${part.static ? "static" : "dynamic"}`));
  }
  showReasons(card, graph.reasons);
  if (graph.symbols.length) {
    const list = add(card, "dl", "facts");
    graph.symbols.forEach(([name, kind, of]) => { add(list, "dt", "", name); add(list, "dd", "", `${kind}: ${of}`); });
  }
  if (graph.sites.length) add(side, "h4", "", "What uses a position");
  graph.sites.forEach((site) => showSite(side, graph, site, act));
}

// What keeps a graph from being better; of many the rest opens with a click. Those of chapters 3 and 4, and light ops (KV212), are no fault.
function showReasons(card, reasons) {
  const say = (parent, text) => add(parent, "p", /^KV(3|4|212)/.test(text) ? "reason calm" : "reason", text);
  reasons.slice(0, MOST_REASONS).forEach((text) => say(card, text));
  if (reasons.length <= MOST_REASONS) return;
  const rest = add(card, "details", "reasons");
  add(rest, "summary", "", `and ${reasons.length - MOST_REASONS} more`);
  reasons.slice(MOST_REASONS).forEach((text) => say(rest, text));
}

function showSite(side, graph, site, act) {
  const card = add(side, "section", `card site ${site.decision}`);
  const head = add(card, "p", "head");
  add(head, "b", "kind", site.kind);
  add(head, "span", "buffer", site.buffer ? `${site.buffer}, dim ${site.dim}` : site.chain[site.chain.length - 1]);
  add(head, "span", "decision", site.decision);
  showLine(card, graph.lines[site.line]);
  if (site.buffer) add(card, "p", "chain", site.chain.join(" \u2192 "));
  if (site.reads) add(card, "p", "quiet", `reads ${site.reads}`);
  if (site.reason) add(card, "p", "reason", site.reason);
  if (site.advice) add(card, "p", "quiet", site.advice);
  if (!site.places.length) return;
  const steps = add(card, "p", "steps");
  let at = -1;
  const go = (step) => {
    at = (at + step + site.places.length) % site.places.length;
    shown.textContent = site.places.length > 1 ? `${at + 1} of ${site.places.length}` : "";
    side.querySelectorAll(".site").forEach((other) => other.classList.toggle("active", other === card));
    act.flow(site.places[at]);
  };
  button(steps, "go", "Show the flow", () => go(at < 0 ? 1 : 0));
  const shown = add(steps, "span", "quiet", site.places.length > 1 ? `${site.places.length} places` : "");
  if (site.places.length > 1) {
    button(steps, "step", "\u2039", () => go(-1)).setAttribute("aria-label", "previous place");
    button(steps, "step", "\u203a", () => go(1)).setAttribute("aria-label", "next place");
  }
}

function showLine(parent, line) {
  if (!line) return;
  const [short, code, whole] = line;
  add(parent, "code", "line", code);
  add(parent, "p", "where", short).title = whole;
}

function showSlot(side, graph, slot, act) {
  side.querySelector(".selection")?.remove();
  if (!slot) return;
  const card = document.createElement("section");
  card.className = "card selection";
  side.prepend(card);
  const head = add(card, "p", "head");
  add(head, "b", "kind", slot.any.name);
  add(head, "span", `status ${slot.status}`, { same: "same on both sides", changed: "takes something else", replaced: "replaced", added: "added", removed: "removed" }[slot.status]);
  button(head, "close", "\u00d7", () => act.select(null)).setAttribute("aria-label", "close");
  const sides = slot.before === slot.after ? [["", slot.any]] : [["Before", slot.before], ["After", slot.after]];
  for (const [name, node] of sides) if (node) showNode(card, graph, slot, name, node, act);
  if (slot.up && slot.up.id >= 0) showModules(card, slot);
  side.scrollTop = 0;
}

function showNode(card, graph, slot, name, node, act) {
  if (name) add(card, "h5", "", name);
  const list = add(card, "dl", "facts");
  const fact = (what, text, kind) => { add(list, "dt", "", what); return add(list, "dd", kind || "", text); };
  if (node.kind === "op") fact("op", node.op, "mono");
  fact("shape", node.type, "mono");
  if (node.kind === "op") fact("call", node.call, "mono");
  const side = node === slot.before && node !== slot.after ? "before" : "after";
  linked(fact, "takes", node.uses, graph, side, act);
  linked(fact, "goes to", slot.users[side], graph, side, act);
  showLine(card, graph.lines[node.line]);
}

function linked(fact, what, slots, graph, side, act) {
  if (!slots.length) return;
  const place = fact(what, "", "links");
  [...new Set(slots)].slice(0, 24).forEach((id) => {
    const slot = graph.slots[id];
    button(place, "link", (slot[side] || slot.any).name, () => act.reveal(slot));
  });
  if (slots.length > 24) add(place, "span", "quiet", `and ${slots.length - 24} more`);
}

function showModules(card, slot) {
  const path = [];
  for (let group = slot.up; group && group.id >= 0; group = group.up) path.unshift(group);
  const list = add(card, "dl", "facts");
  path.filter((group) => group.kind !== "run").forEach((group) => {
    add(list, "dt", "", group.kind === "part" ? "part" : "in");
    add(list, "dd", "", group.note ? `${group.name}, ${group.note}` : group.name);
  });
}

// What the colors mean, of those that there are in the graph.
function showLegend(element, graph) {
  const swatches = [["added", "added"], ["removed", "removed"], ["replaced", "replaced"], ["changed", "takes something else"],
    ["role-position", "position"], ["role-slice", "slice"], ["role-mask", "mask"],
    ["part-prologue", "prologue"], ["part-core", "static core"], ["part-epilogue", "epilogue"]];
  const there = new Set([...graph.slots.flatMap((slot) => [slot.status, `role-${slot.role}`]), ...graph.parts.map((part) => `part-${part.name}`)]);
  element.replaceChildren();
  for (const [kind, text] of swatches.filter(([each]) => there.has(each))) {
    const entry = add(element, "span", "entry");
    add(entry, "i", `swatch ${kind}`);
    entry.append(text);
  }
  add(element, "span", "hint", "Click a module to open it, an op for its details. Ctrl and scroll zooms, / searches, Escape closes.");
}
