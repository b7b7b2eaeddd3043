// The forward pass of hipgpt/gpt/model.py for one token with cached keys and values, as hipgpt/gpt/decoder.py calls it.
// Weights are (out, in), row-major. Letters: E width, H query heads, K key heads, D channels of a head, F MLP width,
// T context length, V vocabulary.
class Model {
  // config: the settings of hipgpt/config/settings.py:ModelConfig; parts: the architecture's row of architectures.py.
  // fields: [[name, shape], ...]; weights: all fields one after the other, as bf16 in a Uint16Array.
  constructor(config, parts, fields, weights) {
    Object.assign(this, {config, parts});
    this.weights = new Map();
    let begin = 0;
    for (const [name, shape] of fields) {
      const size = shape.reduce((a, b) => a * b, 1);
      this.weights.set(name, widened(weights.subarray(begin, begin + size)));
      begin += size;
    }
    const {num_layers: L, num_heads: H, head_channels: D, kv_heads: K, mlp_dim: F, context_length: T} = config;
    const E = config.embed_dim;
    this.x = new Float32Array(E);
    this.normed = new Float32Array(E);
    this.packed = new Float32Array((H + 2 * K) * D);
    this.attended = new Float32Array(H * D);
    this.branch = new Float32Array(E);
    this.hidden = new Float32Array(parts.gated ? 2 * F : F);
    this.logits = new Float32Array(config.vocab_size);
    this.keys = Array.from({length: L}, () => new Float32Array(K * T * D));
    this.values = Array.from({length: L}, () => new Float32Array(K * T * D));
    this.attention = new Float32Array(L * H * T); // of the last token: of each head to each row of the cache
    this.window = []; // the tokens that the cache covers
    this.position = 0; // of the next token
  }

  // Forget the sequence and read the last T of the tokens.
  restart(tokens) {
    this.window = [];
    this.position = 0;
    tokens.slice(-this.config.context_length).forEach((token, at, read) => this.append(token, at === read.length - 1));
  }

  // Read one more token. A model with learned positions has none beyond T, so it begins again from the last half.
  append(token, wantsLogits = true) {
    const T = this.config.context_length;
    if (this.window.length === T && !this.parts.rotary) {
      this.restart([...this.window, token].slice(-Math.floor(T / 2)));
      return;
    }
    this.forward(token, wantsLogits);
    this.window = [...this.window.slice(-(T - 1)), token];
    this.position++;
  }

  forward(token, wantsLogits) {
    const {x, normed, branch, config, parts, weights} = this;
    const E = config.embed_dim;
    const embedding = weights.get("token_embedding.weight");
    x.set(embedding.subarray(token * E, (token + 1) * E));
    if (!parts.rotary) add(x, weights.get("position_embedding.weight").subarray(this.position * E));
    for (let i = 0; i < config.num_layers; i++) {
      const block = `block${i}`;
      this.norm(normed, x, `${block}.attention_norm`);
      this.linear(this.packed, normed, `${block}.qkv`);
      this.attend(i, block);
      this.linear(branch, this.attended, `${block}.projection`);
      add(x, branch);
      this.norm(normed, x, `${block}.mlp_norm`);
      this.linear(this.hidden, normed, `${block}.mlp_in`);
      this.linear(branch, this.activate(this.hidden), `${block}.mlp_out`);
      add(x, branch);
    }
    if (!wantsLogits) return;
    this.norm(normed, x, "final_norm");
    const output = config.tie_embeddings ? embedding : weights.get("output.weight");
    multiply(this.logits, output, normed, weights.get("output.bias"));
  }

  linear(y, x, name) {
    multiply(y, this.weights.get(`${name}.weight`), x, this.weights.get(`${name}.bias`));
  }

  norm(y, x, name) {
    const gamma = this.weights.get(`${name}.gamma`), beta = this.weights.get(`${name}.beta`);
    let mean = 0, variance = 0;
    if (!this.parts.rms_norm) for (let i = 0; i < x.length; i++) mean += x[i] / x.length;
    for (let i = 0; i < x.length; i++) variance += (x[i] - mean) ** 2 / x.length;
    const scale = 1 / Math.sqrt(variance + this.config.norm_epsilon);
    for (let i = 0; i < x.length; i++) y[i] = (x[i] - mean) * scale * gamma[i] + (beta ? beta[i] : 0);
  }

  // this.attended: attention of the block over the cache, to which the token's own key and value are added.
  attend(layer, block) {
    const {packed, attended, config, parts} = this;
    const {num_heads: H, kv_heads: K, head_channels: D, context_length: T} = config;
    for (let head = 0; head < H + K; head++) {
      const vector = packed.subarray(head * D, (head + 1) * D);
      if (parts.head_norm) this.norm(vector, vector, `${block}.${head < H ? "query" : "key"}_norm`);
      if (parts.rotary) this.rotate(vector);
    }
    const row = this.position % T, rows = Math.min(this.position + 1, T);
    for (let head = 0; head < K; head++) {
      const at = (head * T + row) * D, key = (H + head) * D, value = (H + K + head) * D;
      this.keys[layer].set(packed.subarray(key, key + D), at);
      this.values[layer].set(packed.subarray(value, value + D), at);
    }
    attended.fill(0);
    for (let head = 0; head < H; head++) {
      const first = Math.floor(head / (H / K)) * T, query = packed.subarray(head * D, (head + 1) * D);
      const p = this.attention.subarray((layer * H + head) * T, (layer * H + head) * T + rows);
      for (let i = 0; i < rows; i++) p[i] = dot(this.keys[layer], (first + i) * D, query) / Math.sqrt(D);
      softmax(p);
      for (let i = 0; i < rows; i++) {
        for (let c = 0; c < D; c++) attended[head * D + c] += p[i] * this.values[layer][(first + i) * D + c];
      }
    }
  }

  rotate(vector) {
    const half = vector.length / 2;
    for (let i = 0; i < half; i++) {
      const angle = this.position * this.config.rope_base ** (-i / half);
      const cosine = Math.cos(angle), sine = Math.sin(angle), first = vector[i], second = vector[half + i];
      vector[i] = first * cosine - second * sine;
      vector[half + i] = first * sine + second * cosine;
    }
  }

  activate(hidden) {
    const F = this.config.mlp_dim;
    for (let i = 0; i < F; i++) {
      const h = hidden[i];
      if (this.config.activation === "relu") hidden[i] = Math.max(h, 0);
      else if (this.config.activation === "relu2") hidden[i] = Math.max(h, 0) ** 2;
      else if (this.config.activation === "gelu") {
        hidden[i] = 0.5 * h * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (h + 0.044715 * h ** 3)));
      } else hidden[i] = (h / (1 + Math.exp(-h))) * hidden[F + i];
    }
    return hidden.subarray(0, F);
  }

  // The attention of the last token: for each layer and head, the shares of the tokens of the window, in their order.
  attentionOfLastToken() {
    const {num_layers: L, num_heads: H, context_length: T} = this.config;
    const rows = this.window.length, oldest = this.position - rows;
    return Array.from({length: L * H}, (_, head) =>
      Float32Array.from({length: rows}, (_, i) => this.attention[head * T + ((oldest + i) % T)]));
  }
}

// y = W x + bias. Eight rows at once, because a sum waits for its last addition, and x is then read once for all eight.
function multiply(y, weight, x, bias) {
  const n = x.length;
  let row = 0;
  for (; row + 7 < y.length; row += 8) {
    let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    for (let i = 0, at = row * n; i < n; i++, at++) {
      const value = x[i];
      a += weight[at] * value;
      b += weight[at + n] * value;
      c += weight[at + 2 * n] * value;
      d += weight[at + 3 * n] * value;
      e += weight[at + 4 * n] * value;
      f += weight[at + 5 * n] * value;
      g += weight[at + 6 * n] * value;
      h += weight[at + 7 * n] * value;
    }
    y[row] = a; y[row + 1] = b; y[row + 2] = c; y[row + 3] = d;
    y[row + 4] = e; y[row + 5] = f; y[row + 6] = g; y[row + 7] = h;
  }
  for (; row < y.length; row++) y[row] = dot(weight, row * n, x);
  if (bias) add(y, bias);
}

function dot(matrix, at, x) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += matrix[at + i] * x[i];
  return sum;
}

function add(x, other) {
  for (let i = 0; i < x.length; i++) x[i] += other[i];
}

function softmax(p) {
  let most = -Infinity, sum = 0;
  for (let i = 0; i < p.length; i++) most = Math.max(most, p[i]);
  for (let i = 0; i < p.length; i++) sum += p[i] = Math.exp(p[i] - most);
  for (let i = 0; i < p.length; i++) p[i] /= sum;
}

// bf16 is the upper half of an f32.
function widened(halves) {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < bits.length; i++) bits[i] = halves[i] << 16;
  return new Float32Array(bits.buffer);
}
