// The page: it reads the prompt token by token, draws the continuation, and shows a token that is clicked.
const MOST_ALTERNATIVES = 12, PAINT_EVERY_MS = 30;
const element = (id) => document.getElementById(id);

function unpacked(base64) {
  return new Uint16Array(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
}

const spec = JSON.parse(element("spec").textContent);
const tokenizer = new Tokenizer(spec.tokenizer);
const model = new Model(spec.model, spec.parts, spec.fields, unpacked(element("weights").textContent));
element("weights").remove();

// The text so far: for each token its id and, unless it was read before the context began, what the model gave and
// attended to when this token was chosen.
let steps = [];
let running = false;

function settings() {
  const number = (id) => Number(element(id).value);
  return {temperature: number("temperature"), topK: number("top-k"), topP: number("top-p"), numTokens: number("num-tokens")};
}

function observed(id) {
  if (!model.window.length) return {id};
  const alternatives = shares(model.logits, id, MOST_ALTERNATIVES);
  return {id, alternatives, window: model.window, attention: model.attentionOfLastToken()};
}

// Read tokens as Model.restart does, and return their steps.
function read(tokens) {
  const before = tokens.length - model.config.context_length;
  model.restart([]);
  return tokens.map((id, at) => {
    if (at < before) return {id, ofPrompt: true};
    const step = {...observed(id), ofPrompt: true};
    model.append(id);
    return step;
  });
}

// Yield the ids that follow the tokens read so far, as hipgpt/inference/sampling.py draws them.
function* continuation({numTokens, ...sampling}) {
  for (let i = 0; i < numTokens; i++) {
    const id = drawn(distribution(model.logits, sampling), Math.random);
    if (id === spec.tokenizer.end_of_text && spec.stop_at_end_of_text) return;
    yield id;
    model.append(id);
  }
}

// Return the ids that continue a text, and leave the page as it is.
function generated(text, sampling) {
  const prompt = tokenizer.encode(text);
  model.restart(prompt.length ? prompt : [spec.tokenizer.end_of_text]);
  return [...continuation(sampling)];
}

async function generate(tokens) {
  if (running) return;
  setRunning(true);
  element("inspector").hidden = true;
  element("text").replaceChildren();
  writer = new TextDecoder();
  steps = [];
  read(tokens).forEach(show);
  let drawnTokens = 0, started = performance.now(), painted = started;
  for (const id of continuation(settings())) {
    show(observed(id));
    drawnTokens++;
    if (performance.now() - painted > PAINT_EVERY_MS) {
      element("speed").value = `${Math.round((1000 * drawnTokens) / (performance.now() - started))} tokens/s`;
      await new Promise((resolve) => setTimeout(resolve));
      if (!running) break;
      painted = performance.now();
    }
  }
  element("speed").value = `${Math.round((1000 * drawnTokens) / (performance.now() - started))} tokens/s`;
  setRunning(false);
}

function setRunning(value) {
  running = value;
  element("generate").disabled = value;
  element("stop").disabled = !value;
}

let writer = new TextDecoder(); // holds the bytes of a character that is not whole yet

function show(step) {
  const at = steps.push(step) - 1;
  const bytes = Uint8Array.from(tokenizer.bytes.get(step.id), (character) => character.charCodeAt(0));
  const span = document.createElement("span");
  span.className = `token${step.ofPrompt ? " of-prompt" : ""}${bytes.includes(10) ? " break" : ""}`;
  span.textContent = writer.decode(bytes, {stream: true});
  span.onclick = () => inspect(at);
  element("text").append(span);
}

function inspect(at) {
  const {id, alternatives, window, attention} = steps[at];
  element("text").querySelectorAll(".open").forEach((span) => span.classList.remove("open"));
  element("text").children[at].classList.add("open");
  element("inspector").hidden = !alternatives;
  if (!alternatives) return;
  element("chosen").textContent = readable(id);
  element("alternatives").replaceChildren(...alternatives.map(([other, share]) => {
    const row = document.createElement("button"), name = document.createElement("code");
    const bar = document.createElement("span"), number = document.createElement("span");
    row.className = `alternative${other === id ? " taken" : ""}`;
    name.textContent = readable(other);
    bar.className = "bar";
    bar.style.width = `${(100 * share) / alternatives[0][1]}%`;
    number.className = "number";
    number.textContent = `${(100 * share).toFixed(share < 0.01 ? 2 : 1)} %`;
    row.append(name, bar, number);
    row.onclick = () => generate([...steps.slice(0, at).map((step) => step.id), other]);
    return row;
  }));
  element("layer").onchange = () => showHeads(window, attention);
  showHeads(window, attention);
}

function showHeads(window, attention) {
  const heads = spec.model.num_heads, layer = Number(element("layer").value);
  element("heads").replaceChildren(...attention.slice(layer * heads, (layer + 1) * heads).map((shares, head) => {
    const line = document.createElement("div"), name = document.createElement("b");
    line.className = "head";
    name.textContent = `head ${head}`;
    line.append(name, ...window.map((id, i) => {
      const span = document.createElement("span");
      span.textContent = readable(id);
      span.style.background = `rgba(var(--heat), ${(0.9 * Math.sqrt(shares[i])).toFixed(3)})`;
      span.title = `${(100 * shares[i]).toFixed(1)} %`;
      return span;
    }));
    return line;
  }));
}

// A token as people read it: "⏎" is a line end, and \xNN a byte that is not a whole character.
function readable(id) {
  const bytes = tokenizer.bytes.get(id), text = fromLatin1(bytes);
  if (!text.includes("\ufffd")) return text.replaceAll("\n", "⏎");
  return Array.from(bytes, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`).join("");
}

for (let layer = 0; layer < spec.model.num_layers; layer++) element("layer").append(new Option(String(layer), String(layer)));
element("controls").onsubmit = (event) => {
  event.preventDefault();
  const prompt = tokenizer.encode(element("prompt").value);
  generate(prompt.length ? prompt : [spec.tokenizer.end_of_text]);
};
element("stop").onclick = () => setRunning(false);
