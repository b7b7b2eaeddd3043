// The tokenizer of hipgpt/data/tokenizer: special tokens are cut out, a pattern splits the rest into pieces, and each
// piece is merged from its bytes, always by the earliest merge that fits, from left to right.
class Tokenizer {
  // spec: merges [[left, right], ...] in token numbers, ids of the numbers, specials and whole [[text, id], ...] (whole
  // in Latin-1, a character a byte), ignore_merges, nfc, pattern (a regular expression), end_of_text.
  constructor(spec) {
    this.spec = spec;
    this.pattern = new RegExp(spec.pattern, "gu");
    this.encoder = new TextEncoder();
    this.ranks = new Map(spec.merges.map(([left, right], rank) => [left * 2 ** 24 + right, rank]));
    const spelled = Array.from({length: 256}, (_, byte) => String.fromCharCode(byte));
    for (const [left, right] of spec.merges) spelled.push(spelled[left] + spelled[right]);
    this.bytes = new Map(); // of each id, in Latin-1
    spelled.forEach((text, number) => this.bytes.set(spec.ids[number], text));
    for (const [text, id] of spec.whole) this.bytes.set(id, text);
    this.whole = spec.ignore_merges ? new Map([...this.bytes].map(([id, text]) => [text, id])) : new Map();
    for (const [text, id] of spec.specials) this.bytes.set(id, latin1(this.encoder.encode(text)));
    const literals = spec.specials.map(([text]) => text).sort((a, b) => b.length - a.length).map(escaped);
    this.specials = new RegExp(`(${literals.join("|")})`, "u"); // alternatives in order: the longest wins
    this.idOfSpecial = new Map(spec.specials);
  }

  encode(text) {
    return text.split(this.specials).flatMap((part, at) =>
      at % 2 ? [this.idOfSpecial.get(part)] : this.encodePlain(this.spec.nfc ? part.normalize("NFC") : part));
  }

  encodePlain(text) {
    return (text.match(this.pattern) || []).flatMap((piece) => this.encodePiece(piece));
  }

  encodePiece(piece) {
    const bytes = this.encoder.encode(piece);
    const whole = this.whole.get(latin1(bytes));
    if (whole !== undefined) return [whole];
    let tokens = Array.from(bytes);
    for (;;) {
      let first = Infinity;
      for (let i = 1; i < tokens.length; i++) {
        const rank = this.ranks.get(tokens[i - 1] * 2 ** 24 + tokens[i]);
        if (rank < first) first = rank;
      }
      if (first === Infinity) return tokens.map((number) => this.spec.ids[number]);
      tokens = merged(tokens, this.spec.merges[first], 256 + first);
    }
  }

  // The bytes of ids. A character may be spread over several tokens, so texts are decoded from the bytes of all.
  decode(ids) {
    return ids.map((id) => this.bytes.get(id)).join("");
  }
}

function merged(tokens, [left, right], result) {
  const found = [];
  for (let i = 0; i < tokens.length; i++) {
    const fits = tokens[i] === left && tokens[i + 1] === right;
    found.push(fits ? result : tokens[i]);
    if (fits) i++;
  }
  return found;
}

function latin1(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function fromLatin1(text) {
  return new TextDecoder().decode(Uint8Array.from(text, (character) => character.charCodeAt(0)));
}

function escaped(literal) {
  return literal.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
