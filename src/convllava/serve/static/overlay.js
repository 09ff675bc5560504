// What is drawn over an image: the cells that become one visual token each, and the boxes of an answer.

export const COLORS = ["#e6194b", "#0082c8", "#f58231", "#3cb44b", "#911eb4", "#008080"];

// Where the image lies on what the model sees, in the image's own pixels: with "pad" it is centered on a square.
export function cells(width, height, grid, resolution, stride, padded) {
  const side = Math.max(width, height);
  const [seenHeight, seenWidth] = resolution;
  const spanX = padded ? side : width;
  const spanY = padded ? side : height;
  const left = padded ? -Math.floor((side - width) / 2) : 0;
  const top = padded ? -Math.floor((side - height) / 2) : 0;
  return {
    left,
    top,
    cellWidth: (stride * spanX) / seenWidth,
    cellHeight: (stride * spanY) / seenHeight,
    rows: grid[0],
    columns: grid[1],
  };
}

export function draw(canvas, image, { lattice, boxes }) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = image.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale((width * scale) / image.naturalWidth, (height * scale) / image.naturalHeight);
  const pixel = image.naturalWidth / Math.max(1, width);
  if (lattice) drawLattice(context, image, lattice, pixel);
  boxes.forEach((box, index) => drawBox(context, box, COLORS[index % COLORS.length], pixel, index + 1));
}

function drawLattice(context, image, lattice, pixel) {
  const { left, top, cellWidth, cellHeight, rows, columns } = lattice;
  for (const [color, shift] of [["rgb(255 255 255 / .75)", 0], ["rgb(0 60 90 / .75)", pixel]]) {
    context.beginPath();
    context.strokeStyle = color;
    context.lineWidth = pixel;
    for (let column = 0; column <= columns; column++) {
      const x = left + column * cellWidth + shift;
      context.moveTo(x, Math.max(0, top));
      context.lineTo(x, Math.min(image.naturalHeight, top + rows * cellHeight));
    }
    for (let row = 0; row <= rows; row++) {
      const y = top + row * cellHeight + shift;
      context.moveTo(Math.max(0, left), y);
      context.lineTo(Math.min(image.naturalWidth, left + columns * cellWidth), y);
    }
    context.stroke();
  }
}

function drawBox(context, [x0, y0, x1, y1], color, pixel, number) {
  context.lineWidth = 3 * pixel;
  context.strokeStyle = color;
  context.strokeRect(x0, y0, Math.max(x1 - x0, pixel), Math.max(y1 - y0, pixel));
  context.font = `bold ${14 * pixel}px sans-serif`;
  const label = String(number);
  const width = context.measureText(label).width + 8 * pixel;
  context.fillStyle = color;
  context.fillRect(x0, Math.max(0, y0 - 18 * pixel), width, 18 * pixel);
  context.fillStyle = "#fff";
  context.fillText(label, x0 + 4 * pixel, Math.max(0, y0 - 18 * pixel) + 14 * pixel);
}
