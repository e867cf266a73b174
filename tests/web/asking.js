// Asks pairs in a page: pictures as base64 of PNG, masks as base64 of packed bits, rows first.
async ({bundle, options, pictures}) => {
  const {Segmenter} = await import("/index.js");
  const segmenter = await Segmenter.load(bundle, options);
  const packed = (mask) => {
    const bits = new Uint8Array(Math.ceil(mask.length / 8));
    mask.forEach((pixel, at) => { bits[at >> 3] |= pixel << (7 - at % 8); });
    let text = "";
    for (const byte of bits) text += String.fromCharCode(byte);
    return btoa(text);
  };
  const answers = [];
  for (const {png, questions} of pictures) {
    const scene = await segmenter.encode(await (await fetch(`data:image/png;base64,${png}`)).blob());
    for (const {text, ...asked} of questions) {
      const {instances, level, presence, tokensCut, truncated} = await scene.segment(text, asked);
      answers.push({
        level, presence, tokensCut, truncated,
        scores: instances.map((one) => one.score), boxes: instances.map((one) => one.box),
        masks: instances.map((one) => packed(one.mask)), polygons: instances.map((one) => one.polygons),
      });
    }
    scene.close();
  }
  segmenter.close();
  return {answers, info: segmenter.info};
}
