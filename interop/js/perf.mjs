// Perf: /perf/1.0.0, both sides, as libp2p's specification has it.
//
// js-libp2p's own, @libp2p/perf, is in no registry that each machine of these tests can ask.

import { drained, ended } from './echo.mjs';
import { until } from './waiting.mjs';

export const PERF_PROTOCOL = '/perf/1.0.0';

const BLOCK = new Uint8Array(64 * 1024);
const REQUEST_BYTES = 8;

/** Serve one perf stream: take all that comes, and only then send what was asked for. */
export function servePerf(stream) {
  answer(stream).catch((error) => {
    console.error('perf broke off:', error);
    stream.abort(error);
  });
}

async function answer(stream) {
  const request = Buffer.alloc(REQUEST_BYTES);
  const counter = count(stream, request);
  await until(stream, 'end', () => ended(stream, counter.bytes), { unless: 'close' });
  if (counter.bytes < REQUEST_BYTES) throw new Error('the stream ended within the request');
  await sendZeros(stream, request.readBigUInt64BE());
  await stream.close();
}

/** Send `upload` bytes, then receive `download`. Returns how many came. */
export async function runPerf(connection, { upload, download }, signal) {
  const stream = await connection.newStream(PERF_PROTOCOL, { signal, runOnLimitedConnection: true });
  const counter = count(stream);
  const whole = until(stream, 'end', () => ended(stream, counter.bytes), { signal, unless: 'close' });
  whole.catch(() => {}); // It is awaited below, but perhaps fails before that.
  try {
    const request = Buffer.alloc(REQUEST_BYTES);
    request.writeBigUInt64BE(BigInt(download));
    if (!stream.send(request)) await drained(stream, signal);
    await sendZeros(stream, BigInt(upload), signal);
    await stream.close({ signal });
    await whole;
  } catch (error) {
    stream.abort(error);
    throw new Error(`perf stopped after ${counter.bytes} of ${download} bytes: ${error.message}`, { cause: error });
  }
  if (counter.bytes !== download) throw new Error(`${counter.bytes} bytes came of the ${download} asked for`);
  return counter.bytes;
}

// Counts what comes, and copies the first bytes to `head`.
function count(stream, head = Buffer.alloc(0)) {
  const counter = { bytes: 0 };
  stream.addEventListener('message', ({ data }) => {
    if (counter.bytes < head.length) {
      head.set(data.subarray(0, Math.min(data.byteLength, head.length - counter.bytes)), counter.bytes);
    }
    counter.bytes += data.byteLength;
  });
  return counter;
}

async function sendZeros(stream, size, signal) {
  const block = BigInt(BLOCK.length);
  for (let left = size; left > 0n; left -= block) {
    const chunk = left < block ? BLOCK.subarray(0, Number(left)) : BLOCK;
    if (!stream.send(chunk)) await drained(stream, signal);
  }
}
