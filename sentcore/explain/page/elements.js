// Elements without markup in strings: whatever comes from a text becomes a text node.

function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function number(value) {
  const size = Math.abs(value);
  if (value === 0) return '0';
  if (size >= 1000) return value.toFixed(0);
  if (size < 0.001) return value.toExponential(1);
  return size >= 100 ? value.toFixed(1) : value.toPrecision(3);
}

const panel = (title, ...children) => {
  const heading = el('h2', { id: `h-${panel.count = (panel.count || 0) + 1}` }, title);
  return el('section', { class: 'panel', 'aria-labelledby': heading.id }, heading, ...children);
};

// A token as its text has it; spoken with its place.
const tokenName = (text, index) => `${text.tokens[index]} (${index})`;

const table = (head, rows) => el('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'table' }, el('table', {},
  el('thead', {}, el('tr', {}, ...head.map((name) => el('th', { scope: 'col' }, name)))),
  el('tbody', {}, ...rows.map(([name, ...cells]) =>
    el('tr', {}, el('th', { scope: 'row', dir: 'auto' }, name), ...cells.map((cell) => el('td', {}, cell)))))));

function legend(colour, low, high, note) {
  const canvas = el('canvas', { 'aria-hidden': 'true' });
  const draw = () => paint(canvas, 1, 60, (_, c) => colour(c / 59));
  draw();
  onScheme(draw, canvas);
  return el('span', { class: 'legend' }, low, canvas, high, note ? ` ${note}` : null);
}

// What is drawn in a palette is drawn again when the system turns from light to dark, as long as it is on the page.
const drawers = new Set();
function onScheme(draw, element) {
  drawers.add({ draw, element });
}
darkMode.addEventListener('change', () => {
  for (const drawer of [...drawers]) {
    if (drawer.element.isConnected) drawer.draw(); else drawers.delete(drawer);
  }
});
