"use strict";
// What is seen while some groups are open: at each level, the items, the edges between them, and chips: values from outside.

const FAN = 3; // a value that more items of a level use is named at each of them, in place of so many lines

const SMALL = 24; // a dynamic part of so many ops is open from the beginning, as the static ones are

function firstOpen(graph) {
  const parts = graph.groups.filter((group) => group.kind === "part" && (group.note === "static" || group.counts.after <= SMALL));
  const open = new Set([-1, ...parts.map((group) => group.id)]);
  const ops = graph.ops[1];
  for (;;) {
    const seen = [graph.root, ...graph.groups].filter((group) => isSeen(group, open));
    const items = seen.flatMap((group) => group.items.filter((item) => !isGroup(item) || !open.has(item.id)));
    const closed = items.filter((item) => isGroup(item) && item.kind === "module").sort((a, b) => b.counts.after - a.counts.after);
    if (!closed.length || (ops > 40 && items.length >= 6)) return open;
    open.add(closed[0].id);
  }
}

function isSeen(group, open) {
  for (let up = group; up; up = up.up) if (!open.has(up.id)) return false;
  return true;
}

// The item of the level `group` that holds `slot`; null where it is outside.
function itemAt(group, slot) {
  let item = slot;
  while (item && item.up !== group) item = item.up;
  return item;
}

// `only` is a set of slots that alone are seen; null where all are.
function level(graph, group, open, only) {
  const seen = (slot) => !only || only.has(slot.id);
  const items = group.items.filter((item) => slotsIn(item).some(seen));
  const found = { items, edges: new Map(), chips: new Map() };
  const closed = (item) => isGroup(item) && !open.has(item.id);
  const used = new Map(); // value -> item -> pairs of slots, by side
  for (const item of items) {
    for (const slot of slotsIn(item).filter(seen)) {
      for (const side of ["before", "after"]) {
        for (const use of uses(slot, side)) {
          if (itemAt(group, graph.slots[use]) === item || !seen(graph.slots[use])) continue;
          const users = used.get(use) || used.set(use, new Map()).get(use);
          const pairs = users.get(item) || users.set(item, { before: [], after: [] }).get(item);
          pairs[side].push([use, slot.id]);
        }
      }
    }
  }
  for (const [id, users] of used) {
    const value = graph.slots[id];
    const source = itemAt(group, value);
    const many = users.size > FAN;
    for (const [item, pairs] of users) {
      if (source && !(many && closed(item)) && !(many && users.size > 2 * FAN)) connect(found, source, item, pairs);
      else if (!source && isNamed(value, item, closed, many)) chip(found, value, item, pairs);
    }
  }
  return found;
}

// Weights are not drawn. A value from outside is named where it is used; at a closed group only what is no cache and no position.
function isNamed(value, item, closed, many) {
  if (value.any.kind === "owned" && !value.role) return false;
  return isGroup(item) ? closed(item) && !many && !value.role : true;
}

function connect(found, source, item, pairs) {
  const key = `${keyOf(source)}>${keyOf(item)}`;
  const edge = found.edges.get(key) || { from: keyOf(source), to: keyOf(item), before: [], after: [] };
  edge.before.push(...pairs.before);
  edge.after.push(...pairs.after);
  found.edges.set(key, edge);
}

function chip(found, value, item, pairs) {
  const key = `chip${value.id}>${keyOf(item)}`;
  found.chips.set(key, { key, value, before: pairs.before.length > 0, after: pairs.after.length > 0 });
  found.edges.set(`${key}>${keyOf(item)}`, { from: key, to: keyOf(item), ...pairs });
}

function keyOf(item) {
  return isGroup(item) ? `group${item.id}` : `slot${item.id}`;
}
