// The distribution that a token is drawn from, as hipgpt/inference/reference.py defines it: temperature, then top-k, then
// top-p. Ties go to the lower id.

const MOST_INSERTED = 256; // of so few, insertion into a sorted list is faster than sorting all values

// Return [[id, probability], ...], the most probable first. Temperature 0 gives the greedy token the probability 1.
function distribution(logits, {temperature, topK, topP}) {
  const ids = largest(logits, temperature === 0 ? 1 : Math.min(topK || logits.length, logits.length));
  const weights = ids.map((id) => (temperature === 0 ? 1 : Math.exp((logits[id] - logits[ids[0]]) / temperature)));
  const total = weights.reduce((a, b) => a + b, 0);
  let kept = 0, sum = 0;
  while (kept < ids.length && (kept === 0 || topP === 1 || sum < topP * total)) sum += weights[kept++];
  return ids.slice(0, kept).map((id, i) => [id, weights[i] / sum]);
}

// The ids of the `count` largest values, in descending order.
function largest(values, count) {
  if (count > MOST_INSERTED) {
    return Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
  }
  const ids = [];
  for (let id = 0; id < values.length; id++) {
    if (ids.length === count && values[id] <= values[ids[count - 1]]) continue;
    let at = ids.length < count ? ids.length : count - 1;
    for (; at > 0 && values[ids[at - 1]] < values[id]; at--) ids[at] = ids[at - 1];
    ids[at] = id;
  }
  return ids;
}

// The probabilities at temperature 1 of the `count` most probable tokens and of the token `id`: [[id, probability], ...].
function shares(logits, id, count) {
  const ids = largest(logits, Math.min(count, logits.length));
  if (!ids.includes(id)) ids.push(id);
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += Math.exp(logits[i] - logits[ids[0]]);
  return ids.map((one) => [one, Math.exp(logits[one] - logits[ids[0]]) / total]);
}

function drawn(probabilities, random) {
  let rest = random();
  for (const [id, probability] of probabilities) if ((rest -= probability) < 0) return id;
  return probabilities[probabilities.length - 1][0];
}
