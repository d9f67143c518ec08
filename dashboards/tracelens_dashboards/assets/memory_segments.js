// A map of the allocator's segments: address space in lines, as text flows.
(function () {
  "use strict";
  const kit = window.tracelensMemory;
  const LINE = 15;
  const GAP = 5;
  const BETWEEN = 3;
  const MOST_LINES = 44;
  const LEAST_LINES = 4;
  const EACH_BYTES = 128 * 2 ** 20; // a line of its own, as long as there is room for so many
  const SIDE = 1;

  // Pieces of segments: {segment, from, bytes, x, y, width}; `scale` is bytes per pixel.
  function flow(data, width, scale) {
    const pieces = [];
    let x = 0;
    let line = 0;
    for (let s = 0; s < data.begin.length; s++) {
      let from = 0;
      while (from < data.size[s]) {
        const room = (width - x) * scale;
        const rest = data.size[s] - from;
        if (x > 0 && rest > room && (from === 0 || room < scale * 8)) {
          x = 0;
          line += 1;
          continue;
        }
        const bytes = Math.min(rest, Math.max(room, scale));
        pieces.push({ segment: s, from: from, bytes: bytes, x: x, line: line, width: bytes / scale });
        x += bytes / scale + BETWEEN;
        from += bytes;
        if (x >= width - 1) {
          x = 0;
          line += 1;
        }
      }
    }
    return { pieces: pieces, lines: line + (x > 0 ? 1 : 0), scale: scale };
  }

  function arranged(data, width) {
    const inner = Math.max(100, width - 2 * SIDE);
    const total = data.size.reduce((sum, one) => sum + one, 0);
    const lines = Math.min(MOST_LINES, Math.max(LEAST_LINES, total / EACH_BYTES));
    let scale = Math.max(1, total / inner / lines);
    let found = flow(data, inner, scale);
    for (let tries = 0; found.lines > MOST_LINES && tries < 12; tries++) {
      scale *= 1.15;
      found = flow(data, inner, scale);
    }
    return found;
  }

  function firstBlock(data, address) {
    let low = 0;
    let high = data.block.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.block[middle] + data.length[middle] <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function drawn(canvas, data, layout, chosen) {
    const height = Math.max(LINE, layout.lines * (LINE + GAP)) + 4;
    const at = kit.prepare(canvas, height);
    const draw = at.draw;
    for (const piece of layout.pieces) {
      const y = piece.line * (LINE + GAP) + 2;
      const begin = data.begin[piece.segment] + piece.from;
      const end = begin + piece.bytes;
      draw.fillStyle = at.line;
      draw.fillRect(SIDE + piece.x, y, Math.max(piece.width, 1), LINE);
      for (let b = firstBlock(data, begin); b < data.block.length && data.block[b] < end; b++) {
        const from = Math.max(data.block[b], begin);
        const to = Math.min(data.block[b] + data.length[b], end);
        const x = SIDE + piece.x + (from - begin) / layout.scale;
        const width = (to - from) / layout.scale;
        draw.fillStyle = data.colours[data.category[b]];
        draw.fillRect(x, y, Math.max(width, 0.3), LINE);
        if (width > 3) {
          draw.fillStyle = at.veil;
          draw.fillRect(x, y, 0.75, LINE);
        }
        if (b === chosen) {
          draw.strokeStyle = at.ink;
          draw.lineWidth = 2;
          draw.strokeRect(x, y, Math.max(width, 2), LINE);
        }
      }
      draw.strokeStyle = at.quiet;
      draw.lineWidth = 0.75;
      draw.strokeRect(SIDE + piece.x, y, Math.max(piece.width, 1), LINE);
    }
  }

  function found(data, layout, x, y) {
    const line = Math.floor(y / (LINE + GAP));
    const across = x - SIDE;
    const piece = layout.pieces.find((one) => one.line === line && across >= one.x && across < one.x + one.width);
    if (!piece) return null;
    const address = data.begin[piece.segment] + piece.from + (across - piece.x) * layout.scale;
    const b = firstBlock(data, address);
    const live = b < data.block.length && data.block[b] <= address;
    return { segment: piece.segment, block: live ? b : -1 };
  }

  Object.assign(kit, { arrangeSegments: arranged, drawSegments: drawn, findSegment: found });
})();
