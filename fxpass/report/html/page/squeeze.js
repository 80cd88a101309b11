"use strict";
// A wide level, in which no group is open, drawn together: everything moves toward the middle, and what would meet in a row keeps its distance.
// The bends of edges stand in rows as nodes do. A row is least squares with distances kept: neighbors that push move as one.

const ROOM = 740, LEAST = 0.4, BETWEEN = 16, BESIDE = 9;

// Sets the x of the nodes of `g`, and of the bends of its edges; gives the width.
function squeeze(g) {
  const { width } = g.graph();
  if (!(width > ROOM)) return width;
  const factor = Math.max(LEAST, ROOM / width);
  const places = g.nodes().map((key) => g.node(key));
  for (const edge of g.edges()) places.push(...g.edge(edge).points.slice(1, -1));
  for (const place of places) place.x *= factor;
  d3.groups(places, (place) => Math.round(place.y)).forEach(([, row]) => settle(row.sort((a, b) => a.x - b.x)));
  const left = d3.min(places, (place) => place.x - breadth(place) / 2) - PAD;
  for (const place of places) place.x -= left;
  for (const edge of g.edges()) endsOf(g, edge);
  return d3.max(places, (place) => place.x + breadth(place) / 2) + PAD;
}

function breadth(place) {
  return place.width || 0;
}

function settle(row) {
  let offset = 0;
  const blocks = [];
  row.forEach((place, i) => {
    const before = row[i - 1];
    if (before) offset += (breadth(before) + breadth(place)) / 2 + (before.width && place.width ? BETWEEN : BESIDE);
    const weight = place.width ? 1 : 2;
    blocks.push({ sum: weight * (place.x - offset), weight, members: [[place, offset]] });
    while (blocks.length > 1 && mean(blocks.at(-2)) > mean(blocks.at(-1))) {
      const last = blocks.pop(), block = blocks.at(-1);
      block.sum += last.sum;
      block.weight += last.weight;
      block.members.push(...last.members);
    }
  });
  for (const block of blocks) for (const [place, at] of block.members) place.x = mean(block) + at;
}

function mean(block) {
  return block.sum / block.weight;
}

// An edge begins under its first node and ends above its last, toward its bends.
function endsOf(g, edge) {
  const { points } = g.edge(edge), from = g.node(edge.v), to = g.node(edge.w);
  const within = (node, point) => Math.max(node.x - node.width * 0.3, Math.min(node.x + node.width * 0.3, point.x));
  points[0] = { x: within(from, points[1]), y: from.y + from.height / 2 };
  points[points.length - 1] = { x: within(to, points[points.length - 2]), y: to.y - to.height / 2 };
}
