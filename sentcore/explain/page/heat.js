// A map of cells: drawn a pixel a cell and stretched, named along its sides, told of under pointer and arrow keys.

const tip = document.getElementById('tip');

function showTip(x, y, words) {
  tip.textContent = words;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(innerWidth - box.width - 4, x + 14))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
}
const hideTip = () => { tip.hidden = true; };
addEventListener('scroll', hideTip, true);

/* options: rows, columns; colour(r, c) -> [r, g, b]; say(r, c) -> what a cell is; label: what the map is;
   cell: [width, height] in pixels, or null for the panel's width; left, top: names of rows and columns, or null; corner. */
function heat(options) {
  const { rows, columns, cell } = options;
  const canvas = el('canvas', { tabindex: 0, role: 'img', 'aria-label': `${options.label}. Arrow keys read its cells.` });
  const mark = el('div', { class: 'mark', hidden: true });
  const said = el('output', { class: 'said', 'aria-live': 'polite' });
  const draw = () => paint(canvas, rows, columns, options.colour);
  draw();
  onScheme(draw, canvas);
  const height = cell ? cell[1] : options.height;
  canvas.style.width = cell ? `${columns * cell[0]}px` : '100%';
  canvas.style.height = `${rows * height}px`;
  const cells = el('div', { class: 'cells' }, canvas, mark);
  const frame = el('div', { class: 'frame' });
  if (options.top) {
    frame.append(el('div', { class: 'corner' }, options.corner || ''), el('div', { class: 'top', 'aria-hidden': 'true' },
      ...options.top.map((name) => {
        const upright = /[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]/.test(name);
        const label = el('div', upright ? { class: 'han' } : {}, name);
        label.style.width = `${cell[0]}px`;
        return label;
      })));
  }
  if (options.left) {
    const side = el('div', { class: 'left', 'aria-hidden': 'true' }, ...options.left.map((name) => el('div', {}, name)));
    for (const label of side.children) { label.style.height = `${height}px`; label.style.lineHeight = `${height}px`; }
    frame.append(side);
  }
  frame.append(cells);

  let at = [0, 0];
  const look = (r, c) => {
    at = [r, c];
    const width = canvas.clientWidth / columns;
    mark.hidden = false;
    Object.assign(mark.style, {
      left: `${c * width}px`, top: `${r * height}px`, width: `${width + 2}px`, height: `${height + 2}px`,
    });
    said.textContent = options.say(r, c);
  };
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const r = Math.floor(((event.clientY - box.top) / box.height) * rows);
    if (r < 0 || c < 0 || r >= rows || c >= columns) return;
    look(r, c);
    showTip(event.clientX, event.clientY, options.say(r, c));
  };
  canvas.addEventListener('pointermove', under);
  canvas.addEventListener('pointerdown', under);
  canvas.addEventListener('pointerleave', () => { hideTip(); mark.hidden = true; });
  canvas.addEventListener('blur', () => { mark.hidden = true; });
  canvas.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    hideTip();
    look(Math.min(rows - 1, Math.max(0, at[0] + move[0])), Math.min(columns - 1, Math.max(0, at[1] + move[1])));
  });
  return el('div', {}, el('div', { class: cell ? 'heat' : 'heat wide', lang: options.lang }, frame), said);
}
