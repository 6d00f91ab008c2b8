// One panel a step: tokens, embeddings, LayerNorms, pooling, feature.

function tokensPanel(text) {
  return panel('1. Tokens',
    el('p', { class: 'quiet' }, 'The text as the tokenizer cuts it, with the ids that the model reads.'),
    el('ol', { class: 'chips', lang: text.lang || undefined }, ...text.tokens.map((token, i) =>
      el('li', { title: `token ${i}, id ${text.ids[i]}`, dir: 'auto' }, token, el('small', {}, String(text.ids[i]))))));
}

const rowHeight = (count) => Math.max(3, Math.min(14, Math.floor(280 / count)));

// rows of 8-bit values [count, columns] from `start` on, times `scale`, under a heading
function valueMap(text, name, values, start, count, columns, scale, label) {
  const at = (r, c) => values[start + r * columns + c];
  const full = most(values, start, count * columns);
  return el('div', {},
    el('h3', {}, name, ' ', legend((x) => diverging(2 * x - 1), number(-full * scale), number(full * scale))),
    heat({
      rows: count, columns, cell: null, height: rowHeight(count), label, lang: text.lang || undefined,
      colour: (r, c) => diverging(at(r, c) / full),
      say: (r, c) => `${tokenName(text, r)}, column ${c}: ${number(at(r, c) * scale)}`,
    }));
}

function embeddingsPanel(text) {
  const [count, columns] = text.embeddings[0].values.shape;
  const maps = text.embeddings.map(({ name, values }) =>
    valueMap(text, name, values.values, 0, count, columns, values.scale[0], `Embedding ${name}, a token a row`));
  const absent = text.absent.filter((name) => name === 'position' || name === 'token type');
  const without = absent.length ? ` This model has no ${absent.join(' and no ')} table.` +
    (absent.includes('position') ? ' Positions enter in the attention.' : '') : '';
  return panel('2. Embeddings',
    el('p', { class: 'quiet' }, `Each token's row of the tables, their sum and its LayerNorm: a token a row, the first ${columns} of ` +
      `${text.width} columns. The strongest colour is for the largest hundredth of the values.${without}`),
    el('div', { class: 'grid' }, ...maps),
    el('details', {}, el('summary', {}, 'Length of every row'),
      table(['token', ...text.embeddings.map(({ name }) => name)], text.tokens.map((token, i) =>
        [token, ...text.embeddings.map(({ lengths }) => number(lengths[i]))]))));
}

function normsPanel(text) {
  const norms = text.norms;
  const all = norms.flatMap(({ before, after }) => [...before, ...after]);
  const high = Math.max(...all), low = Math.min(...all);
  const log = high > 60 * Math.max(low, high * 1e-6);
  const width = 900, tall = 300, left = 52, bottom = 74, top = 10;
  const floor = log ? Math.max(low, high * 1e-6) : 0;
  const place = (value) => {
    const share = log ? Math.log(Math.max(value, floor) / floor) / Math.log(high / floor || 2) : value / high;
    return top + (1 - share) * (tall - top - bottom);
  };
  const x = (i) => left + (norms.length > 1 ? (i * (width - left - 20)) / (norms.length - 1) : 0);
  const chart = svg('svg', { viewBox: `0 0 ${width} ${tall}`, role: 'img',
    'aria-label': 'Mean length of the residual stream before and after each LayerNorm; the table below has the numbers' });
  const ticks = log ? [floor, Math.sqrt(floor * high), high] : [0, high / 4, high / 2, (3 * high) / 4, high];
  for (const tick of ticks) {
    chart.append(svg('line', { x1: left, x2: width - 10, y1: place(tick), y2: place(tick), stroke: 'var(--line)' }),
      svg('text', { x: left - 6, y: place(tick) + 4, 'text-anchor': 'end' }, number(tick)));
  }
  norms.forEach(({ name }, i) => {
    const short = name.replace('layer ', 'L').replace('attention', 'attn').replace('feed-forward', 'ffn');
    chart.append(svg('text', { x: x(i), y: tall - bottom + 14, transform: `rotate(-55 ${x(i)} ${tall - bottom + 14})`, 'text-anchor': 'end' }, short));
  });
  for (const [key, colour] of [['before', 'var(--accent)'], ['after', '#d2691e']]) {
    const band = [...norms.map((each, i) => `${x(i)},${place(each[key][2])}`), ...norms.map((each, i) => `${x(i)},${place(each[key][1])}`).reverse()];
    chart.append(svg('polygon', { points: band.join(' '), fill: colour, opacity: 0.14 }),
      svg('polyline', { points: norms.map((each, i) => `${x(i)},${place(each[key][0])}`).join(' '), fill: 'none', stroke: colour, 'stroke-width': 2 }));
    norms.forEach((each, i) => chart.append(svg('circle', { cx: x(i), cy: place(each[key][0]), r: 3.5, fill: colour },
      svg('title', {}, `${each.name}, ${key}: mean ${number(each[key][0])}, from ${number(each[key][1])} to ${number(each[key][2])}`))));
  }
  const swatch = (colour, words) => {
    const box = el('span', { 'aria-hidden': 'true' }, '\u25cf ');
    box.style.color = colour;
    return el('span', { class: 'quiet' }, box, words);
  };
  return panel('5. Residual stream and LayerNorms',
    el('p', { class: 'quiet' }, 'Length of the tokens\u2019 rows before and after each LayerNorm: the mean over tokens, and from the least to the ' +
      `largest as a band${log ? '; the scale is logarithmic' : ''}.`),
    el('div', { class: 'row' }, swatch('var(--accent)', 'before: what is added up'), swatch('#d2691e', 'after LayerNorm')),
    el('div', { class: 'chart', tabindex: 0, role: 'group', 'aria-label': 'chart' }, chart),
    el('details', {}, el('summary', {}, 'Numbers'), table(['LayerNorm', 'before: mean', 'least', 'largest', 'after: mean', 'least', 'largest'],
      norms.map(({ name, before, after }) => [name, ...before.map(number), ...after.map(number)]))));
}

function poolingPanel(text) {
  if (!text.pooling.length) return panel('6. Pooling', el('p', { class: 'quiet' }, 'This model has no pooling.'));
  const charts = text.pooling.map(({ mode, weights }) => {
    const highest = Math.max(...weights.map(Math.abs)) || 1;
    return el('div', {}, el('h3', {}, `mode ${mode}`),
      el('div', { class: 'bars', tabindex: 0, role: 'img', 'aria-label': `Pooling weights, mode ${mode}; the table below has the numbers` },
        ...weights.map((weight, i) => {
          const bar = el('div', { class: 'bar' });
          bar.style.height = `${(60 * Math.abs(weight)) / highest}px`;
          return el('div', { class: 'one', title: `${tokenName(text, i)}: ${number(weight)}` }, bar,
            el('div', { class: 'name', lang: text.lang || undefined }, text.tokens[i]));
        })));
  });
  return panel('6. Pooling',
    el('p', { class: 'quiet' }, 'What each token\u2019s last row is multiplied by on its way into the feature; with mode max, the share of columns that ' +
      'the token gives.'),
    ...charts,
    el('details', {}, el('summary', {}, 'Numbers'), table(['token', ...text.pooling.map(({ mode }) => mode)],
      text.tokens.map((token, i) => [token, ...text.pooling.map(({ weights }) => number(weights[i]))]))));
}

function featurePanel(text) {
  if (!text.feature) return panel('7. Feature', el('p', { class: 'quiet' }, 'This model has no pooling, so there is no feature of the whole text.'));
  const { values } = text.feature.values;
  const columns = Math.min(64, values.length), rows = Math.ceil(values.length / columns);
  const highest = Math.max(...values.map(Math.abs)) || 1;
  return panel('7. Feature',
    el('p', { class: 'quiet' }, `What encode gives for the text: ${values.length} numbers of length ${text.feature.length.toFixed(4)}, ${columns} a line.`),
    el('div', { class: 'row' }, legend((share) => diverging(2 * share - 1), number(-highest), number(highest))),
    heat({
      rows, columns, cell: null, height: 14, label: `The feature, ${values.length} numbers`,
      colour: (r, c) => (r * columns + c < values.length ? diverging(values[r * columns + c] / highest) : blank()),
      say: (r, c) => (r * columns + c < values.length ? `column ${r * columns + c}: ${number(values[r * columns + c])}` : ''),
    }));
}
