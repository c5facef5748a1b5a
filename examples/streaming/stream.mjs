// Feed a recording of an event camera to a `step` model of msg-deploy, one window of time a step,
// with onnxruntime-web: in a browser (index.html), or
//   npm install && node stream.mjs step.onnx recording.bin 10 30000
// The last two are the number of steps the model was trained on and microseconds a step.

/** Events of an N-MNIST or N-Caltech101 file: 5 bytes each, [microseconds, column, row, polarity]. */
export function* events(bytes) {
  let overflow = 0;
  for (let i = 0; i + 5 <= bytes.length; i += 5) {
    if (bytes[i + 1] === 240) { overflow += 1 << 13; continue; }
    const t = ((bytes[i + 2] & 0x7f) << 16) | (bytes[i + 3] << 8) | bytes[i + 4];
    yield [t + overflow, bytes[i], bytes[i + 1], bytes[i + 2] >> 7];
  }
}

/** A frame of event counts (polarity, row, column) for each window, as soon as it is over. */
export function* windows(stream, [, channels, height, width], length) {
  let frame = new Float32Array(channels * height * width), start = null;
  for (const [t, x, y, p] of stream) {
    start ??= t;
    for (; t >= start + length; start += length) {
      yield frame;
      frame = new Float32Array(frame.length);
    }
    frame[(p * height + y) * width + x] += 1;
  }
  yield frame;
}

/** Runs the model window by window; states are the inputs NAME that have an output NAME.next. */
export async function* decisions(ort, model, recording, steps, length) {
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const shapes = Object.fromEntries(session.inputMetadata.map(
    ({ name, shape }) => [name, shape.map((size) => (typeof size === "number" ? size : 1))]));
  const names = Object.keys(shapes).filter((name) => session.outputNames.includes(`${name}.next`));
  const zeros = (shape) => new Float32Array(shape.reduce((a, b) => a * b, 1));
  let state = Object.fromEntries(
    names.map((name) => [name, new ort.Tensor("float32", zeros(shapes[name]), shapes[name])]));
  let step = 0;
  for (const frame of windows(events(recording), shapes.input, length)) {
    if (step === steps) break;
    const input = new ort.Tensor("float32", frame, shapes.input);
    const number = new ort.Tensor("int64", BigInt64Array.of(BigInt(step)), []);
    const found = await session.run({ input, step: number, ...state });
    state = Object.fromEntries(names.map((name) => [name, found[`${name}.next`]]));
    const scores = Array.from(found["scores.next"].data);
    const count = frame.reduce((a, b) => a + b, 0);
    yield { step: step++, events: count, decision: Number(found.decision.data[0]), scores };
  }
}

if (globalThis.process?.argv[1]?.endsWith("stream.mjs")) {
  const [{ readFile }, ort] = await Promise.all([import("node:fs/promises"), import("onnxruntime-web")]);
  const [model, recording, steps, length] = process.argv.slice(2);
  const files = await Promise.all([readFile(model), readFile(recording)]);
  for await (const row of decisions(ort, ...files, Number(steps), Number(length)))
    console.log(JSON.stringify(row));
}
