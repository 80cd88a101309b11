"use strict";
// Both panes: the same layout drawn twice, each with what its side has, moved and zoomed as one.

const SIDES = ["before", "after"];
const READABLE = 0.65; // no smaller than this, unless one zooms out
const line = d3.line((point) => point.x, (point) => point.y).curve(d3.curveMonotoneY);

class Panes {
  constructor(act) {
    this.act = act;
    this.panes = SIDES.map((side) => {
      const svg = d3.select(`#${side} svg`);
      const layer = svg.append("g").attr("class", "layer");
      for (const name of ["groups", "edges", "items"]) layer.append("g").attr("class", name);
      return { side, svg, layer };
    });
    this.zoom = d3.zoom().scaleExtent([0.08, 2]).filter((event) => event.type !== "wheel" || event.ctrlKey || event.metaKey);
    this.zoom.on("zoom", (event) => this.move(event.transform));
    for (const pane of this.panes) {
      pane.svg.call(this.zoom).on("dblclick.zoom", null);
      pane.svg.on("wheel.pan", (event) => {
        if (event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        const k = d3.zoomTransform(pane.svg.node()).k;
        pane.svg.call(this.zoom.translateBy, -event.deltaX / k, -event.deltaY / k);
      }, { passive: false });
    }
  }

  move(transform) {
    for (const pane of this.panes) {
      pane.layer.attr("transform", transform);
      pane.svg.node().__zoom = transform; // the other pane goes on from here
    }
  }

  get first() {
    return this.panes[0].svg;
  }

  get size() {
    const box = this.first.node().getBoundingClientRect();
    return { width: Math.max(box.width, 1), height: Math.max(box.height, 1) };
  }

  show(layout) {
    this.layout = layout;
    const { width, height } = layout;
    this.zoom.translateExtent([[-width - 200, -300], [2 * width + 200, height + 500]]);
    for (const pane of this.panes) this.draw(pane);
  }

  // The whole width, if that can be read; else what stands at the top, in the middle.
  fit() {
    const k = Math.min(1, Math.max(READABLE, (this.size.width - 16) / this.layout.width));
    const { width, height } = this.size, room = width - k * this.layout.width;
    const top = this.layout.items.filter((box) => k * box.y < height);
    const middle = ((d3.min(top, (box) => box.x) || 0) + (d3.max(top, (box) => box.x + box.width) || 0)) / 2;
    const x = room > 0 ? room / 2 : Math.min(4, Math.max(room - 4, width / 2 - k * middle));
    this.first.call(this.zoom.transform, d3.zoomIdentity.translate(x, 44).scale(k));
  }

  // Keeps what is at `box` where it was on the screen.
  hold(from, to) {
    const now = d3.zoomTransform(this.first.node());
    this.first.call(this.zoom.transform, d3.zoomIdentity.translate(now.x + now.k * (from.x - to.x), now.y + now.k * (from.y - to.y)).scale(now.k));
  }

  // Moves what is at `box` sideways until it is seen; where it is too wide for that, its left edge.
  bring(box) {
    const { x, k } = d3.zoomTransform(this.first.node());
    const room = this.size.width - 24 - k * box.width, left = x + k * box.x - 12;
    const by = room < 0 || left < 0 ? -left : Math.min(room - left, 0);
    this.first.call(this.zoom.translateBy, by / k, 0);
  }

  // Puts `boxes` into the middle, small enough to be seen at once, if that can still be read.
  center(boxes) {
    const left = Math.min(...boxes.map((box) => box.x)), right = Math.max(...boxes.map((box) => box.x + box.width));
    const top = Math.min(...boxes.map((box) => box.y)), bottom = Math.max(...boxes.map((box) => box.y + box.height));
    const { width, height } = this.size;
    const k = Math.min(1, Math.max(READABLE, Math.min((width - 40) / (right - left), (height - 90) / (bottom - top))));
    const x = width / 2 - (k * (left + right)) / 2, y = height / 2 + 20 - (k * (top + bottom)) / 2;
    this.first.call(this.zoom.transform, d3.zoomIdentity.translate(x, y).scale(k));
  }

  draw({ side, layer }) {
    const { items, chips, edges, open } = this.layout;
    const act = this.act;
    const has = (box) => (isGroup(box.item) ? box.item.counts[side] > 0 : box.item[side]);
    const groups = layer.select(".groups").selectAll("g.open").data(open.filter((box) => box.group.counts[side]), (box) => box.group.id)
      .join((enter) => {
        const made = enter.append("g");
        made.append("rect").attr("rx", 10);
        const head = made.append("g").attr("class", "head").attr("tabindex", 0).attr("role", "button");
        head.append("rect").attr("class", "hit").attr("height", HEAD).attr("rx", 10);
        head.append("path").attr("class", "sign").attr("d", "M0,-3l4,5l4,-5");
        head.append("text").attr("class", "title").attr("x", 28).attr("y", 19);
        head.append("text").attr("class", "note").attr("y", 19);
        return made;
      })
      .attr("class", (box) => `open ${box.group.kind} ${box.group.kind === "part" ? partClass(box.group) : ""}`)
      .attr("transform", (box) => `translate(${box.x},${box.y})`);
    groups.select("rect").attr("width", (box) => box.width).attr("height", (box) => box.height);
    groups.select(".hit").attr("width", (box) => box.width);
    groups.select(".sign").attr("transform", "translate(13,15)");
    groups.select(".title").text((box) => titleOf(box.group));
    groups.select(".note").text((box) => countOf(box.group, side))
      .attr("x", (box) => box.width - 14).attr("text-anchor", "end");
    pressed(groups.select(".head"), (box) => act.toggle(box.group), (box) => `close ${box.group.name}`);

    layer.select(".edges").selectAll("path").data(edges.filter((edge) => edge[side].length), (edge) => edge.key).join("path")
      .attr("d", (edge) => line(edge.points));

    const nodes = layer.select(".items").selectAll("g.item").data(items.filter(has), (box) => keyOf(box.item)).join((enter) => {
      const made = enter.append("g").attr("tabindex", 0).attr("role", "button");
      made.filter((box) => isGroup(box.item)).append("rect").attr("class", "under").attr("rx", 8).attr("x", 4).attr("y", 4);
      made.append("rect").attr("class", "box").attr("rx", (box) => (isGroup(box.item) ? 8 : 6));
      made.append("rect").attr("class", "bar").attr("x", 0).attr("y", 8).attr("width", 3).attr("rx", 1.5);
      made.append("text").attr("class", "title");
      made.append("text").attr("class", "note");
      made.append("title");
      return made;
    })
      .attr("class", (box) => (isGroup(box.item) ? `item closed ${box.item.kind === "part" ? partClass(box.item) : ""}` : `item op ${box.item.status} ${box.item.role ? `role-${box.item.role}` : ""}`))
      .attr("data-key", (box) => keyOf(box.item))
      .attr("transform", (box) => `translate(${box.x},${box.y})`);
    nodes.selectAll(".box, .under").attr("width", (box) => box.width).attr("height", (box) => box.height);
    nodes.select(".bar").attr("height", (box) => box.height - 16);
    nodes.select(".title").attr("x", 14).attr("y", (box) => (isGroup(box.item) ? 22 : opNote(box.item[side]) ? 18 : 25))
      .each(function (box) { name(d3.select(this), isGroup(box.item) ? [titleOf(box.item), ""] : opTitle(box.item[side])); });
    nodes.select(".note").attr("x", 14).attr("y", (box) => (isGroup(box.item) ? 39 : 33))
      .text((box) => (isGroup(box.item) ? noteOf(box.item) : opNote(box.item[side])));
    nodes.select("title").text((box) => (isGroup(box.item) ? box.item.name : box.item[side].call));
    nodes.each(function (box) { marks(d3.select(this), box, side); });
    nodes.on("mouseenter", (event, box) => this.point(keyOf(box.item))).on("mouseleave", () => this.point(null));
    pressed(nodes, (box) => (isGroup(box.item) ? act.toggle(box.item) : act.select(box.item, side)), (box) => (isGroup(box.item) ? `open ${box.item.name}` : box.item[side].name));

    const named = layer.select(".items").selectAll("g.chip").data(chips.filter((made) => made[side]), (made) => made.key).join((enter) => {
      const made = enter.append("g").attr("tabindex", 0).attr("role", "button");
      made.append("rect").attr("rx", CHIP / 2);
      made.append("text").attr("x", 11).attr("y", 15);
      return made;
    })
      .attr("class", (made) => `chip ${made.value.any.kind} ${made.value.role ? `role-${made.value.role}` : ""}`)
      .attr("transform", (made) => `translate(${made.x},${made.y})`);
    named.select("rect").attr("width", (made) => made.width).attr("height", CHIP);
    named.select("text").text((made) => clipped((made.value[side] || made.value.any).name, 30));
    pressed(named, (made) => act.select(made.value, side), (made) => made.value.any.name);
  }

  // What the pointer is on is shown in both panes, with its edges.
  point(key) {
    for (const { layer } of this.panes) {
      layer.selectAll("g.item").classed("pointed", (box) => keyOf(box.item) === key);
      layer.selectAll(".edges path").classed("pointed", (edge) => edge.from === key || edge.to === key).filter(".pointed").raise();
    }
  }

  // `flow` has a set of slots for each side; `selected` is a slot.
  mark(flow, selected) {
    for (const { side, layer } of this.panes) {
      const lit = flow && flow[side];
      const on = (slot) => lit && lit.has(slot.id);
      layer.classed("dimmed", Boolean(lit && lit.size));
      layer.selectAll("g.item").classed("lit", (box) => slotsIn(box.item).some(on)).classed("selected", (box) => box.item === selected);
      layer.selectAll("g.chip").classed("lit", (made) => on(made.value)).classed("selected", (made) => made.value === selected);
      layer.selectAll(".edges path").classed("lit", (edge) => lit && edge[side].some(([a, b]) => lit.has(a) && lit.has(b)))
        .classed("near", (edge) => selected && edge[side].some(([a, b]) => a === selected.id || b === selected.id)).filter(".lit, .near").raise();
    }
  }
}

function partClass(group) {
  return ["prologue", "core", "epilogue"].includes(group.name) ? `part-${group.name}` : "part-other";
}

// The name of an item: what it is in bold, the rest of it quiet.
function name(text, parts) {
  text.selectAll("tspan").data(parts).join("tspan").attr("class", (part, i) => (i ? "rest" : "")).text((part) => part);
}

// Small counts at the right of a closed group: sites, then what was added and removed.
function marks(node, box, side) {
  const found = isGroup(box.item) ? marksOf(box.item, side) : [];
  const texts = node.selectAll("text.mark").data(found).join("text").attr("class", (mark) => `mark ${mark.kind}`).attr("y", 22).attr("text-anchor", "end").text((mark) => mark.text);
  let x = box.width - 12;
  texts.each(function (mark) {
    d3.select(this).attr("x", x);
    x -= textWidth(mark.text, "600 10.5px system-ui") + 8;
  });
}

function marksWidth(group, side) {
  return marksOf(group, side).reduce((sum, mark) => sum + textWidth(mark.text, "600 10.5px system-ui") + 8, 0);
}

function marksOf(group, side) {
  const of = (kinds) => kinds.reduce((sum, kind) => sum + (group.marks[kind] || 0), 0);
  const found = [];
  const changed = side === "before" ? of(["removed", "replaced"]) : of(["added", "replaced"]);
  if (changed) found.push({ kind: side === "before" ? "removed" : "added", text: `${side === "before" ? "\u2212" : "+"}${changed}` });
  if (group.marks.refused) found.push({ kind: "refused", text: `${group.marks.refused} refused` });
  return found;
}

function pressed(selection, act, label) {
  selection.attr("aria-label", label)
    .on("click", (event, box) => { event.stopPropagation(); act(box); })
    .on("keydown", (event, box) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act(box);
    });
}
