// Which token pairs carry the cosine of two texts.

function similarityPanel(data) {
  const { attribution, texts } = data;
  const [rows, columns] = attribution.matrix.shape;
  const values = attribution.matrix.values;
  const at = (r, c) => values[r * columns + c];
  const [first, second] = texts;
  const highest = Math.max(...values.map(Math.abs)) || 1;
  const exact = attribution.method === 'exact';
  const say = (r, c) => `${tokenName(first, r)} \u00d7 ${tokenName(second, c)}: ${number(at(r, c))}`;
  const pairs = Array.from({ length: rows * columns }, (_, i) => i).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, 12);
  const cell = Math.max(15, Math.min(30, Math.floor(460 / columns)));
  const strongest = Math.max(...attribution.sums.flat().map(Math.abs)) || 1;
  const chips = (text, sums) => {
    const list = el('ol', { class: 'chips', lang: text.lang || undefined }, ...text.tokens.map((token, i) =>
      el('li', { title: `${tokenName(text, i)}: ${number(sums[i])}`, dir: 'auto' }, token, el('small', {}, number(sums[i])))));
    const draw = () => [...list.children].forEach((chip, i) => tint(chip, sums[i] / strongest));
    draw();
    onScheme(draw, list);
    return list;
  };
  const shared = attribution.shared.some((part) => part !== 0)
    ? ` What belongs to no token, ${number(attribution.shared[0])} of the score in the first text and ${number(attribution.shared[1])} in the second, is ` +
      'spread evenly over the tokens.' : '';
  const left = attribution.counts[0] > rows || attribution.counts[1] > columns
    ? ` Drawn are the first ${rows} and ${columns} tokens of ${attribution.counts[0]} and ${attribution.counts[1]}; the score and each sum are over all.` : '';
  return panel('Similarity',
    el('p', { class: 'score' }, attribution.score.toFixed(4)),
    el('p', { class: 'quiet' }, 'Cosine of the two features. ', exact
      ? 'Exact decomposition: the pooled feature is a weighted sum of the tokens\u2019 last rows, so the cosine is a sum over pairs of them. These rows have ' +
        'read their whole text.'
      : 'Integrated gradients, from the text with its tokens replaced by padding to the text itself: what each token\u2019s own embedding brings in.',
    shared, ` All pairs add up to ${(attribution.score + attribution.delta).toFixed(4)}.`, left),
    el('h3', {}, 'What each token adds'),
    el('p', { class: 'quiet' }, 'First text, then second; each adds up to the score.'),
    chips(first, attribution.sums[0]), el('p'), chips(second, attribution.sums[1]), el('p'),
    el('h3', {}, 'What each pair adds'),
    el('div', { class: 'row' }, legend((x) => diverging(2 * x - 1), number(-highest), number(highest))),
    el('div', { class: 'sides' },
      heat({
        rows, columns, cell: [cell, cell], left: first.tokens, top: second.tokens, corner: 'first \u2193 second \u2192',
        lang: first.lang || second.lang || undefined, colour: (r, c) => diverging(at(r, c) / highest), say,
        label: `What token pairs add to the score; strongest: ${say(Math.floor(pairs[0] / columns), pairs[0] % columns)}`,
      }),
      el('div', {}, el('h3', {}, 'The strongest pairs'), table(['first', 'second', 'adds'], pairs.map((i) =>
        [tokenName(first, Math.floor(i / columns)), tokenName(second, i % columns), number(values[i])])))));
}
