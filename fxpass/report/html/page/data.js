"use strict";
// The data of the page as objects: graphs with slots and groups that know each other.

function readGraphs(element) {
  return JSON.parse(element.textContent).graphs.map(indexed);
}

function indexed(graph) {
  graph.root = { id: -1, items: [], up: null, counts: { before: 0, after: 0 }, marks: {}, kind: "root" };
  graph.groups.forEach((group, id) => {
    Object.assign(group, { id, items: [], up: graph.groups[group.parent] || graph.root, counts: { before: 0, after: 0 }, marks: {} });
  });
  graph.slots.forEach((slot, id) => {
    if (slot.both) slot.before = slot.after = slot.both;
    slot.id = id;
    slot.any = slot.after || slot.before;
    slot.users = { before: [], after: [] };
    slot.up = slot.any.kind === "op" || slot.any.kind === "output" ? graph.groups[slot.group] || graph.root : null;
    if (slot.up) contain(slot);
  });
  for (const side of ["before", "after"]) {
    for (const slot of graph.slots) for (const use of uses(slot, side)) graph.slots[use].users[side].push(slot.id);
  }
  graph.sites.forEach((site) => site.places.forEach((place) => count(graph.slots[place.slot], site.decision === "refused" ? "refused" : site.kind)));
  return graph;
}

function contain(slot) {
  let item = slot;
  for (let group = slot.up; group; item = group, group = group.up) {
    if (group.items[group.items.length - 1] !== item && !(isGroup(item) && group.items.includes(item))) group.items.push(item);
    if (slot.before && slot.before.kind === "op") group.counts.before += 1;
    if (slot.after && slot.after.kind === "op") group.counts.after += 1;
    group.marks[slot.status] = (group.marks[slot.status] || 0) + 1;
  }
}

function count(slot, kind) {
  for (let group = slot.up; group; group = group.up) group.marks[kind] = (group.marks[kind] || 0) + 1;
}

function uses(slot, side) {
  return slot[side] ? slot[side].uses : [];
}

function isGroup(item) {
  return item.items !== undefined;
}

function slotsIn(item) {
  return isGroup(item) ? item.items.flatMap(slotsIn) : [item];
}

function isWhole(type) {
  return /^[iu]\d+\[/.test(type) || !type.includes("[");
}

function shortName(op) {
  return op.replace(/^aten\./, "");
}
