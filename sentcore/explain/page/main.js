// The page: what was read, the similarity of two texts, then every step of the chosen one.

const main = document.getElementById('main');

function headerPanel(data) {
  const facts = [['model', data.model], ['layers', data.layers], ['heads', data.heads], ['hidden size', data.hidden], ['head size', data.headSize],
    ['tokens', data.texts.map((text) => text.count).join(' and ')],
    ['feature', data.texts[0].feature ? data.texts[0].feature.values.values.length : 'none']];
  const section = el('header', { class: 'panel' }, el('h1', {}, 'From text to feature'),
    ...data.texts.map((text) => el('blockquote', { lang: text.lang || undefined, dir: 'auto' }, text.text || '(an empty text)')),
    el('dl', { class: 'facts' }, ...facts.filter(([, value]) => value !== '').map(([name, value]) =>
      el('div', {}, el('dt', {}, name), el('dd', {}, String(value))))));
  data.texts.forEach((text, i) => {
    const which = data.texts.length > 1 ? `Text ${i + 1}` : 'The text';
    if (text.truncated) section.append(el('p', { class: 'quiet notice' }, `${which} was cut at the model\u2019s maximum length, ${text.count} tokens; what lies behind ` +
      'has no part in anything here.'));
    if (text.tokens.length < text.count) section.append(el('p', { class: 'quiet notice' }, `${which} has ${text.count} tokens. Tokens, maps, values and weights are ` +
      `drawn of the first ${text.tokens.length}; left out are the drawings of the other ${text.count - text.tokens.length}. All tokens are computed: attention, lengths by ` +
      'layer and the feature are of the whole text.'));
  });
  return section;
}

function stepsOf(data, index) {
  const text = data.texts[index];
  return [tokensPanel(text), embeddingsPanel(text), ...attentionPanels(data, text), normsPanel(text), poolingPanel(text), featurePanel(text)];
}

function show(data) {
  const steps = el('div', { id: 'steps' });
  const parts = [headerPanel(data)];
  if (data.attribution) parts.push(similarityPanel(data));
  if (data.texts.length > 1) {
    parts.push(el('fieldset', { class: 'panel' }, el('legend', {}, 'Steps of'), ...data.texts.map((text, i) =>
      el('label', { lang: text.lang || undefined }, el('input', { type: 'radio', name: 'text', value: i, checked: i === 0,
        onchange: () => steps.replaceChildren(...stepsOf(data, i)) }), ` text ${i + 1}: ${text.text.slice(0, 40)}${text.text.length > 40 ? '\u2026' : ''}`))));
  }
  parts.push(steps);
  steps.append(...stepsOf(data, 0));
  main.replaceChildren(...parts);
}

(async () => {
  try {
    if (typeof DecompressionStream === 'undefined') throw new Error('this browser cannot inflate data; use one of 2023 or later');
    const data = JSON.parse(document.getElementById('data').textContent);
    await unpackAll(data);
    [chosen.layer, chosen.head] = data.chosen;
    show(data);
    document.documentElement.dataset.ready = 'yes';
  } catch (error) {
    main.replaceChildren(el('p', { class: 'panel' }, `The page could not be drawn: ${error.message}`));
    throw error;
  }
})();
