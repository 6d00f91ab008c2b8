// Attention maps of all layers and heads, the chosen one large, and its queries, keys and values.

const chosen = { layer: 0, head: 0 }; // kept from one text to the other

function attentionPanels(data, text) {
  if (!text.maps) return [panel('3. Attention', el('p', { class: 'quiet' }, 'This model has no layers.'))];
  const [layers, heads, count] = text.maps.shape;
  const root = (layer, head, r, c) => text.maps.values[((layer * heads + head) * count + r) * count + c] / 255;
  const large = el('div'), values = el('div');
  const buttons = [];

  const overview = el('div', { class: 'maps', role: 'group', 'aria-label': 'Attention maps by layer and head' }, ...Array.from({ length: layers }, (_, layer) => {
    buttons.push([]);
    return el('div', { class: 'layer' },
      el('div', { class: 'name' }, `layer ${layer}`, text.sliding[layer] ? ' (window)' : ''),
      el('div', { class: 'heads' }, ...Array.from({ length: heads }, (_, head) => {
        const canvas = el('canvas', { 'aria-hidden': 'true' });
        const first = (layer * heads + head) * count * count;
        const highest = text.maps.values.subarray(first, first + count * count).reduce((a, b) => Math.max(a, b), 1);
        const draw = () => paint(canvas, count, count, (r, c) => sequential(text.maps.values[first + r * count + c] / highest));
        draw();
        onScheme(draw, canvas);
        if (count <= 24) canvas.style.imageRendering = 'pixelated';
        const button = el('button', { type: 'button', title: `layer ${layer}, head ${head}`, 'aria-label': `Layer ${layer}, head ${head}`,
          onclick: () => choose(layer, head) }, canvas);
        buttons[layer].push(button);
        return button;
      })));
  }));
  overview.style.setProperty('--heads', heads);
  overview.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(Math.min(layers - 1, Math.max(0, chosen.layer + move[0])), Math.min(heads - 1, Math.max(0, chosen.head + move[1])));
    buttons[chosen.layer][chosen.head].focus();
  });

  const option = (kind, most) => el('select', { 'aria-label': kind, onchange: (event) => choose(
    kind === 'layer' ? Number(event.target.value) : chosen.layer, kind === 'head' ? Number(event.target.value) : chosen.head) },
    ...Array.from({ length: most }, (_, i) => el('option', { value: i }, `${kind} ${i}`)));
  const layerOption = option('layer', layers), headOption = option('head', heads);

  function choose(layer, head) {
    buttons[chosen.layer][chosen.head].setAttribute('aria-pressed', 'false');
    Object.assign(chosen, { layer, head });
    buttons.flat().forEach((button) => { button.tabIndex = -1; });
    buttons[layer][head].tabIndex = 0;
    buttons[layer][head].setAttribute('aria-pressed', 'true');
    layerOption.value = layer;
    headOption.value = head;
    const cell = Math.max(15, Math.min(30, Math.floor(460 / count)));
    const say = (r, c) => `${tokenName(text, r)} \u2192 ${tokenName(text, c)}: ${number(root(layer, head, r, c) ** 2)}`;
    let best = [0, 0];
    for (let r = 0; r < count; r++) for (let c = 0; c < count; c++) if (root(layer, head, r, c) > root(layer, head, ...best)) best = [r, c];
    const highest = root(layer, head, ...best) || 1;
    large.replaceChildren(legend(sequential, '0', number(highest ** 2)), heat({
      rows: count, columns: count, cell: [cell, cell], left: text.tokens, top: text.tokens, corner: 'from \u2193 to \u2192',
      lang: text.lang || undefined, colour: (r, c) => sequential(root(layer, head, r, c) / highest), say,
      label: `Attention of layer ${layer}, head ${head}; rows are tokens that look, columns tokens looked at; strongest: ${say(...best)}`,
    }));
    values.replaceChildren(...valueMaps(data, text, layer, head));
  }

  const attention = panel('3. Attention',
    el('p', { class: 'quiet' }, `${layers} layers of ${heads} heads. In each map a row is a token that looks, a column a token it looks at; a row adds ` +
      `up to 1${count < text.count ? `, over all ${text.count} tokens` : ''}. Choose a map to see it large; arrow keys move between them.`),
    el('div', { class: 'row' }, legend(sequential, '0', 'the map\u2019s largest', '(colour by the square root)')),
    el('div', { class: 'sides' },
      overview,
      el('div', {}, el('h3', {}, 'The chosen map'), el('div', { class: 'row' }, layerOption, headOption), large)));
  const qkv = panel('4. Queries, keys and values', values);
  // Not before both are on the page: a map measures itself.
  queueMicrotask(() => choose(Math.min(chosen.layer, layers - 1), Math.min(chosen.head, heads - 1)));
  return [attention, qkv];
}

function valueMaps(data, text, layer, head) {
  const [, , heads, count, size] = text.values.shape;
  const cut = count < text.count ? ` Drawn are the first ${count} of ${text.count} tokens.` : '';
  const maps = ['query', 'key', 'value'].map((name, kind) => {
    const which = (layer * 3 + kind) * heads + head;
    const scale = text.values.scale[which];
    return valueMap(text, name, text.values.values, which * count * size, count, size, scale,
      `${name} of layer ${layer}, head ${head}, a token a row`);
  });
  return [
    el('p', { class: 'quiet' }, `Of layer ${layer}, head ${head}. Each of Q, K and V has the shape [heads ${data.heads}, tokens ${text.count}, head size ` +
      `${data.headSize}]; one head is [${text.count}, ${data.headSize}]. Queries and keys are as the attention takes them, rotary angles applied where ` +
      `the model has them; values are rounded to 8 bits.${cut}`),
    el('div', { class: 'grid' }, ...maps),
  ];
}
