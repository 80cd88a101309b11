"use strict";
// Where everything stands: each open group is laid out by dagre for itself, from the inside out, and both panes share the result.

const HEAD = 30, PAD = 14, OP = 42, CLOSED = 52, CHIP = 22;
const WIDE = 24, ABREAST = 3, BACK = 2; // of more items than this, so few stand in one row, near to where the program has them
const measure = document.createElement("canvas").getContext("2d");

function textWidth(text, font) {
  measure.font = font;
  return measure.measureText(text).width;
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}\u2026` : text;
}

// Gives { width, height, items: [{ item, x, y, width, height }], edges: [{ points, ... }], chips, open: [...] } of a group.
function laidOut(graph, group, open, only) {
  const found = level(graph, group, open, only);
  const inner = new Map();
  const g = new dagre.graphlib.Graph();
  g.setGraph({ rankdir: "TB", ranksep: 28, nodesep: 14, edgesep: 8, marginx: PAD, marginy: PAD });
  g.setDefaultEdgeLabel(() => ({}));
  for (const item of found.items) {
    if (isGroup(item) && open.has(item.id)) inner.set(item, laidOut(graph, item, open, only));
    g.setNode(keyOf(item), inner.has(item) ? { width: inner.get(item).width, height: inner.get(item).height } : sizeOf(item));
  }
  for (const made of found.chips.values()) g.setNode(made.key, sizeOfChip(made));
  for (const edge of found.edges.values()) g.setEdge(edge.from, edge.to, { minlen: 1, weight: edge.from.startsWith("chip") ? 1 : 2 });
  if (found.items.length > WIDE) keepNarrow(g, found);
  dagre.layout(g);
  const size = { width: inner.size ? g.graph().width : squeeze(g), height: g.graph().height };
  const head = group.kind === "root" ? 0 : HEAD;
  const own = { items: [], chips: [], edges: [], open: [] };
  for (const item of found.items) {
    const box = boxOf(g.node(keyOf(item)), head);
    if (inner.has(item)) nest(own, item, inner.get(item), box);
    else own.items.push({ item, ...box });
  }
  for (const made of found.chips.values()) own.chips.push({ ...made, ...boxOf(g.node(made.key), head) });
  for (const [key, edge] of found.edges) {
    const points = g.edge(edge.from, edge.to).points.map((point) => ({ x: point.x, y: point.y + head }));
    own.edges.push({ key: `${group.id}:${key}`, ...edge, points });
  }
  own.width = Math.max(size.width, group.kind === "root" ? 0 : widthOfHead(group));
  own.height = size.height + head;
  shift(own, (own.width - size.width) / 2, 0);
  return own;
}

// Edges that are not drawn keep each item in the row that it is given: between the first items of the rows before and after.
function keepNarrow(g, found) {
  const rows = rowsOf(found);
  rows.forEach((row, i) => {
    for (const key of row) {
      if (i > 0 && !g.hasEdge(rows[i - 1][0], key)) g.setEdge(rows[i - 1][0], key, { weight: 0 });
      if (i + 1 < rows.length && !g.hasEdge(key, rows[i + 1][0])) g.setEdge(key, rows[i + 1][0], { weight: 0 });
    }
  });
}

function rowsOf(found) {
  const before = new Map(found.items.map((item) => [keyOf(item), []]));
  for (const edge of found.edges.values()) if (before.has(edge.from)) before.get(edge.to).push(edge.from);
  const rows = [], place = new Map();
  const visit = (key) => {
    if (place.has(key)) return;
    before.get(key).forEach(visit);
    let row = Math.max(0, rows.length - 1 - BACK, ...before.get(key).map((used) => place.get(used) + 1));
    while (rows[row] && rows[row].length >= ABREAST) row += 1;
    (rows[row] = rows[row] || []).push(key);
    place.set(key, row);
  };
  before.forEach((_, key) => visit(key));
  return rows;
}

function boxOf(node, head) {
  return { x: node.x - node.width / 2, y: node.y - node.height / 2 + head, width: node.width, height: node.height };
}

function nest(own, group, inner, box) {
  shift(inner, box.x, box.y);
  own.open.push({ group, ...box }, ...inner.open);
  own.items.push(...inner.items);
  own.chips.push(...inner.chips.map((made) => ({ ...made, key: `${group.id}:${made.key}` })));
  own.edges.push(...inner.edges);
}

function shift(own, x, y) {
  for (const box of [...own.items, ...own.chips, ...own.open]) Object.assign(box, { x: box.x + x, y: box.y + y });
  for (const edge of own.edges) edge.points = edge.points.map((point) => ({ x: point.x + x, y: point.y + y }));
}

function sizeOf(item) {
  if (isGroup(item)) {
    const width = Math.max(textWidth(titleOf(item), "600 12.5px system-ui"), textWidth(noteOf(item), "11px system-ui"), 120);
    const beside = Math.max(...["before", "after"].map((side) => marksWidth(item, side)));
    return { width: width + 34 + beside, height: CLOSED };
  }
  const texts = [item.before, item.after].filter(Boolean);
  const width = Math.max(...texts.map((node) => Math.max(textWidth(opTitle(node)[0], "600 12px system-ui") + textWidth(opTitle(node)[1], "12px system-ui"), textWidth(opNote(node), "10.5px ui-monospace, monospace"))));
  return { width: Math.max(width + 26, 76), height: OP };
}

function sizeOfChip(made) {
  return { width: textWidth(clipped(made.value.any.name, 30), "11px ui-monospace, monospace") + 22, height: CHIP };
}

function widthOfHead(group) {
  const counts = ["before", "after"].map((side) => textWidth(countOf(group, side), "11px system-ui"));
  return textWidth(titleOf(group), "600 12px system-ui") + Math.max(...counts) + 62;
}

// What stands at the right of an open group's head.
function countOf(group, side) {
  return `${group.kind === "part" ? `${group.note}, ` : ""}${opsOf(group.counts[side])}`;
}

function titleOf(group) {
  return group.kind === "part" ? group.name : clipped(group.name, 44);
}

function noteOf(group) {
  const sites = [["read", "reads"], ["write", "writes"]].filter(([kind]) => group.marks[kind])
    .map(([kind, many]) => `${group.marks[kind]} ${group.marks[kind] > 1 ? many : kind}`);
  const ops = group.kind === "part" ? [opsOf(group.counts.after)] : [];
  return [clipped(group.note, 30), ...ops, ...sites].filter(Boolean).join(" \u00b7 ");
}

function opsOf(count) {
  return count === 1 ? "1 op" : `${count} ops`;
}

// A node's name in two: its operator, if the name begins with that, and the rest.
function opTitle(node) {
  if (node.kind === "output") return ["return", ""];
  const op = shortName(node.op).split(".")[0];
  return node.name.startsWith(op) ? [op, clipped(node.name.slice(op.length), 24)] : [clipped(node.name, 30), ""];
}

function opNote(node) {
  return node.kind === "output" ? "" : clipped(node.type, 30);
}
