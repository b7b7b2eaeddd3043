// The attention maps: a canvas of one pixel for each pair of tokens with the tokens at its sides, and a line of text about
// the pair under the pointer.
function drawHeads(place) {
  const {tokens, layers, heads, shares} = JSON.parse(place.querySelector("script").textContent);
  const bytes = Uint8Array.from(atob(shares), (character) => character.charCodeAt(0)), n = tokens.length;
  const heat = getComputedStyle(document.documentElement).getPropertyValue("--heat").split(",").map(Number);
  for (let head = 0; head < layers * heads; head++) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption"), title = `layer ${Math.floor(head / heads)}, head ${head % heads}`;
    canvas.width = canvas.height = n;
    const picture = new ImageData(n, n);
    for (let at = 0; at < n * n; at++) {
      picture.data.set([...heat, 255 * Math.sqrt(bytes[head * n * n + at] / 255)], 4 * at);
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
    caption.textContent = title;
    canvas.onpointermove = (event) => {
      const size = canvas.clientWidth / n, row = Math.floor(event.offsetY / size), column = Math.floor(event.offsetX / size);
      if (row < 0 || row >= n || column < 0 || column >= n) return;
      const share = Math.round((100 * bytes[(head * n + row) * n + column]) / 255);
      caption.textContent = `${title}: “${tokens[row]}” gives “${tokens[column]}” ${share} %`;
    };
    canvas.onpointerleave = () => { caption.textContent = title; };
    const map = document.createElement("div");
    map.className = "map";
    map.append(tokenLabels("columns", tokens), tokenLabels("rows", tokens), canvas);
    figure.append(map, caption);
    place.append(figure);
  }
}

function tokenLabels(side, tokens) {
  const labels = document.createElement("div");
  labels.className = side;
  labels.append(...tokens.map((token) => {
    const label = document.createElement("span");
    label.textContent = token.replaceAll(" ", "␣").replaceAll("\n", "⏎");
    return label;
  }));
  return labels;
}

drawHeads(document.getElementById("heads"));
